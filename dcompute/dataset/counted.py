"""What counts: a batch that the log added, and a results part."""

from __future__ import annotations

from dataclasses import dataclass

from dcompute.dataset.entries import AddBatch
from dcompute.records import ItemKey, split_batch_id


@dataclass(frozen=True, slots=True)
class CountedBatch:
    """A batch that was added."""

    position: int  #: of the action that added it
    batch: AddBatch

    @property
    def mark(self) -> str:
        """The name of its attempts part."""
        return f"attempts/{self.batch.id}.parquet"

    @property
    def epoch(self) -> int:
        """The epoch that wrote it."""
        return split_batch_id(self.batch.id)[1]


@dataclass(frozen=True, slots=True)
class CountedPart:
    """A results part that counts."""

    position: int  #: hides of a later position hit its rows
    name: str
    size: int  #: bytes
    rows: int
    left_out: tuple[ItemKey, ...] = ()  #: keys in it that do not count
