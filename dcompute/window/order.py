"""Which class goes first: by priority, which may have been changed and may age; of one priority the one with the fewest slots."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from dcompute.priority import aged
from dcompute.window.core import Core
from dcompute.window.queues import ItemClass


class Order:
    """The order of the classes of one window."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def note(self, classes: Iterable[ItemClass]) -> None:
        """Note since when classes wait: from when they first did, or their last batch went out."""
        for found in classes:
            if not found.ready and not found.alone:
                found.since = None
            elif found.since is None:
                found.since = self._core.now

    def priority(self, found: ItemClass) -> int:
        """The priority of what a class sends next."""
        core = self._core
        waited = 0.0 if found.since is None else core.now - found.since
        return aged(found.request.priority + core.raised, waited, core.config.ageing)

    def levels(self, classes: Iterable[ItemClass]) -> Iterator[list[ItemClass]]:
        """Classes of one priority each, the highest first."""
        classes = list(classes)
        if len(classes) < 2:
            yield classes
            return
        by_priority = sorted(((-self.priority(found), found) for found in classes), key=lambda pair: pair[0])
        for _, level in itertools.groupby(by_priority, key=lambda pair: pair[0]):
            yield [found for _, found in level]

    def turn(self, found: ItemClass) -> float:
        """Of one priority the class goes first that has the smallest share of its slots."""
        slots = self._core.slots
        return slots.flying.get(found.request, 0) / max(slots.served(found.request), 1)

    def lower(self, found: ItemClass) -> bool:
        """Whether anything in flight has a lower priority than this class."""
        flying = self._core.slots.flying
        mine = self.priority(found)
        return any(flying.get(other.request) and self.priority(other) < mine for other in self._core.queues.classes.values())
