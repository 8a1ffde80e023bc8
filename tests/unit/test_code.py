from __future__ import annotations

import functools
import importlib
import io
import re
import subprocess
import sys
import textwrap
import threading
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest

import dcompute as dc
from dcompute.code import code_digest, load, pack, params_digest, zip_module
from dcompute.errors import InputError, WorkloadError

MakeModule = Callable[..., types.ModuleType]


@pytest.fixture
def make_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeModule]:
    """``make_module(source, name)`` is that module, imported anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def make(source: str, name: str = "users_module") -> types.ModuleType:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        for cached in (tmp_path / "__pycache__").glob("*"):
            cached.unlink()
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        made.append(name)
        return importlib.import_module(name)

    yield make
    for name in made:
        sys.modules.pop(name, None)


@dc.workload
def doubled(value: int, factor: int = 2) -> int:
    return factor * value


class Model:
    made = 0

    def __init__(self, weights: int = 1) -> None:
        type(self).made += 1
        self.weights = weights

    def __call__(self, value: int, *, bias: int = 0) -> int:
        return self.weights * value + bias


def _start(base: int) -> dict[str, int]:
    return {"base": base}


def _with_state(value: int, *, state: dict[str, int]) -> int:
    return value + state["base"]


def _started(work: Any, params: dict[str, Any] | None = None, *, keywords: bool = False) -> Callable[[Any], Any]:
    return load(pack(dc.Workload.of(work), params or {}, keywords=keywords).code).start()


def test_a_function_comes_back_with_its_params() -> None:
    """What a child opens does what the user wrote, and knows all params."""
    assert _started(doubled)(4) == 8
    assert _started(doubled, {"factor": 5})(4) == 20
    assert load(pack(doubled, {"factor": 5}).code).params == {"factor": 5}


def test_a_class_is_made_once_and_called_for_each_value() -> None:
    """Its params go to the set-up or to the call."""
    before = Model.made
    call = _started(Model, {"weights": 3, "bias": 1})
    assert ([call(1), call(2)], Model.made) == ([4, 7], before + 1)


def test_the_value_of_an_initializer_is_the_keyword_state() -> None:
    """It is called once, with the params that it takes."""
    assert _started(dc.workload(initializer=_start)(_with_state), {"base": 10})(1) == 11


def test_tables_and_grids_call_with_keywords() -> None:
    """A value is then a mapping of them; without keywords a mapping is the one argument."""
    assert _started(lambda a, b, c: (a, b, c), {"c": 3}, keywords=True)({"a": 1, "b": 2}) == (1, 2, 3)
    assert _started(lambda row: row)({"a": 1}) == {"a": 1}


def test_a_group_gets_its_list_with_params() -> None:
    """Whatever the values are."""
    work = dc.workload(group=8)(lambda rows, c: [row["a"] + c for row in rows])
    assert _started(work, {"c": 3}, keywords=True)([{"a": 1}, {"a": 2}]) == [4, 5]


def _grown(value: int, *, seen: Any, **more: Any) -> Any:
    """Appends to all of its params that it can."""
    for one in (seen, *more.values()):
        inner = one["deep"][0] if isinstance(one, dict) else one[0] if isinstance(one, tuple) else one
        (inner.add if isinstance(inner, set) else inner.append)(value)
    return seen, more


def test_what_an_item_does_to_its_params_the_next_one_does_not_see() -> None:
    """Lists, mappings, sets and byte arrays at any depth are each call's own: else results would depend on who shares a child."""
    params = {"seen": [], "deep": {"deep": [[], "text"], "plain": 1}, "pair": ([], 2), "raw": bytearray(), "met": {0}}
    call = _started(_grown, params)
    for number in (1, 2, 3):
        seen, more = call(number)
        assert seen == [number]
        assert more == {
            "deep": {"deep": [[number], "text"], "plain": 1},
            "pair": ([number], 2),
            "raw": bytearray([number]),
            "met": {0, number},
        }


def test_a_set_up_that_changes_its_params_leaves_those_of_the_calls() -> None:
    """It is done once a child, and a child may serve few items or many."""

    class Greedy:
        def __init__(self, names: list[str]) -> None:
            names.append("more")

        def __call__(self, value: int, names: list[str]) -> list[str]:
            return names

    assert _started(Greedy, {"names": ["a"]})(1) == ["a"]


def test_large_params_and_other_objects_are_shared() -> None:
    """Copying a table of a million names for each item would cost more than the item; an array is passed as it is."""
    same = [_started(lambda value, x: x, {"x": x}) for x in (np.arange(3), list(range(2000)), [[0]] * 600)]
    assert all(call(1) is call(2) for call in same)
    small = _started(lambda value, x: x, {"x": list(range(900))})
    assert small(1) == small(2)
    assert small(1) is not small(2)


def test_code_of_modules_travels_by_name_and_of_scripts_by_value(make_module: MakeModule) -> None:
    """A child imports a module as it is on disk, from behind our decorator too; a script's function comes with it."""
    source = "import dcompute as dc\n@dc.workload\ndef f(x): return {}\n"
    module = make_module(source.format("x + 1"))
    by_name = pack(module.f, {}).code
    assert b"users_module" in by_name
    make_module(source.format("x + 100"))
    assert load(by_name).start()(1) == 101

    script = {"__name__": "__main__"}
    exec("def f(x): return g(x) + 1\ndef g(x): return 10 * x", script)
    by_value = pack(dc.Workload.of(script["f"]), {}).code
    assert load(by_value).start()(1) == 11


def test_a_module_marked_by_value_travels_by_value(make_module: MakeModule) -> None:
    """Workers have no such module then."""
    module = make_module("def f(x): return x + 1")
    cloudpickle.register_pickle_by_value(module)
    try:
        data = pack(dc.Workload.of(module.f), {}).code
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    del sys.modules["users_module"]
    Path(module.__file__ or "").unlink()
    assert load(data).start()(1) == 2


def test_a_missing_module_is_told_with_what_to_do(make_module: MakeModule) -> None:
    """The error is the reader's to mend: it names the module and modules=."""
    module = make_module("def f(x): return x")
    data = pack(dc.Workload.of(module.f), {}).code
    del sys.modules["users_module"]
    Path(module.__file__ or "").unlink()
    importlib.invalidate_caches()
    with pytest.raises(WorkloadError, match=r"users_module.f cannot be imported here.*modules=\[\"users_module\"\]"):
        load(data)


def test_what_cannot_be_pickled_is_named() -> None:
    """The param at fault, or the variable that the function uses, each with what to do in its place."""
    lock = threading.Lock()
    with pytest.raises(WorkloadError, match=r"params\['factor'\], a lock, cannot be sent.*Leave it out"):
        pack(doubled, {"factor": lock})
    with pytest.raises(WorkloadError, match=r"with_lock, which uses the variable 'lock', a lock, cannot be sent.*Leave it out"):
        pack(dc.Workload.of(_closing_over(lock)), {})
    with pytest.raises(WorkloadError, match=r"initializer, which uses the variable 'lock'.*cannot be sent"):
        pack(dc.workload(initializer=_opening(lock))(lambda value, state: value), {})


def test_a_class_that_cannot_be_pickled_is_named() -> None:
    """Where no variable can be told, the way out is still in the error."""

    class Locked:
        lock = threading.Lock()

        def __call__(self, value: Any) -> Any:
            return value

    with pytest.raises(WorkloadError, match=r"Locked cannot be sent.*Open what cannot be pickled"):
        pack(dc.Workload.of(Locked), {})


def test_a_param_that_cannot_be_compared_says_what_to_pass() -> None:
    """An iterator travels, but nobody can tell whether it is another one: its values can be told."""
    with pytest.raises(InputError, match=r"params\['factor'\], a map, cannot be compared.*Pass list"):
        params_digest({"factor": map(str, [1])})
    with pytest.raises(InputError, match=r"params\['factor'\], a object, cannot be compared.*Pass plain data"):
        params_digest({"factor": object()})


def _opening(lock: Any) -> Callable[[], Any]:
    return lambda: lock


def _closing_over(lock: Any) -> Callable[[Any], Any]:
    def with_lock(value: Any) -> Any:
        return value, lock

    return with_lock


def test_a_call_that_must_fail_is_refused_before_it_travels() -> None:
    """One positional argument that nothing takes."""
    with pytest.raises(WorkloadError, match="one positional argument"):
        pack(dc.Workload.of(lambda: 0), {})


# ------------------------------------------------------------------------------------------------------------------------ digests

SAME = [
    ("def f(x):\n    return x + 1\n", 'def f(x):\n    """Documented."""\n    # commented\n    return (x\n            + 1)\n'),
    (
        "import dcompute as dc\n@dc.workload\ndef f(x): return x\n",
        "import dcompute as dc\n@dc.workload(memory='2 GiB')\ndef f(x): return x\n",
    ),
    ("def f(x): return x\n", "OTHER = 3\ndef g(x): return 1\ndef f(x): return x\n"),
    ("n = 1\ndef f(x): return x.n\n", "n = 2\ndef f(x): return x.n\n"),
    ("LIMIT = {1, 2, 3}\ndef f(x): return x in LIMIT\n", "LIMIT = {3, 2, 1}\ndef f(x): return x in LIMIT\n"),
]
OTHER = [
    ("def f(x): return x + 1\n", "def f(x): return x + 2\n"),
    ("def f(x, y=1): return x\n", "def f(x, y=2): return x\n"),
    ("def f(x, *, y=1): return x\n", "def f(x, *, y=2): return x\n"),
    ("LIMIT = 1\ndef f(x, y=LIMIT): return x\n", "LIMIT = 2\ndef f(x, y=LIMIT): return x\n"),
    ("LIMIT = 1\ndef f(x, *, y=LIMIT): return x\n", "LIMIT = 2\ndef f(x, *, y=LIMIT): return x\n"),
    ("LIMIT = 1\ndef f(x): return x + LIMIT\n", "LIMIT = 2\ndef f(x): return x + LIMIT\n"),
    ("def g(x): return x\ndef f(x): return g(x)\n", "def g(x): return -x\ndef f(x): return g(x)\n"),
    ("def g(x): return x\ndef f(x): return [g(y) for y in x]\n", "def g(x): return -x\ndef f(x): return [g(y) for y in x]\n"),
    (
        "def make(n):\n    def f(x): return x + n\n    return f\nf = make(1)\n",
        "def make(n):\n    def f(x): return x + n\n    return f\nf = make(2)\n",
    ),
    ("f = lambda x: x + 1\n", "f = lambda x: x + 2\n"),
    ("class f:\n    def __call__(self, x): return x\n", "class f:\n    def __call__(self, x): return -x\n"),
    ("class f:\n    LIMIT = 1\n    def __call__(self, x): return x\n", "class f:\n    LIMIT = 2\n    def __call__(self, x): return x\n"),
    (
        "class B:\n    def g(self): return 1\nclass f(B):\n    def __call__(self, x): return x\n",
        "class B:\n    def g(self): return 2\nclass f(B):\n    def __call__(self, x): return x\n",
    ),
    ("import functools\n@functools.cache\ndef f(x): return x\n", "import functools\n@functools.cache\ndef f(x): return -x\n"),
    (
        "from functools import partial\ndef g(x, y): return x\nf = partial(g, y=1)\n",
        "from functools import partial\ndef g(x, y): return x\nf = partial(g, y=2)\n",
    ),
    *[
        (template.replace("$", "1"), template.replace("$", "2"))
        for template in (
            "def g(x): return $\nSTEPS = {'a': g}\ndef f(x): return STEPS['a'](x)\n",
            "STEPS = [lambda x: $]\ndef f(x): return STEPS[0](x)\n",
            "def g(x): return $\nSTEPS = ([g],)\ndef make(steps):\n    def f(x): return steps\n    return f\nf = make({1: STEPS})\n",
            "import functools\n@functools.lru_cache\ndef g(x): return $\ndef f(x): return g(x)\n",
            "import functools\nclass f:\n    @functools.cache\n    def g(self): return $\n    def __call__(self, x): return self.g()\n",
            "from functools import singledispatch as s\n@s\ndef g(x): 0\n@g.register\ndef _(x: int): return $\ndef f(x): return g(x)\n",
            "class C:\n    def __init__(self, n): self.n = n\nCFG = C($)\ndef f(x): return CFG.n\n",
            "class C:\n    def g(self): return $\nCFG = C()\ndef f(x): return CFG.g()\n",
            "class C:\n    __slots__ = ('n',)\n    def __init__(self, n): self.n = n\nCFG = C($)\ndef f(x): return CFG.n\n",
            "from dataclasses import dataclass\n@dataclass\nclass C:\n    def g(self): return $\nV = [C()]\ndef f(x): return V[0].g()\n",
            "class C(str):\n    pass\nCFG = C('$')\ndef f(x): return CFG\n",
            "from typing import NamedTuple\nclass C(NamedTuple):\n    n: int\n    def g(self): return $\nV = C(0)\ndef f(x): V.g()\n",
            "import enum\nclass C(enum.Enum):\n    A = $\nCFG = C.A\ndef f(x): return CFG.value\n",
            "from types import SimpleNamespace\nCFG = SimpleNamespace(n=$)\ndef f(x): return CFG.n\n",
            "import re\nTEXT = re.compile('$')\ndef f(x): return TEXT.match(x)\n",
            "class C:\n    def __init__(self, n): self.n = n\n    def g(self, x): return self.n\nf = C($).g\n",
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_does_not_change_the_meaning_does_not_change_the_digest(make_module: MakeModule, one: str, other: str) -> None:
    """Comments, documentation, line breaks, requirements, and what it does not use."""
    assert code_digest(_f(make_module(one))) == code_digest(_f(make_module(other)))


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_what_changes_the_meaning_changes_the_digest(make_module: MakeModule, one: str, other: str) -> None:
    """Body, defaults, closure, values and functions used, base classes."""
    assert code_digest(_f(make_module(one))) != code_digest(_f(make_module(other)))


def _f(module: types.ModuleType) -> Any:
    return getattr(module.f, "function", module.f)


def test_a_helper_in_another_module_of_the_user_counts(make_module: MakeModule) -> None:
    """By attribute of the module, or imported from it."""
    digests = []
    for body in ("x", "-x"):
        make_module(f"def g(x): return {body}\ndef unused(x): return 1\n", "users_helper")
        digests.append(code_digest(make_module("import users_helper\ndef f(x): return users_helper.g(x)\n").f))
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    "user",
    [
        "import users_folder.deep\ndef f(x): return users_folder.deep.g(x)\n",
        "def f(x):\n    from users_folder.deep import g\n    return g(x)\n",
        "def f(x):\n    from users_folder import deep\n    return deep.g(x)\n",
        "def f(x):\n    def inner():\n        import users_folder.deep as deep\n        return deep.g(x)\n    return inner()\n",
        "def f(x):\n    from users_folder.above import g\n    return g(x)\n",
    ],
)
def test_a_module_in_a_package_counts_wherever_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_module: MakeModule, user: str
) -> None:
    """Before or in the function, at any depth, through another module; one that only a call imports is not imported for it."""
    folder = tmp_path / "users_folder"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "above.py").write_text("from .deep import g\n")
    digests = []
    for number in (1, 2):
        for name in [name for name in sys.modules if name.startswith("users_folder")]:
            monkeypatch.delitem(sys.modules, name)
        (folder / "deep.py").write_text(f"import numpy as np\ndef g(x): return x + {number}{'0' * number}\n")
        module = make_module(user)
        before = set(sys.modules)
        digests.append(code_digest(module.f))
        assert set(sys.modules) == before
    assert digests[0] != digests[1]


def test_a_file_that_was_edited_since_is_not_what_was_executed(tmp_path: Path, make_module: MakeModule) -> None:
    """The outcomes of what is in memory are no outcomes of what the file says now; comments and other functions may change."""
    text = "def f(x):\n    return x + 1\n"
    module = make_module(text)
    before = code_digest(module.f)
    path = tmp_path / "users_module.py"
    path.write_text(f"# moved\n\ndef g(x):\n    return 1\n\n{text.replace('1', '1  # one')}")
    assert code_digest(module.f) == before
    path.write_text(text.replace("1", "2"))
    stale = code_digest(module.f)
    assert len({before, stale, code_digest(make_module(text.replace("1", "2")).f)}) == 3


def test_a_function_around_another_counts_with_it(make_module: MakeModule) -> None:
    """What ``functools.wraps`` names like the one within is code of its own."""
    text = """
        import functools
        def around(function):
            @functools.wraps(function)
            def inner(x):
                return function(x) + $
            return inner
        @around
        def f(x): return x * %
        """
    digests = {code_digest(make_module(text.replace("$", one).replace("%", two)).f) for one, two in ("11", "12", "21")}
    assert len(digests) == 3


def test_what_holds_itself_has_a_digest(make_module: MakeModule) -> None:
    """Objects, lists and modules that refer to each other."""
    module = make_module(
        """
        class Node:
            def __init__(self): self.others = [self, {"me": self}]
        NODE = Node()
        LIST = [lambda: LIST]
        def f(x): return NODE, LIST
        """
    )
    assert len(code_digest(module.f)) == 32


def test_functions_that_call_each_other_have_a_digest(make_module: MakeModule) -> None:
    """Recursion ends."""
    module = make_module("def f(x): return g(x) if x else f(x)\ndef g(x): return f(x - 1)\n")
    assert len(code_digest(module.f)) == 32


def test_digests_without_source_go_by_bytecode() -> None:
    """A function made by exec has no source to read."""
    one, same, other = ({}, {}, {})  # type: tuple[dict[str, Any], ...]
    for code, names in (("x + 1", one), ("x + 1", same), ("x + 2", other)):
        exec(f"def f(x): return {code}", names)
    assert code_digest(one["f"]) == code_digest(same["f"]) != code_digest(other["f"])


def test_digests_are_the_same_in_every_process(make_module: MakeModule) -> None:
    """Neither the hashing of texts nor an address goes into them; a lock's or an object's does not count."""
    make_module(
        """
        import threading
        LOCK = threading.Lock()
        NAMES = frozenset({"a", "b", "c"})
        def f(x): return x in NAMES and x in {"d", "e", "f"} and LOCK
        g = lambda x: x in {"d", "e", "f"} and LOCK
        """
    )
    code = "import users_module as m; from dcompute.code import code_digest as d; print(d(m.f), d(m.g))"
    path = next(iter(sys.path))
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": path}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]


def test_the_digest_of_params_goes_by_content() -> None:
    """Names and values count, order does not; a function counts by its code."""
    assert params_digest({"a": 1, "b": 2}) == params_digest({"b": 2, "a": 1})
    values: list[Any] = [
        1,
        "1",
        1.0,
        [1],
        (1,),
        None,
        {"x": 1},
        doubled.function,
        pd.DataFrame({"a": [1]}),
        functools.partial(max, 1),
    ]
    assert len({params_digest({"a": value}) for value in values}) == len(values)
    assert params_digest({"a": 1}) != params_digest({"b": 1})


@pytest.mark.parametrize("value", [object(), {"n": 1, "z": object()}, [re.compile("x")]], ids=["object", "inside", "pattern"])
def test_a_param_that_cannot_be_compared_is_refused_by_name(value: Any) -> None:
    """A change of it would go unnoticed, and old results would pass for new ones."""
    with pytest.raises(InputError, match=r"params\['odd'\]"):
        params_digest({"fine": 1, "odd": value})


@pytest.mark.parametrize("hold", [lambda x: x, lambda x: {"n": [x]}], ids=["bare", "inside"])
def test_a_param_that_is_not_computed_is_refused_by_name(hold: Any) -> None:
    """With the line that gives its value."""
    from dask import delayed

    with pytest.raises(InputError, match=r"params\['odd'\] has a dask.delayed.Delayed.*dask.compute\(params\['odd'\]\)\[0\]"):
        params_digest({"fine": 1, "odd": hold(delayed(len)([1]))})


# ------------------------------------------------------------------------------------------------------------------------ modules


def _package(folder: Path, name: str = "users_package") -> Path:
    package = folder / name
    (package / "inner" / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text("from users_package.inner import answer\n")
    (package / "inner" / "__init__.py").write_text("answer = 42\n")
    (package / "inner" / "data.txt").write_text("data")
    (package / "inner" / "__pycache__" / "x.pyc").write_text("compiled")
    return package


def test_a_package_travels_with_its_data_and_without_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive can be unpacked and imported from."""
    _package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    shipped = zip_module("users_package")
    assert shipped.name == "users_package"
    names = zipfile.ZipFile(io.BytesIO(shipped.archive)).namelist()
    assert names == ["users_package/__init__.py", "users_package/inner/__init__.py", "users_package/inner/data.txt"]


def test_the_same_files_give_the_same_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times do not count; content does."""
    import os

    package = _package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    first = zip_module("users_package")
    os.utime(package / "__init__.py", (1, 1))
    assert zip_module("users_package") == first
    (package / "inner" / "data.txt").write_text("other")
    assert zip_module("users_package").digest != first.digest


def test_a_single_module_travels_too(make_module: MakeModule) -> None:
    """By name, or as the module itself."""
    module = make_module("answer = 42\n")
    shipped = zip_module(module)
    assert zipfile.ZipFile(io.BytesIO(shipped.archive)).namelist() == ["users_module.py"]
    assert shipped == zip_module("users_module")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_anywhere", "no module"),
        ("./users_package", "a part of a package|no module"),
        ("json.decoder", "send 'json'"),
        ("__main__", "script"),
        ("math", "not made of Python"),
    ],
)
def test_what_cannot_be_sent_is_refused(name: str, words: str) -> None:
    """With the name that it was given by."""
    with pytest.raises(WorkloadError, match=words):
        zip_module(name)
