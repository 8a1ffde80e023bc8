"""One item of a dataset executed again, here in this process, as its last attempt was: for a debugger, and for eyes.

The dataset holds neither code nor params: the caller gives them. What the dataset knows of them (the digest of the params, the seed, the
fingerprint of the input) is compared, or taken from there. Nothing is written.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dcompute.errors import InputError, UsageError, WorkloadError
from dcompute.records import ItemKey, is_whole

if TYPE_CHECKING:
    from dcompute.dataset.status import Dataset

#: Stands for an argument that was not given, since None may be a value.
MISSING: Any = object()

_COLUMNS = ("item_key", "key_kind", "attempt", "fingerprint", "params_digest", "run", "seed")


def reproduce(dataset: Dataset, key: Any, workload: Any, *, params: Mapping[str, Any] | None, value: Any) -> Any:
    """What the workload returns for one item; what it raises comes out as it is.

    Parameters
    ----------
    dataset
        Has an attempt of the item: the newest is reproduced.
    key
        As the column ``item_key`` has it, a pair with ``key_kind``, or the value itself.
    workload
        The function, class or workload.
    params
        As in the run.
    value
        The input; :data:`MISSING`: from the key.

    Raises
    ------
    UsageError
        There is no such item, the params are others, or the key does not hold the input.
    """
    row = _row(dataset, key)
    given = dict(params or {})
    _compare_params(row, given)
    item = ItemKey(row["item_key"], row["key_kind"])
    call = _ready(workload, given, _input(item, row["fingerprint"], key) if value is MISSING else value)
    with _at_work(item, row, given):
        result = call()
        return list(result) if isinstance(result, Iterator) else result


@contextlib.contextmanager
def _at_work(item: ItemKey, row: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[None]:
    """``dc.current()`` as the attempt had it, in this thread."""
    from dcompute.worker import context

    class Reproduced(context.Context):
        # the attempt's row has what came of the run's seed and the key
        @property
        def seed(self) -> int:
            return int(row["seed"] or 0)

        @property
        def items(self) -> tuple[context.AtWork, ...]:
            return (context.AtWork(item.text, item.kind, self.attempt, self.seed),)

    found = Reproduced(item, row["attempt"], row["run"], params=params, seed=0, room=context.Room(), report=None)
    before = context._thread.set(found)
    try:
        yield
    finally:
        context._thread.reset(before)
        found.close()


def _row(dataset: Dataset, key: Any) -> dict[str, Any]:
    """The newest attempt of the item."""
    text, kind = _identity(key)
    filters = [("item_key", "==", text), *([("key_kind", "==", kind)] if kind is not None else [])]
    rows: list[dict[str, Any]] = dataset._attempts(_COLUMNS, filters).to_arrow().to_pylist() if is_whole(f"{text}{kind}") else []
    if not rows:
        raise UsageError(f"{dataset.url} has no attempt of an item with the key {text!r}{f' ({kind})' if kind else ''}: see its attempts()")
    kinds = sorted({row["key_kind"] for row in rows})
    if len(kinds) > 1:
        raise UsageError(f"{text!r} is the key of several items, of the kinds {', '.join(kinds)}: say which, as ({text!r}, {kinds[0]!r})")
    return rows[-1]


def _identity(key: Any) -> tuple[str, str | None]:
    from dcompute.keys import derive

    if isinstance(key, str):
        # half characters stand in a key written out: as a value it is found
        return (key, None) if is_whole(key) else derive(key)
    if isinstance(key, tuple) and len(key) == 2 and all(isinstance(part, str) for part in key):
        return key
    return derive(key)


def _compare_params(row: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    from dcompute.code import params_digest

    if row["params_digest"] in (None, "") or params_digest(params) == row["params_digest"]:
        return
    named = f"params={{{', '.join(map(repr, params))}}}" if params else "no params"
    were = "no params" if row["params_digest"] == params_digest({}) else "others (the dataset holds a digest of them, not their values)"
    raise UsageError(f"reproduce() got {named}, and the item was executed with {were}: pass params= as the run {row['run']} did")


def _input(key: ItemKey, recorded: str | None, given: Any) -> Any:
    """The input: what was given for a key where it is the value itself, else what the key holds, compared with what the dataset knows."""
    from dcompute.dataset.spelled import of_many_types, value_of
    from dcompute.keys import ESCAPED, fingerprint

    is_text = isinstance(given, str) or (isinstance(given, tuple) and given == key)
    if not is_text and fingerprint(given) == recorded:
        return given
    if unsure := of_many_types(key):
        raise UsageError(
            f"the key {key.text!r} ({key.kind}) holds {unsure}, and does not tell of which type it was, Python's or that of pandas: pass "
            "the value that gave the key in the key's place, or the input as value="
        )
    value = value_of(key)
    if not recorded:
        return value
    for found in (value, _with_tuples(value)):  # a key writes tuples and lists alike
        if fingerprint(found) == recorded:
            return found
    if key.kind.removesuffix(ESCAPED) in ("str", "path"):
        is_same = _is_same_file(os.fspath(value), recorded)
        if is_same:
            return value
        if is_same is not None:
            raise UsageError(
                f"the file {key.text} is another one than the item was executed with: pass value={key.text!r} to take it as it is"
            )
    raise UsageError(
        f"the key {key.text!r} ({key.kind}) does not hold the input of its item, which got its key from an index, from key= or from a file "
        "that cannot be seen here: pass the input as value="
    )


def _with_tuples(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(map(_with_tuples, value))
    return {name: _with_tuples(member) for name, member in value.items()} if isinstance(value, dict) else value


def _is_same_file(path: str, recorded: str) -> bool | None:
    """Whether a file is as it was, by its storage or by its content; None where it cannot be seen."""
    from dcompute.inputs import Inputs, files

    found = files(path, fingerprint="content")
    try:
        items = list(Inputs.of(found))
    except InputError:
        return None
    if len(items) != 1:
        return None
    if found.prints.is_same(items[0].fingerprint, recorded):
        return True
    return found.prints.is_same(found.prints.completed(items)[0].fingerprint, recorded)


def _ready(workload: Any, params: Mapping[str, Any], value: Any) -> Callable[[], Any]:
    """The call, made ready: set up, with the value as it was passed."""
    from dcompute.code import Loaded
    from dcompute.worker.attempt import one_of_group
    from dcompute.workload import Workload
    from dcompute.workload import workload as as_workload

    work = workload if isinstance(workload, Workload) else as_workload(workload)
    for_setup, for_call = work.split_params(params)
    keywords = _takes_keywords(work, params, value)
    loaded = Loaded(work.function, params, work.initializer, for_setup, for_call, keywords, work.group)
    function = loaded.start()
    single = one_of_group(function) if work.group is not None else function
    return lambda: single(value)


def _takes_keywords(work: Any, params: Mapping[str, Any], value: Any) -> bool:
    # those of grids and tables are keyword arguments, a mapping of another input is the one positional argument: the key says neither
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    try:
        work.check_call(params, tuple(value))
    except WorkloadError:
        return False
    return True
