"""Compaction: many small results parts become few large ones, with the rows that count. What is merged is decided apart from doing it."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any

import pyarrow as pa

from dcompute.dataset.entries import Action, Replace
from dcompute.dataset.hiding import Hides
from dcompute.dataset.keeper import Keeper
from dcompute.dataset.merging import TARGET, Merge, can_sort, is_sorted, opened
from dcompute.dataset.names import new_id
from dcompute.dataset.outcomes import prefetched
from dcompute.dataset.pace import UPKEEP
from dcompute.dataset.reading import results_schema
from dcompute.dataset.schema import RESERVED
from dcompute.dataset.state import CountedPart, State
from dcompute.dataset.store import Store
from dcompute.errors import DatasetError, UsageError
from dcompute.records import PartRef

log = logging.getLogger("dcompute.dataset")

#: A part of fewer bytes is small.
SMALL = TARGET // 4
#: So many small parts at least are worth a merge that nobody asked to be complete.
LEAST = 10
#: So many small parts at least are worth one at the end of a run, which merges no more than so many (of an object store as many as it may
#: ask for in the time), of no more bytes in all than this, and begins no merge after so many seconds: nobody shall wait for it.
LEAST_AFTER_RUN = 200
MOST_AFTER_RUN = 2000
BYTES_AFTER_RUN = 512 << 20
SECONDS_AFTER_RUN = 10.0

# merges of one worker thread that are at the scheduler at once
_AHEAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What a compaction did; ``str()`` of it is for people."""

    url: str
    replaced: int = 0  #: parts that count no more
    written: int = 0  #: parts in their place
    rows: int = 0  #: in those
    dropped: int = 0  #: rows of the replaced parts that did not count any more
    bytes_before: int = 0
    bytes_after: int = 0
    overtaken: int = 0  #: parts left as they are, since somebody else replaced one they were merged with at the same time

    def __add__(self, other: Compaction) -> Compaction:
        figures = [field.name for field in fields(self) if field.name != "url"]
        return Compaction(url=self.url, **{name: getattr(self, name) + getattr(other, name) for name in figures})

    def __str__(self) -> str:
        lines = [f"{self.url}: nothing to compact"]
        if self.replaced:
            gone = f", {self.dropped:,} rows that did not count left out" if self.dropped else ""
            lines = [
                f"{self.url}: {self.replaced:,} results parts ({_size(self.bytes_before)}) became {self.written:,} "
                f"({_size(self.bytes_after)}) with {self.rows:,} rows{gone}"
            ]
        if self.overtaken:
            lines.append(f"  {self.overtaken:,} were left as they are: another compaction or vacuum came first; run it again")
        return "\n".join(lines)


def worth_merging(parts: Sequence[CountedPart], least: int = LEAST) -> list[CountedPart]:
    """The small parts that are worth a merge, in their order; none where they are few.

    The largest of them is no more than half of all: so a row is written again only when what it lies in has doubled.

    Parameters
    ----------
    parts
        That count.
    least
        So many, or none.
    """
    small = sorted((part for part in parts if part.size < SMALL), key=lambda part: -part.size)
    total = sum(part.size for part in small)
    first = 0
    while first < len(small) and 2 * small[first].size > total:
        total -= small[first].size
        first += 1
    chosen = {part.name for part in small[first:]}
    return [part for part in parts if part.name in chosen] if len(chosen) >= least else []


def grouped(parts: Iterable[CountedPart], target: int = TARGET) -> list[tuple[CountedPart, ...]]:
    """Neighbours together, up to about so many bytes as they are stored."""
    groups: list[list[CountedPart]] = []
    size = 0
    for part in parts:
        if not groups or size + part.size > target:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += part.size
    return [tuple(group) for group in groups]


def first_of(parts: Sequence[CountedPart], most: int, most_bytes: int) -> list[CountedPart]:
    """As many from the beginning as are within both limits."""
    chosen: list[CountedPart] = []
    size = 0
    for part in parts[:most]:
        size += part.size
        if size > most_bytes:
            break
        chosen.append(part)
    return chosen


def compact(store: Store, *, all: bool = False, sort_by: str | None = None, client: Any = None) -> Compaction:
    """Merge results parts into files of about 128 MB, beside whatever driver and readers there are.

    Parameters
    ----------
    store
        Where the dataset is.
    all
        Whether each part is to be such that its file alone says what counts; else small ones are merged where it pays.
    sort_by
        A column by which the rows of each file are sorted, as with ``all``; None: in the order in which they were added.
    client
        A ``distributed.Client`` whose workers do it; None: here, one file after another.

    Returns
    -------
    Compaction
        What was done.

    Raises
    ------
    UsageError
        There is no such column, or its values have no order.
    DatasetError
        A part that counts is gone or damaged.
    """
    if client is not None and not hasattr(client, "submit"):
        raise UsageError(f"client={client!r}: pass a connected distributed.Client, such as Client('tcp://host:8786')")
    with store.paced(UPKEEP):
        keeper = Keeper(store)
        _refuse_unsortable(results_schema(keeper.state), sort_by)
        parts = list(keeper.state.counted_parts())
        chosen = worth_merging(parts)
        if all or sort_by is not None:
            is_true = _Truth(store, keeper.state, sort_by)
            names = {part.name for part in (*chosen, *is_true.wanting(parts))}
            chosen = [part for part in parts if part.name in names]
            groups = [group for group in grouped(chosen) if len(group) > 1 or not is_true(group[0])]
        else:
            groups = [group for group in grouped(chosen) if len(group) > 1]
        return _carried_out(keeper, _merges(store, keeper.state, groups, sort_by), client)


def compact_after_run(store: Store, state: State) -> None:
    """Merge the small parts that runs left, where it pays and is quick; what goes wrong is logged and nobody's error.

    Parameters
    ----------
    store
        Where the dataset is.
    state
        What its log says; it is read on in place.
    """
    from dcompute.config import settings

    try:
        if settings().compact == "off":
            return
        is_near = store.is_local or store.is_memory
        most = MOST_AFTER_RUN if is_near else min(MOST_AFTER_RUN, int(UPKEEP * SECONDS_AFTER_RUN))
        small = first_of(worth_merging(list(state.counted_parts()), LEAST_AFTER_RUN), most, BYTES_AFTER_RUN)
        groups = [group for group in grouped(small) if len(group) > 1]
        until = time.monotonic() + SECONDS_AFTER_RUN
        with store.paced(UPKEEP):
            done = _carried_out(Keeper(store, state), _merges(store, state, groups), until=until)
    except Exception as error:  # noqa: BLE001  the run is over and its outcomes are committed: nothing here may change that
        log.warning("compaction after the run failed: %s", error, extra={"action": "compact_failed"})
        return
    if done.replaced:
        log.info("%s", done, extra={"action": "compacted"})


class _Truth:
    """Whether the file of a part, read by anything, has exactly the rows that count, in the columns and types of the log."""

    def __init__(self, store: Store, state: State, sort_by: str | None) -> None:
        self._store = store
        self._renames = state.renames
        self._schema = results_schema(state)
        self._hides = Hides.of(state.hides)
        self._sort_by = sort_by

    def __call__(self, part: CountedPart) -> bool:
        if part.left_out:
            return False
        with opened(self._store, part.name, size=part.size) as file:
            if not file.schema_arrow.equals(self._schema) or (self._sort_by is not None and not is_sorted(file, self._sort_by)):
                return False
            if self._renames.touch(file.schema_arrow.names, part.position):
                return False
            hides = self._hides.after(part.position)
            if not len(hides):
                return True
            batches = file.iter_batches(columns=list(RESERVED))
            return not any(hides.hit(table, part.position).any() for table in map(_as_table, batches))

    def wanting(self, parts: Sequence[CountedPart]) -> list[CountedPart]:
        """Those that are small, or not true; a small one is looked at only where it would be alone."""
        large = [part for part in parts if self._sort_by is not None or part.size >= SMALL]
        true = {part.name for part, good in zip(large, prefetched(self, large, self._store.is_local), strict=True) if good}
        return [part for part in parts if part.name not in true]


def _as_table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def _merges(store: Store, state: State, groups: Sequence[tuple[CountedPart, ...]], sort_by: str | None = None) -> list[Merge]:
    schema, hides = results_schema(state), Hides.of(state.hides)
    return [
        Merge(store, group, schema, hides.after(min(part.position for part in group)), sort_by, renames=state.renames) for group in groups
    ]


def _refuse_unsortable(schema: pa.Schema, sort_by: str | None) -> None:
    if sort_by is None:
        return
    if sort_by not in schema.names:
        raise UsageError(f"there is no column {sort_by!r} to sort by: there are {', '.join(schema.names)}")
    if not can_sort(schema.field(sort_by).type):
        raise UsageError(f"column {sort_by!r} is {schema.field(sort_by).type}, whose values have no order: sort by another column")


def _carried_out(keeper: Keeper, merges: Sequence[Merge], client: Any = None, *, until: float | None = None) -> Compaction:
    """Do merges and commit each as it is done; the state of the log at their making is the keeper's now."""
    read_at = keeper.state.number
    total = Compaction(url=keeper.store.url)
    for merge, written in _here(merges, until) if client is None else _on_cluster(merges, client):
        total += _committed(keeper, merge, written, read_at)
    return total


def _committed(keeper: Keeper, merge: Merge, written: Callable[[], tuple[PartRef, ...]], read_at: int) -> Compaction:
    names = tuple(part.name for part in merge.parts)
    overtaken = Compaction(url=keeper.store.url, overtaken=len(names))
    try:
        refs = written()
    except DatasetError:
        # somebody else replaced a part meanwhile, and vacuum removed it
        keeper.catch_up()
        if keeper.counting().issuperset(names):
            raise
        return overtaken
    own = {ref.name for ref in refs}

    def decide() -> list[Action] | None:
        if own & keeper.dropped or not keeper.counting().issuperset(names):
            return None
        return [Replace(parts=names, by=refs, read_at=read_at)]

    if keeper.commit(decide) is None:
        keeper.store.remove(own)
        return overtaken
    before = sum(part.rows for part in merge.parts)
    rows = sum(ref.rows for ref in refs)
    return Compaction(
        url=keeper.store.url,
        replaced=len(names),
        written=len(refs),
        rows=rows,
        dropped=before - rows,
        bytes_before=merge.size,
        bytes_after=sum(ref.size for ref in refs),
    )


Written = Callable[[], tuple[PartRef, ...]]


def _here(merges: Sequence[Merge], until: float | None) -> Iterator[tuple[Merge, Written]]:
    for merge in merges:
        if until is not None and time.monotonic() >= until:
            return
        yield merge, merge


def _on_cluster(merges: Sequence[Merge], client: Any) -> Iterator[tuple[Merge, Written]]:
    """Each merge when it is done, a few for each thread of the workers at the scheduler at once."""
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threads = max(1, sum(client.nthreads().values()))
    pace = UPKEEP / max(1, min(threads, len(merges)))  # of each, since so many are done at once
    name, waiting = f"dcompute-compact-{new_id()}", iter(enumerate(replace(merge, pace=pace) for merge in merges))
    at_work: dict[str, tuple[Any, Merge]] = {}

    def send(count: int) -> None:
        for number, merge in islice(waiting, count):
            future = client.submit(merge, key=f"{name}-{number}", pure=False)
            at_work[future.key] = (future, merge)
            future.add_done_callback(ended.put)

    try:
        send(_AHEAD * threads)
        while at_work:
            future, merge = at_work.pop(ended.get().key)
            yield merge, future.result
            send(1)
    finally:
        client.cancel([future for future, _ in at_work.values()])


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
