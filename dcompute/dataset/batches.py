"""The batches that a log added, in order; those of a checkpoint stay columns until somebody asks for one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from dcompute.dataset.counted import CountedBatch
from dcompute.records import ItemKey, PartRef

if TYPE_CHECKING:
    import pyarrow as pa

# so many become objects at once where all are asked for, one by one
_BLOCK = 4096


class Batches(Sequence[CountedBatch]):
    """Batches in the order in which they were added.

    Parameters
    ----------
    sealed
        The first of them as columns of ``columns.BATCHES_SCHEMA``.
    later
        Those after them.
    """

    def __init__(self, sealed: pa.Table | None = None, later: Iterable[CountedBatch] = ()) -> None:
        # one attribute: other threads read while the driver's seals
        self._held = _Held(sealed, 0 if sealed is None else int(sealed.num_rows), list(later))
        self._columns: tuple[int, pa.Table] | None = None

    def __len__(self) -> int:
        held = self._held
        return held.count + len(held.later)

    def __iter__(self) -> Iterator[CountedBatch]:
        # by places, as of a list: what is added meanwhile comes too
        place = 0
        while place < len(self):
            block = self[place : place + _BLOCK]
            yield from block
            place += len(block)

    @overload
    def __getitem__(self, place: int) -> CountedBatch: ...
    @overload
    def __getitem__(self, place: slice) -> list[CountedBatch]: ...
    def __getitem__(self, place: int | slice) -> CountedBatch | list[CountedBatch]:
        if isinstance(place, int):
            return self._one(place)
        held = self._held
        start, stop, step = place.indices(held.count + len(held.later))
        if step != 1:
            return [self._one(each) for each in range(start, stop, step)]
        return held.opened(start, stop) + held.later[max(start - held.count, 0) : max(stop - held.count, 0)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_same, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} batches>"

    def append(self, counted: CountedBatch) -> None:
        """Add one at the end."""
        self._held.later.append(counted)

    def __copy__(self) -> Batches:
        return Batches(self._held.sealed, self._held.later)

    def results(self) -> Iterator[tuple[int, tuple[ItemKey, ...], tuple[PartRef, ...]]]:
        """Of each its position, the keys left out, and its results parts."""
        held = self._held
        if held.sealed is not None:
            from dcompute.dataset.columns import results_of

            yield from results_of(held.sealed)
        yield from ((counted.position, counted.batch.left_out, counted.batch.results) for counted in held.later)

    def quarantined(self) -> Iterator[CountedBatch]:
        """Those with records in the quarantine."""
        held = self._held
        if held.sealed is not None:
            from dcompute.dataset.columns import opened_batches, with_quarantine

            yield from opened_batches(with_quarantine(held.sealed))
        yield from (counted for counted in held.later if counted.batch.quarantined)

    def columns(self) -> pa.Table:
        """All of them as columns of ``columns.BATCHES_SCHEMA``."""
        if self._columns is None or self._columns[0] != len(self):
            import pyarrow as pa

            from dcompute.dataset.columns import batch_columns

            held = self._held
            sealed = [] if held.sealed is None else [held.sealed]
            table = pa.concat_tables([*sealed, batch_columns(held.later)])
            self._columns = table.num_rows, table
            return table
        return self._columns[1]

    def seal(self, columns: pa.Table) -> None:
        """Keep as many of them as these columns have as columns only."""
        held = self._held
        self._held = _Held(columns, int(columns.num_rows), held.later[columns.num_rows - held.count :])
        self._columns = None

    def _one(self, place: int) -> CountedBatch:
        held = self._held
        place = range(held.count + len(held.later))[place]
        return held.later[place - held.count] if place >= held.count else held.opened(place, place + 1)[0]


@dataclass(frozen=True, slots=True)
class _Held:
    sealed: pa.Table | None
    count: int  # of those that are sealed
    later: list[CountedBatch]

    def opened(self, start: int, stop: int) -> list[CountedBatch]:
        """Those of a range that are sealed."""
        if self.sealed is None or start >= min(stop, self.count):
            return []
        from dcompute.dataset.columns import opened_batches

        return opened_batches(self.sealed.slice(start, stop - start))


def _same(one: object, other: object) -> bool:
    return one == other
