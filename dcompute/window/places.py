"""Where items went: the hosts of workers, the last host of what belongs together, and what is at work on a host."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from dcompute.affinity import grouping
from dcompute.records import Request
from dcompute.window.slots import Batch, Slots

#: Values of which the last host is remembered.
_REMEMBERED = 100_000

Groups = tuple[Any, ...]


def host_of(address: str) -> str:
    """The host in an address, of a worker whose host is not told."""
    return address.rpartition(":")[0]


class Places:
    """What one window knows of hosts.

    Parameters
    ----------
    request
        The class of the run's items, whose rules all its classes have.
    slots
        Where batches are; read, never changed.
    """

    def __init__(self, request: Request, slots: Slots) -> None:
        rules = grouping(request.affinity)
        kinds = [rule.kind for rule in rules]
        self._slots = slots
        self._together = kinds.index("together") if "together" in kinds else None
        self._apart = kinds.index("apart") if "apart" in kinds else None
        self._hosts: Mapping[str, str] = {}
        self._workers: dict[str, list[str]] = {}
        self._last: OrderedDict[Hashable, str] = OrderedDict()
        self.labels: Mapping[str, Mapping[str, str]] = {}
        self.grouped = bool(rules)
        self.hard = any(rule.hard for rule in rules)
        self.hard_together = any(rule.hard for rule in rules if rule.kind == "together")
        self.hard_apart = any(rule.hard for rule in rules if rule.kind == "apart")

    def update(self, hosts: Mapping[str, str], labels: Mapping[str, Mapping[str, str]], workers: Iterable[str]) -> None:
        """Take over what the cluster says of its workers."""
        self._hosts, self.labels = hosts, labels
        self._workers = {}
        for worker in workers:
            self._workers.setdefault(self.host(worker), []).append(worker)

    def host(self, worker: str) -> str:
        """The host of a worker."""
        return self._hosts.get(worker) or host_of(worker)

    def belongs(self, groups: Groups) -> Hashable:
        """The value with which items belong together; None where no rule says so."""
        return None if self._together is None or not groups else (groups[self._together],)

    def last(self, groups: Groups) -> str | None:
        """The host of the last item that belongs to these."""
        return self._last.get(self.belongs(groups))

    def put(self, batch: Batch, worker: str) -> list[Hashable]:
        """A batch goes to a worker; the values whose last host is another one now."""
        if self._together is None:
            return []
        host = self.host(worker)
        values = dict.fromkeys(self.belongs(tried.item.groups) for tried in batch.tries)
        moved = [value for value in values if self._last.get(value) != host]
        for value in values:
            self._last[value] = host
            self._last.move_to_end(value)
        while len(self._last) > _REMEMBERED:
            moved.append(self._last.popitem(last=False)[0])
        return moved

    def busy(self, host: str) -> set[Any]:
        """Values at work on a host of which no other may come there."""
        if self._apart is None:
            return set()
        there = (batch for worker in self._workers.get(host, ()) for batch in self._slots.on(worker))
        return {tried.item.groups[self._apart] for batch in there for tried in batch.tries if tried.item.groups}

    def keeps_apart(self, groups: Groups, busy: set[Any]) -> bool:
        """Whether none of its like is among these."""
        return self._apart is None or not groups or groups[self._apart] not in busy
