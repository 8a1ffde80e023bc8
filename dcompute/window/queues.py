"""Items that wait: for a slot, by class, or for their next attempt, by time."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Sequence

from dcompute.records import Item, Request
from dcompute.window.instructions import Try
from dcompute.window.lines import Line, Lines
from dcompute.window.places import Places
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
        "alone",
        "first_sent",
        "lack",
        "line",
        "lines",
        "pieces",
        "request",
        "since",
        "sizes",
        "waiting",
        "why",
        "why_alone",
    )

    def __init__(self, request: Request, sizes: Sizes, places: Places) -> None:
        self.request = request
        self.sizes = sizes
        self.first_sent: float | None = None  #: when its first batch went out
        self.since: float | None = None  #: since when it waits, or its last batch went out; None: nothing of it waits
        self.why: Why | None = None  #: why it sent nothing when it could last; None: it did
        self.why_alone: Why | None = None  #: the same of items that run alone
        self.lack: Lack | None = None  #: of a named limit, where that is why
        self.waiting: deque[Batch] = deque()
        self.pieces: deque[tuple[Try, ...]] = deque()
        self.line = Line(request)
        self.lines = Lines(request, places) if places.grouped else None
        self.alone: deque[Batch | Try] = deque()

    @property
    def ready(self) -> bool:
        """Whether anything but items that run alone waits for a slot."""
        return bool(self.waiting or self.pieces or self.loose)

    @property
    def loose(self) -> int:
        """Items that may be put together to batches."""
        return self.again + self.fresh

    @property
    def again(self) -> int:
        """Those that were tried before."""
        return len(self.line.again) if self.lines is None else self.lines.again

    @property
    def fresh(self) -> int:
        """Those from the plan that were never sent."""
        return len(self.line.fresh) if self.lines is None else self.lines.fresh

    @property
    def fresh_bytes(self) -> int:
        """Bytes of these."""
        return self.line.fresh_bytes if self.lines is None else self.lines.fresh_bytes

    @property
    def count(self) -> int:
        """All items that wait for a slot. Counts may be asked for from another thread, so lines are copied before they are walked."""
        batches = sum(len(batch.tries) for batch in list(self.waiting)) + sum(map(len, list(self.pieces)))
        return batches + self.loose + len(self.alone)

    def offer(self, items: Sequence[Item]) -> None:
        """Take items from the plan."""
        (self.line if self.lines is None else self.lines).offer(items)

    def back(self, tried: Try) -> None:
        """Put an item in line again."""
        if self.lines is not None:
            self.lines.back(tried)
        else:
            self.line.again.append(tried)

    def clear(self) -> None:
        """Forget all that waits."""
        for queue in (self.waiting, self.pieces, self.alone):
            queue.clear()
        (self.line if self.lines is None else self.lines).clear()


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

    def __init__(self, config: WindowConfig, places: Places) -> None:
        self._config = config
        self._places = places
        self.classes: dict[Request, ItemClass] = {}
        self.later = Later()

    def of(self, request: Request, parent: Request | None = None) -> ItemClass:
        """The class of a request; made when it is first asked for, with the measured costs of its parent."""
        found = self.classes.get(request)
        if found is None:
            like = self.classes[parent].sizes if parent is not None and parent in self.classes else None
            found = self.classes[request] = ItemClass(request, Sizes(self._config, like), self._places)
        return found

    def back(self, what: Try | Batch) -> None:
        """Put something that waited for its time, or for no slot, in line."""
        found = self.of(what.request)
        if what.alone:
            found.alone.append(what)
        elif isinstance(what, Batch):
            found.waiting.append(what)
        else:
            found.back(what)

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
        return sum(found.fresh for found in self.classes.values())

    @property
    def fresh_bytes(self) -> int:
        """Bytes of these."""
        return sum(found.fresh_bytes for found in self.classes.values())

    @property
    def empty(self) -> bool:
        """Whether nothing waits for a slot or a time."""
        return not self.later and not any(found.ready or found.alone for found in self.classes.values())
