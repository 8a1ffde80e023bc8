"""Items that wait: for a slot, by class, or for their next attempt, by time."""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections import deque
from collections.abc import Sequence

from dcompute.garbage import uncollected
from dcompute.records import Item, Request
from dcompute.window.instructions import Try
from dcompute.window.quotas import Lack
from dcompute.window.settings import WindowConfig
from dcompute.window.sizing import Sizes
from dcompute.window.slots import Batch
from dcompute.window.waiting import Why


class ItemClass:
    """The items of one class that wait for a slot.

    In the order in which they go: lost batches under their own id, pieces of lost batches, further attempts, fresh items. Items that run
    alone wait apart.
    """

    __slots__ = (
        "again",
        "alone",
        "first_sent",
        "fresh",
        "fresh_bytes",
        "lack",
        "pieces",
        "request",
        "since",
        "sizes",
        "waiting",
        "why",
        "why_alone",
    )

    def __init__(self, request: Request, sizes: Sizes) -> None:
        self.request = request
        self.sizes = sizes
        self.first_sent: float | None = None  #: when its first batch went out
        self.since: float | None = None  #: since when it waits, or its last batch went out; None: nothing of it waits
        self.why: Why | None = None  #: why it sent nothing when it could last; None: it did
        self.why_alone: Why | None = None  #: the same of items that run alone
        self.lack: Lack | None = None  #: of a named limit, where that is why
        self.waiting: deque[Batch] = deque()
        self.pieces: deque[tuple[Try, ...]] = deque()
        self.again: deque[Try] = deque()
        self.fresh: deque[Item] = deque()
        self.fresh_bytes = 0
        self.alone: deque[Batch | Try] = deque()

    @property
    def ready(self) -> bool:
        """Whether anything but items that run alone waits for a slot."""
        return bool(self.waiting or self.pieces or self.again or self.fresh)

    @property
    def loose(self) -> int:
        """Items that may be put together to batches."""
        return len(self.again) + len(self.fresh)

    @property
    def count(self) -> int:
        """All items that wait for a slot. Counts may be asked for from another thread, so lines are copied before they are walked."""
        batches = sum(len(batch.tries) for batch in list(self.waiting)) + sum(map(len, list(self.pieces)))
        return batches + self.loose + len(self.alone)

    def offer(self, items: Sequence[Item]) -> None:
        """Take items from the plan."""
        self.fresh.extend(items)
        self.fresh_bytes += sum(item.size for item in items)

    def pack(self, count: int, max_bytes: int) -> list[Try]:
        """Take at most so many items, together at most so many bytes; at least one."""
        tries: list[Try] = []
        room = max_bytes
        again = self.again
        while again and len(tries) < count:
            room -= again[0].item.size
            if room < 0 and tries:
                return tries
            tries.append(again.popleft())
        tries += self._pack_fresh(count - len(tries), room, must=not tries)
        return tries

    def _pack_fresh(self, count: int, room: int, must: bool) -> list[Try]:
        # Millions of items come this way: no work in a loop of its own that a built-in can do.
        items = list(itertools.islice(self.fresh, count))
        total = sum([item.size for item in items])
        if total > room:
            ends = list(itertools.accumulate(item.size for item in items))
            fit = max(bisect.bisect_right(ends, room), 1 if must else 0)
            items, total = items[:fit], ends[fit - 1] if fit else 0
        self.fresh_bytes -= total
        pop, request = self.fresh.popleft, self.request
        for _ in items:
            pop()
        with uncollected():
            return [Try(item, 1, request) for item in items]

    def clear(self) -> None:
        """Forget all that waits."""
        for queue in (self.waiting, self.pieces, self.again, self.fresh, self.alone):
            queue.clear()
        self.fresh_bytes = 0


class Later:
    """What waits for a time: items for their next attempt, batches to go out again. Waiting costs no slot."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Try | Batch]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: float, what: Try | Batch) -> None:
        """Keep something until then."""
        heapq.heappush(self._heap, (due, next(self._order), what))

    def waiting(self) -> list[tuple[float, Try | Batch]]:
        """What waits, and until when, in no order."""
        return [(due, what) for due, _, what in list(self._heap)]

    def next_due(self) -> float | None:
        """When the first is due."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> Try | Batch | None:
        """The first that is due, if any."""
        return heapq.heappop(self._heap)[2] if self._heap and self._heap[0][0] <= now else None

    def clear(self) -> None:
        """Forget all."""
        self._heap.clear()


class Queues:
    """All classes of a run and what waits for a time."""

    def __init__(self, config: WindowConfig) -> None:
        self._config = config
        self.classes: dict[Request, ItemClass] = {}
        self.later = Later()

    def of(self, request: Request, parent: Request | None = None) -> ItemClass:
        """The class of a request; made when it is first asked for, with the measured costs of its parent."""
        found = self.classes.get(request)
        if found is None:
            like = self.classes[parent].sizes if parent is not None and parent in self.classes else None
            found = self.classes[request] = ItemClass(request, Sizes(self._config, like))
        return found

    def back(self, what: Try | Batch) -> None:
        """Put something that waited for its time, or for no slot, in line."""
        found = self.of(what.request)
        if what.alone:
            found.alone.append(what)
        elif isinstance(what, Batch):
            found.waiting.append(what)
        else:
            found.again.append(what)

    def withdraw(self, batch: Batch) -> None:
        """Take a batch that was to go out again out of its line."""
        found = self.classes[batch.request]
        for line in (found.waiting, found.alone):
            if batch in line:
                line.remove(batch)

    def clear(self) -> None:
        """Forget all that waits."""
        self.later.clear()
        for found in self.classes.values():
            found.clear()

    @property
    def fresh(self) -> int:
        """Items from the plan that were never sent."""
        return sum(len(found.fresh) for found in self.classes.values())

    @property
    def fresh_bytes(self) -> int:
        """Bytes of these."""
        return sum(found.fresh_bytes for found in self.classes.values())

    @property
    def empty(self) -> bool:
        """Whether nothing waits for a slot or a time."""
        return not self.later and not any(found.ready or found.alone for found in self.classes.values())
