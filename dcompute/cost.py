"""What items will cost in time, by what the last ones did: a pure estimate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

#: Batches that are looked at, the newest ones: the cluster and the inputs of long ago say little.
NEWEST = 1000


class Ended(Protocol):
    """What is known of a batch that ended."""

    @property
    def succeeded(self) -> int: ...  # noqa: D102
    @property
    def final(self) -> tuple[object, ...]: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102
    @property
    def slot_seconds(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """How long items will take, if they are like the last ones."""

    items: int = 0  #: to be executed
    judged_by: int = 0  #: items that ended before; 0: there is no history, and nothing is known
    seconds: float = 0.0  #: of work, failed attempts with it
    slot_seconds: float = 0.0  #: that slots are held
    slots: int | None = None  #: batches at a time, where a cluster or its size is known

    @property
    def wall_seconds(self) -> float | None:
        """From beginning to end, with all slots busy; None where that cannot be told."""
        return self.slot_seconds / max(1, min(self.slots, self.items)) if self.judged_by and self.slots else None


def cost_of(todo: int, batches: Iterable[Ended], slots: int | None) -> Cost:
    """What so many items will cost.

    Parameters
    ----------
    todo
        Items to be executed.
    batches
        Those that ended before; failed attempts in them count for the items that they were made for.
    slots
        How many batches execute at a time; None: nobody knows.
    """
    ended, seconds, held = 0, 0.0, 0.0
    for batch in batches:
        ended += batch.succeeded + len(batch.final)
        seconds += batch.seconds
        held += max(batch.seconds, batch.slot_seconds)
    if not ended:
        return Cost(items=todo, slots=slots)
    return Cost(items=todo, judged_by=ended, seconds=todo * seconds / ended, slot_seconds=todo * held / ended, slots=slots)
