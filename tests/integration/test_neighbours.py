"""What an item leaves changed in its process, and that its neighbours in the same warm child do not meet it."""

from __future__ import annotations

import contextlib
import gc
import io
import locale
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dcompute.worker import system
from dcompute.worker.supervisor import Supervisor
from tests.integration.test_child_faults import Batch

pytestmark = pytest.mark.skipif(not system.LINUX, reason="children are supervised on Linux")


@pytest.fixture(scope="module")
def keeper():
    """One supervisor for all tests of this module, as one worker process has."""
    keeper = Supervisor()
    yield keeper
    keeper.close()


def act(value: tuple[str, int, Any]) -> Any:
    """Note the call by a path that does not depend on what is tested, then do as commanded."""
    calls, place, (what, name) = value
    noted = os.open(calls, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(noted, f"{place}\n".encode())
    os.close(noted)
    told = globals()[what][name]()
    return told if isinstance(told, dict) else {"done": True}


def act_all(values: list[tuple[str, int, Any]]) -> list[Any]:
    return [act(value) for value in values]


def execute(keeper: Supervisor, folder: Path, commands: list[tuple[str, str]], **settings: Any) -> Batch:
    return Batch(keeper, folder, commands, function=settings.pop("function", act), **settings)


# ---------------------------------------------------------------------------------------------------- what is seen after every call


def gone() -> str:
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    shutil.rmtree(folder)
    return folder


def no_temporary_folder() -> None:
    tempfile.tempdir = "/nowhere"


def no_stdout() -> None:
    sys.stdout = None  # type: ignore[assignment]


def captured() -> None:
    sys.stdout = sys.stderr = io.StringIO()


def other_environment() -> None:
    os.environ = {"PATH": ""}  # type: ignore[assignment]  # noqa: B003  as user code does


def alarm() -> None:
    def late(*_: object) -> None:
        raise TimeoutError("of another item")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.02)


def default_alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.02)


def ignored_children() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def trace(frame: Any, *_: object) -> None:
    if frame.f_code.co_name == "look":
        raise AssertionError("traced")


LEFT: dict[str, Callable[[], Any]] = {
    "another folder": lambda: os.chdir("/"),
    "a folder that is gone": gone,
    "a variable": lambda: os.environ.__setitem__("LEFT_BEHIND", "1"),
    "a changed variable": lambda: os.environ.update(PATH="/nowhere"),
    "no variable": os.environ.clear,
    "another environment": other_environment,
    "umask": lambda: os.umask(0o777),
    "no paths": lambda: sys.path.clear(),
    "a path": lambda: sys.path.insert(0, "/nowhere"),
    "no finders": lambda: sys.meta_path.clear(),
    "warnings as errors": lambda: warnings.simplefilter("error"),
    "little recursion": lambda: sys.setrecursionlimit(120),
    "a tracer": lambda: sys.settrace(trace),
    "a profiler": lambda: sys.setprofile(trace),
    "no garbage collection": gc.disable,
    "no stdout": no_stdout,
    "captured output": captured,
    "temporary files": no_temporary_folder,
    "alarm": alarm,
    "alarm without a handler": default_alarm,
    "ignored children": ignored_children,
}


def nested(depth: int) -> int:
    return depth and nested(depth - 1)


def look() -> dict[str, Any]:
    """Fail, or tell another story, where anything is not as set-up left it."""
    with tempfile.NamedTemporaryFile() as file:
        mode = os.stat(file.name).st_mode & 0o777
    with open(Path(tempfile.gettempdir(), f"left-{os.getpid()}"), "w") as plain:
        umask = 0o666 & ~os.stat(plain.name).st_mode
    os.unlink(plain.name)
    warnings.warn("harmless", UserWarning, stacklevel=1)
    print("printed")
    return {
        "folder": os.getcwd(),
        "left": os.environ.get("LEFT_BEHIND"),
        "path": os.environ["PATH"],
        "modes": [mode, umask],
        "paths": len(sys.path) > 2 and "/nowhere" not in sys.path,
        "finders": len(sys.meta_path) > 0,
        "depth": nested(300),
        "collects": gc.isenabled(),
        "false": subprocess.run(["false"], check=False).returncode,
        "slept": time.sleep(0.03),
    }


SEEN = ("folder", "left", "path", "modes", "paths", "finders", "depth", "collects", "false")

MEET: dict[str, Callable[[], Any]] = {"look": look}


def seen(batch: Batch) -> list[dict[str, Any]]:
    """What the items that looked have seen."""
    rows = pq.read_table(batch.done.files[0][0]).to_pylist()
    return [{name: row[name] for name in SEEN} for row in rows if row.get("folder")]


@pytest.fixture(scope="module")
def undisturbed(keeper, tmp_path_factory):
    """What an item sees that is the first of its process."""
    (first,) = seen(execute(keeper, tmp_path_factory.mktemp("first"), [("MEET", "look")]))
    return first


@pytest.mark.parametrize("left", LEFT)
def test_what_an_item_left_is_not_met(keeper, tmp_path, undisturbed, left):
    """The next items see what a first one would have seen, print where they should, and are called once."""
    batch = execute(keeper, tmp_path, [("LEFT", left), ("MEET", "look"), ("MEET", "look")], run="left")
    batch.check_neighbours({})
    assert seen(batch) == [undisturbed] * 2
    assert [row["stdout"] for row in batch.rows[1:]] == ["printed\n"] * 2


# ----------------------------------------------------------------------------------------- what is seen where a neighbour fails of it


def lower(name: str, soft: int, *, hard: bool = False) -> None:
    number = getattr(resource, name)
    resource.setrlimit(number, (soft, soft if hard else resource.getrlimit(number)[1]))


def blocked() -> None:
    """A signal that this process does not handle waits for whoever unblocks it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.raise_signal(signal.SIGUSR1)


def narrow_output() -> None:
    sys.stdout.reconfigure(encoding="ascii", errors="strict")  # type: ignore[union-attr]


def no_output() -> None:
    sys.stdout.close()
    sys.stderr.detach()  # type: ignore[union-attr]


def output_elsewhere() -> None:
    file = os.open(os.devnull, os.O_RDONLY)
    os.dup2(file, 1)
    os.close(file)


LEFT_UNSEEN: dict[str, Callable[[], Any]] = {
    "few files": lambda: lower("RLIMIT_NOFILE", 8),
    "few files for good": lambda: lower("RLIMIT_NOFILE", 8, hard=True),
    "small files": lambda: lower("RLIMIT_FSIZE", 100),
    "little memory": lambda: lower("RLIMIT_AS", 100 << 20),
    "blocked signals": blocked,
    "a locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "a socket timeout": lambda: socket.setdefaulttimeout(1e-6),
    "narrow output": narrow_output,
    "no output": no_output,
    "no standard files": lambda: os.closerange(0, 3),
    "output elsewhere": output_elsewhere,
}


def need() -> dict[str, Any]:
    """Fail where anything is missing."""
    with contextlib.ExitStack() as files:
        for _ in range(20):
            files.enter_context(open(os.devnull))
    with tempfile.TemporaryFile() as large:
        large.write(bytes(100_000))
    assert len(bytearray(64 << 20))
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert not signal.sigpending()
    assert locale.setlocale(locale.LC_CTYPE) != "C"
    assert socket.getdefaulttimeout() is None
    for number in (1, 2):
        os.write(number, b"")
    assert os.fstat(0)
    print("p\u00fcnktlich")
    return {"sound": True}


MEET["need"] = need


@pytest.mark.parametrize("left", LEFT_UNSEEN)
def test_what_an_item_left_is_not_billed_to_another(keeper, tmp_path, left):
    """A neighbour that fails of it is called once more, where it is put right, and succeeds; those after it are called once."""
    batch = execute(keeper, tmp_path, [("LEFT_UNSEEN", left), *[("MEET", "need")] * 3], run="unseen", timeout=20.0)
    assert batch.failed() == {}
    assert sorted(batch.results) == [0, 1, 2, 3]
    assert batch.calls in ([0, 1, 1, 2, 3], [0, 1, 2, 3]), "none where the first took a millisecond"
    assert {row["attempt"] for row in batch.rows} == {1}
    assert [row["stdout"] and row["stdout"].splitlines()[-1] for row in batch.rows[2:]] == ["p\u00fcnktlich"] * 2


def test_a_group_meets_nothing_of_an_earlier_one(keeper, tmp_path, undisturbed):
    """What is seen after every call is put back; a group that fails of the rest is executed one by one, and nobody fails."""
    commands = [("LEFT", "a variable"), ("LEFT", "umask"), *[("MEET", "look")] * 2]
    commands += [*[("LEFT_UNSEEN", "few files")] * 2, *[("MEET", "need")] * 2]
    batch = execute(keeper, tmp_path, commands, function=act_all, group=2)
    assert batch.failed() == {}
    assert sorted(batch.results) == list(range(8))
    assert seen(batch) == [undisturbed] * 2
    assert [row["measured"] == "group" for row in batch.rows[:4]] == [True] * 4


def large() -> dict[str, Any]:
    return {"text": "x" * 600_000}


MEET["large"] = large


def test_an_outcome_is_noted_where_a_neighbour_limited_files(keeper, tmp_path):
    """A result for which the journal must grow is kept, with no further call, after an item that forbids large files."""
    batch = execute(keeper, tmp_path, [("LEFT_UNSEEN", "small files"), ("MEET", "large"), ("MEET", "large")])
    batch.check_neighbours({})


# ------------------------------------------------------------------------------------------------------------- what cannot be put back


def all_files() -> None:
    """Leave no file number for anybody else."""
    with contextlib.suppress(OSError):
        while True:
            os.open(os.devnull, os.O_RDONLY)


def all_files_and_fail() -> None:
    all_files()
    raise ValueError("no files left")


LEFT_FOR_GOOD: dict[str, Callable[[], Any]] = {"no files": all_files, "no files, failed": all_files_and_fail}


class InFewFiles:
    """A workload whose set-up takes care that files are soon exhausted."""

    def __init__(self) -> None:
        lower("RLIMIT_NOFILE", 300)

    def __call__(self, value: tuple[str, int, Any]) -> Any:
        return act(value)


@pytest.mark.parametrize("idempotent", [True, False])
def test_what_cannot_be_put_back_ends_its_process(keeper, tmp_path, idempotent, caplog):
    """The neighbour that fails of it is executed again in a fresh process; one that may not be is executed in that at once."""
    commands = [("MEET", "need"), ("LEFT_FOR_GOOD", "no files"), *[("MEET", "need")] * 3]
    batch = execute(keeper, tmp_path, commands, function=InFewFiles, idempotent=idempotent)
    assert batch.failed() == {}
    assert sorted(batch.results) == [0, 1, 2, 3, 4]
    assert batch.calls == [0, 1, 2, 3, 4], "without a file number the call could not be noted"
    assert ("failed in a process that earlier items had changed for good" in caplog.text) is idempotent


def test_who_fails_in_the_process_that_he_spoilt_is_to_blame(keeper, tmp_path):
    """Executed again where nobody else was, it fails again, and that counts."""
    commands = [("MEET", "need"), ("LEFT_FOR_GOOD", "no files, failed"), ("MEET", "need")]
    batch = execute(keeper, tmp_path, commands, function=InFewFiles)
    assert batch.failed() == {1: "permanent"}
    assert sorted(batch.results) == [0, 2]
    assert batch.rows[1]["error"] == "ValueError"
    assert batch.calls[:2] == [0, 1]


class Greedy:
    """A value that takes all files of the process in which it is opened."""

    def __reduce__(self) -> Any:
        return all_files, ()


def test_values_that_spoil_every_process_fail_by_themselves(keeper, tmp_path):
    """No item is executed again and again for what is wrong before the first call."""
    batch = execute(keeper, tmp_path, [(Greedy(), "look"), ("MEET", "look")], function=InFewFiles)
    assert batch.failed() == {0: "permanent", 1: "permanent"}
    assert {row["error"] for row in batch.rows} == {"OSError"}


# ------------------------------------------------------------------------------------------------------------------ what set-up left


class Prepared:
    """A workload whose set-up changes its process on purpose."""

    def __init__(self) -> None:
        os.environ["PREPARED"] = "1"
        os.chdir("/")
        os.umask(0o077)
        sys.stdout = io.StringIO()
        sys.path.append("/prepared")
        warnings.simplefilter("error")
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_PROF, 1000)
        lower("RLIMIT_NOFILE", 250)
        locale.setlocale(locale.LC_ALL, "C")
        socket.setdefaulttimeout(77)

    def __call__(self, value: tuple[str, int, Any]) -> Any:
        return act(value)


def prepared() -> dict[str, Any]:
    return {
        "variable": os.environ.get("PREPARED"),
        "folder": os.getcwd(),
        "umask": os.umask(0o077),
        "output": type(sys.stdout).__name__,
        "path": sys.path[-1],
        "filter": warnings.filters[0][0],
        "alarm": signal.getsignal(signal.SIGALRM) is signal.SIG_IGN,
        "timer": signal.getitimer(signal.ITIMER_PROF)[0] > 100,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "locale": locale.setlocale(locale.LC_CTYPE),
        "socket": socket.getdefaulttimeout(),
    }


MEET["prepared"] = prepared


def test_what_set_up_changed_stays(keeper, tmp_path):
    """Before, between and after items that change it, and one that fails, the process is as the set-up made it."""
    commands = [("MEET", "prepared")]
    for left in ("a variable", "another folder", "umask", "captured output", "a path", "alarm"):
        commands += [("LEFT", left), ("MEET", "prepared")]
    for left in ("few files", "a socket timeout", "blocked signals"):
        commands += [("LEFT_UNSEEN", left), ("MEET", "fail"), ("MEET", "prepared")]
    batch = execute(keeper, tmp_path, commands, function=Prepared)
    assert set(batch.failed()) == {place for place, command in enumerate(commands) if command == ("MEET", "fail")}
    rows = pq.read_table(batch.done.files[0][0]).to_pylist()
    told = [{name: row[name] for name in prepared()} for row in rows if row["folder"]]
    assert len(told) == 10
    assert all(one == told[0] for one in told)
    assert {**told[0], "timer": None} == {
        "variable": "1", "folder": "/", "umask": 0o077, "output": "StringIO", "path": "/prepared", "filter": "error", "alarm": True,
        "timer": None, "files": 250, "locale": "C", "socket": 77.0,
    }  # fmt: skip


def fail() -> None:
    raise ValueError("always")


MEET["fail"] = fail


MODULE = """
import os, sys, warnings
os.environ["OF_A_MODULE"] = "1"
sys.path.append("/of/a/module")
warnings.filterwarnings("ignore", message="of a module")
os.chdir("/")
"""


def import_it() -> dict[str, Any]:
    import module_that_sets

    assert module_that_sets
    return found_by_module()


def found_by_module() -> dict[str, Any]:
    ignored = [one[1] for one in warnings.filters if one[1] is not None]
    return {
        "variable": os.environ.get("OF_A_MODULE"),
        "paths": [path for path in sys.path if path in ("/of/a/module", "/nowhere")],
        "filters": len([one for one in ignored if "of a module" in str(one)]),
        "folder": os.getcwd(),
    }


MEET["import"], MEET["after import"] = import_it, found_by_module


def test_what_a_module_sets_when_it_is_imported_stays(keeper, tmp_path, monkeypatch):
    """It would not do so a second time: new variables, paths and filters stay, while what else an item changed does not."""
    (tmp_path / "module_that_sets.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    commands = [("LEFT", "a variable"), ("MEET", "import"), ("LEFT", "a path"), ("MEET", "after import")]
    batch = execute(keeper, tmp_path, commands)
    batch.check_neighbours({})
    before, after = (row for row in pq.read_table(batch.done.files[0][0]).to_pylist() if row["folder"])
    assert (before["folder"], after["folder"]) == ("/", os.getcwd())
    for row in (before, after):
        assert (row["variable"], row["paths"], row["filters"]) == ("1", ["/of/a/module"], 1)
