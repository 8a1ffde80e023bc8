"""What happened to a dataset, entry by entry, and which entry was the last one at some time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from dcompute.dataset.entries import (
    Action,
    Add,
    Adopted,
    Close,
    Drop,
    Entry,
    Files,
    Hide,
    Open,
    Release,
    Rename,
    Replace,
    RunInfo,
    Sent,
    SetSchema,
    Vacuum,
)
from dcompute.dataset.log import Log
from dcompute.dataset.removal import readable, removed
from dcompute.dataset.state import State
from dcompute.dataset.store import Store
from dcompute.errors import DatasetError, UsageError

_WORDS: dict[type[Any], str] = {
    Open: "opened",
    RunInfo: "began",
    Sent: "sent",
    Adopted: "adopted",
    Add: "added",
    Hide: "hidden",
    Replace: "compacted",
    Release: "released",
    Drop: "dropped",
    Vacuum: "vacuumed",
    Rename: "renamed",
    Files: "files",
    SetSchema: "schema changed",
    Close: "closed",
}
# what nobody but a run's own driver commits
_OF_RUN = (Open, RunInfo, Sent, Adopted, Add, Close)
# of more parts than these it is seen when they are read
_MOST_LOOKED_FOR = 100


@dataclass(frozen=True, slots=True)
class Happened:
    """One entry of the log."""

    number: int  #: a position to open the dataset at
    time: float  #: seconds since 1970, on the clock of who wrote it
    run: str | None  #: whose driver wrote it; None: a compaction, a vacuum or a deletion
    what: (
        str  #: opened, began, sent, adopted, added, hidden, compacted, released, dropped, vacuumed, renamed, files, schema changed, closed
    )
    batches: int  #: that were added
    succeeded: int  #: items in them
    failed: int  #: attempts in them that failed, finally or not
    rows: int  #: of results in them
    hidden: int  #: keys whose earlier rows count no more
    replaced: int  #: results parts that gave way to others


def happened(entries: Iterable[Entry]) -> Iterator[Happened]:
    """What each entry of a log did, from the first on: what an entry names in vain is not counted."""
    state = State()
    for entry in entries:
        batches, replaced, schema = len(state.batches), len(state.replaced), state.schema
        state.apply(entry)
        added = [counted.batch for counted in state.batches[batches:]]
        is_news = state.schema != schema
        words = [
            _WORDS[type(action)] for action in entry.actions if type(action) in _WORDS and (is_news or not isinstance(action, SetSchema))
        ]
        yield Happened(
            number=entry.number,
            time=entry.at,
            run=_run(entry.actions, state),
            what=", ".join(dict.fromkeys(words)),
            batches=len(added),
            succeeded=sum(batch.succeeded for batch in added),
            failed=sum(count for batch in added for _, count in batch.failed),
            rows=sum(batch.rows for batch in added),
            hidden=len({key for action in entry.actions if isinstance(action, Hide) for key in action.keys}),
            replaced=len(state.replaced) - replaced,
        )


def history(store: Store, at: int | None = None) -> Any:
    """What happened, as a pandas dataframe: a row an entry of the log, with the fields of :class:`Happened`.

    Parameters
    ----------
    store
        The dataset's.
    at
        Up to this entry; None: all.
    """
    import pandas as pd
    import pyarrow as pa

    found = list(happened(Log(store).read_all(stop=at)))
    columns = {field.name: [getattr(one, field.name) for one in found] for field in fields(Happened)}
    kinds = {"time": pa.timestamp("us", "UTC"), "run": pa.string(), "what": pa.string()}
    columns["time"] = [round(time * 1e6) for time in columns["time"]]
    table = pa.table({name: pa.array(values, kinds.get(name, pa.int64())) for name, values in columns.items()})
    return table.to_pandas(types_mapper=pd.ArrowDtype)


def number_at(log: Log, at: Any) -> int:
    """The number of the entry that was the last one at a time, or of a position in the log.

    Parameters
    ----------
    log
        The dataset's; of a time a few of its entries are read.
    at
        A number; a ``datetime``, local where it names no zone; or either of them as text, a time in ISO 8601.

    Raises
    ------
    UsageError
        There is no such entry, or the dataset is younger.
    """
    moment = _moment(at)
    end = log.end()
    if not isinstance(moment, datetime):
        if not 1 <= moment <= end:
            raise UsageError(f"at={at!r}: the log of {log.store.url} has entries 1 to {end}; see history()")
        return moment
    try:
        time = moment.timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"at={at!r} is a time that cannot be told on this machine ({error}): give one since 1970") from error
    return _last_before(log, time, end)


def refuse_removed(store: Store, state: State) -> None:
    """Raise where vacuum removed parts that counted as of an earlier entry.

    Parameters
    ----------
    store
        The dataset's.
    state
        What its log said then.
    """
    from dcompute.dataset.checkpoint import read_state

    now = read_state(store)
    if not now.vacuumed:
        return
    suspects = [part.name for part in state.counted_parts() if part.name in now.replaced]
    for name in suspects[:_MOST_LOOKED_FOR]:
        if not store.exists(name) and (error := removed(Log(store), name)) is not None:
            raise error


def _run(actions: Iterable[Action], state: State) -> str | None:
    return state.driver.run if state.driver is not None and any(isinstance(action, _OF_RUN) for action in actions) else None


def _moment(at: Any) -> int | datetime:
    if isinstance(at, str):
        text = at.strip()
        try:
            return int(text) if text.isdecimal() else datetime.fromisoformat(text)
        except ValueError:
            pass
    elif isinstance(at, int | datetime) and not isinstance(at, bool):
        return at
    raise UsageError(f"at={at!r} is no position and no time: give the number of an entry, such as 120, or a time such as 2026-05-31T17:30")


def _last_before(log: Log, time: float, end: int) -> int:
    # between two neighbours that lie on either side of the time: clocks of writers may differ, and then there are several
    low, high = 0, end + 1
    while high - low > 1:
        middle = (low + high) // 2
        if _at(log, middle) <= time:
            low = middle
        else:
            high = middle
    if not low:
        since = f"its first entry is of {readable(_at(log, 1))}" if end else "its log has no entry yet"
        raise UsageError(f"at={readable(time)}: {log.store.url} is younger; {since}")
    return low


def _at(log: Log, number: int) -> float:
    entry = log.read(number)
    if entry is None:
        raise DatasetError(f"entry {number} of the log of {log.store.url} is gone: something other than dcompute removed it")
    return entry.at
