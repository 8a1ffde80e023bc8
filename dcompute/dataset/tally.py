"""How many items succeeded and which failed at last, up to an entry of the log: so that a status reads only what came after."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dcompute.records import ItemKey


class LastFailure(NamedTuple):
    """The newest attempt of an item that failed."""

    kind: str
    location: int  #: as ``dataset.outcomes`` has it
    final: bool  #: whether the log calls it final: then only a hide ends it


@dataclass(slots=True)
class Tally:
    """What the outcomes were at an entry."""

    number: int = 0  #: of the entry
    batches: int = 0  #: how many the log had added
    succeeded: int = 0  #: items
    failed: dict[ItemKey, LastFailure] = field(default_factory=dict)
    gone: set[ItemKey] = field(default_factory=set)  #: hidden, and not executed again since

    def __copy__(self) -> Tally:
        return replace(self, failed=dict(self.failed), gone=set(self.gone))

    @property
    def is_watching(self) -> bool:
        """Whether what is added next may end a failure without a hide, or bring back what was hidden."""
        return bool(self.gone) or not all(failure.final for failure in self.failed.values())

    def by_kind(self) -> dict[str, int]:
        """Failed items by kind, most first."""
        return dict(Counter(failure.kind for failure in self.failed.values()).most_common())

    def hide(self, key: ItemKey) -> None:
        """What an item did counts no more; one that is hidden and neither failed nor was hidden before had succeeded."""
        if self.failed.pop(key, None) is None and key not in self.gone:
            self.succeeded -= 1
        self.gone.add(key)

    def succeed(self, key: ItemKey) -> None:
        """An item succeeded; one of which nothing is known needs no more than to be counted."""
        self.succeeded += 1
        self.failed.pop(key, None)
        self.gone.discard(key)

    def fail(self, key: ItemKey, failure: LastFailure) -> None:
        """An item failed."""
        self.failed[key] = failure
        self.gone.discard(key)
