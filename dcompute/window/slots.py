"""Where there is room: slots of all classes on all workers, what is in flight on them, and workers kept free.

The scheduler places batches; this is a model of it. A batch is put down where there is room when it is sent, and moves when its worker says
that it started. A batch of a class that could run ``n`` times on a worker takes ``1/n`` of it, so classes share a worker by fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from dcompute.records import Receipt, Request
from dcompute.window.instructions import Try

_EPS = 1e-9


class Batch:
    """A batch and where it is; the window's own record of a ``Send``."""

    __slots__ = (
        "again",
        "allowed",
        "alone_on",
        "at_work",
        "deaths",
        "lost_on",
        "number",
        "request",
        "sends",
        "since",
        "started",
        "tries",
        "twin",
        "twinned",
        "untouched",
        "where",
        "worker",
    )

    def __init__(self, number: int, request: Request, tries: tuple[Try, ...]) -> None:
        self.number = number
        self.request = request
        self.tries = tries
        self.sends = 0  #: how often it went out, its twin included
        self.again = -1  #: which of these is in flight, from 0; -1: never sent
        self.since = 0.0  #: when that was, or when its worker said that it started
        self.twin: Batch | None = None  #: the place of a second execution beside it, with a ``again`` of its own
        self.twinned = False  #: it had one
        self.where = "new"  #: new, out, looking (for its mark), waiting (to go out again), left (for a late mark only), landed
        self.worker: str | None = None  #: where the model has it
        self.started = False  #: there, by what the worker said
        self.alone_on: str | None = None
        self.allowed: tuple[str, ...] = ()  #: the only workers that may execute it; empty: any
        self.deaths = 0  #: of workers, with one of two tasks while the other went on
        self.lost_on: str | None = None  #: the worker with which it was lost
        self.at_work: int | None = None  #: index of the item that was executing then
        self.untouched = False  #: set-up failed when it was sent last: none of its items was executed

    @property
    def alone(self) -> bool:
        """Whether its one item runs with nothing else of ours on the worker."""
        return self.tries[0].alone

    @property
    def begun(self) -> bool:
        """Whether a worker said that it executes it, or its twin."""
        return self.started or (self.twin is not None and self.twin.started)

    def task(self, again: int | None) -> Batch | None:
        """The place of one of its tasks in flight: its own or its twin's; None: that task counts no more."""
        if self.twin is not None and again == self.twin.again:
            return self.twin
        return self if again is None or again == self.again else None

    def unheld(self, receipt: Receipt) -> list[int]:
        """Indexes that a receipt says nothing of."""
        held: set[int] = set()
        for start, stop in receipt.holds:
            held.update(range(start, stop))
        return [index for index in range(len(self.tries)) if index not in held]


class Slots:
    """The room on a cluster."""

    def __init__(self) -> None:
        self.slots: Mapping[Request, Mapping[str, int]] = {}
        self.total: dict[Request, int] = {}
        self._serving: dict[Request, list[str]] = {}
        self._names: dict[Request, frozenset[str]] = {}  #: the same, to be compared
        self.target = 0
        self.most: int | None = None  #: batches in flight at once; None: as many as there is room for
        self.count = 0  #: batches in flight, twins included
        self.kept: dict[str, Request | None] = {}  #: workers kept free: for a class, or None: for an item that runs alone
        # A batch and its twin have one number: they are told apart as what they are. Dicts serve as sets that keep their order: the order
        # of a set differs from process to process.
        self.homeless: dict[Batch, None] = {}  #: batches in flight that are on no worker of the model
        self.flying: dict[Request, int] = {}
        self._load: dict[str, float] = {}
        self._on: dict[str, dict[Batch, None]] = {}
        self._free: dict[str, None] = {}
        self._half: dict[str, None] = {}
        self._over: dict[str, None] = {}
        self._twice: dict[str, None] = {}

    # -- what the cluster says -------------------------------------------------------------------------------------------------------

    def update(self, slots: Mapping[Request, Mapping[str, int]], target: int | None, out: Iterable[Batch]) -> None:
        """Take over new numbers and put all batches in flight down again."""
        self.slots, self.target = slots, target or 0
        self.total = {request: sum(there.values()) for request, there in slots.items()}
        self._serving = {request: [worker for worker, count in there.items() if count > 0] for request, there in slots.items()}
        self._names = {request: frozenset(workers) for request, workers in self._serving.items()}
        names = {worker: None for there in slots.values() for worker, count in there.items() if count > 0}
        self.kept = {worker: why for worker, why in self.kept.items() if worker in names}
        self._load = dict.fromkeys(names, 0.0)
        self._on = {worker: {} for worker in names}
        self._free, self._half, self._over, self._twice = dict.fromkeys(names), dict.fromkeys(names), {}, {}
        self.homeless = {}
        batches = sorted(out, key=lambda batch: (not batch.started, batch.alone_on is None, batch.number))
        for batch in batches:
            if batch.worker not in names:
                batch.worker, batch.started = None, False
            keep = batch.worker is not None and (batch.started or batch.allowed == (batch.worker,) or self._fits(batch, batch.worker))
            self._lay(batch, batch.worker if keep else None)
        for batch in batches:
            if batch.worker is None:
                self._unlay(batch)
                self._lay(batch, self.least(batch.request))

    # -- batches come and go ---------------------------------------------------------------------------------------------------------

    def put(self, batch: Batch, worker: str | None) -> None:
        """A batch goes out; None: there is no slot for it, it waits at the scheduler."""
        self.flying[batch.request] = self.flying.get(batch.request, 0) + 1
        self.count += 1
        self._lay(batch, worker)

    def remove(self, batch: Batch) -> None:
        """A batch is no longer in flight."""
        self.flying[batch.request] -= 1
        self.count -= 1
        if batch.alone_on is not None:
            self.kept.pop(batch.alone_on, None)
        self._unlay(batch)
        batch.worker, batch.started = None, False

    def started(self, batch: Batch, worker: str) -> None:
        """A worker says that it executes a batch."""
        if batch.worker != worker and worker in self._load:
            before = batch.worker
            other = next((b for b in self._on[worker] if self._may_swap(b, batch)), None)
            self._unlay(batch)
            if other is not None:
                self._unlay(other)
                self._lay(other, before)
            self._lay(batch, worker)
        batch.started = True

    def house(self, batch: Batch, deep: bool) -> bool:
        """Put a batch that went out without a slot where there is room now."""
        worker = self.find(batch.request, deep) if self.served(batch.request) else None
        if worker is not None:
            self._unlay(batch)
            self._lay(batch, worker)
        return worker is not None

    # -- questions -------------------------------------------------------------------------------------------------------------------

    def served(self, request: Request) -> int:
        """Slots of a class."""
        return self.total.get(request, 0)

    def serving(self, request: Request) -> list[str]:
        """Workers that serve a class."""
        return self._serving.get(request, [])

    def shared(self, request: Request, others: Iterable[Request]) -> bool:
        """Whether a worker that serves a class serves another of these too."""
        mine = self._names.get(request, frozenset())
        return any(not mine.isdisjoint(self._names.get(other, ())) for other in others if other != request)

    @property
    def full(self) -> bool:
        """Whether as many batches are in flight as may be at all."""
        return self.most is not None and self.count >= self.most

    def beyond(self, deep: bool) -> bool:
        """Whether more is in flight than there is room for: slots vanished, or a worker took more than the model thought."""
        if self.count < self.target:
            return False
        return bool(self._twice if deep else self._over) or any(self.served(batch.request) for batch in self.homeless)

    def find(self, request: Request, deep: bool, shun: str | None = None) -> str | None:
        """A worker with room for one more batch of a class; with ``deep`` for a second one a slot."""
        worker = next((worker for worker in self.idle(request) if worker != shun), None)
        if worker is None and deep:
            worker = next((worker for worker in self._with_room(request, 2.0, self._half) if worker != shun), None)
        return worker

    def idle(self, request: Request, deep: bool = False) -> Iterator[str]:
        """Workers on which a slot of a class stands idle, then those that have room for a second one."""
        yield from self._with_room(request, 1.0, self._free)
        if deep:
            yield from self._with_room(request, 2.0, self._half)

    def _with_room(self, request: Request, limit: float, candidates: Iterable[str]) -> Iterator[str]:
        there = self.slots.get(request, {})
        for worker in candidates:
            count = there.get(worker, 0)
            if count and self._load[worker] + 1 / count <= limit + _EPS and self._open_to(worker, request):
                yield worker

    def empty(self, request: Request, permitted: Callable[[str], bool]) -> str | None:
        """A worker that serves a class and has nothing of ours, for an item that runs alone; those kept for it come first."""
        there = self.slots.get(request, {})
        free = [worker for worker in self._free if not self._on[worker] and there.get(worker, 0)]
        free = [worker for worker in free if self.kept.get(worker, None) is None and permitted(worker)]
        return min(free, key=lambda worker: worker not in self.kept, default=None)

    def keep(self, request: Request, alone: bool, first: Iterable[Request], permitted: Callable[[str], bool]) -> bool:
        """Keep the least busy worker that serves a class free for it, and none of these classes that go first; False: none is left."""
        left = self._names.get(request, frozenset()).difference(self.kept, *(self._names.get(other, ()) for other in first))
        candidates = [worker for worker in self.serving(request) if worker in left and permitted(worker)] if left else []
        if not candidates:
            return False
        self.kept[min(candidates, key=lambda worker: (len(self._on[worker]), self._load[worker]))] = None if alone else request
        return True

    def on(self, worker: str) -> Iterable[Batch]:
        """What is in flight on a worker."""
        return self._on.get(worker, ())

    def runs_alone(self, worker: str) -> bool:
        """Whether an item runs alone on a worker now."""
        return any(batch.alone for batch in self._on[worker])

    # -- the model -------------------------------------------------------------------------------------------------------------------

    def _may_swap(self, other: Batch, batch: Batch) -> bool:
        pinned = other.allowed == (other.worker,)
        return not other.started and not pinned and other.request == batch.request and not other.alone

    def _open_to(self, worker: str, request: Request) -> bool:
        return worker not in self.kept or self.kept[worker] == request

    def _cost(self, batch: Batch, worker: str) -> float:
        count = self.slots.get(batch.request, {}).get(worker, 0)
        return 1.0 if batch.alone or not count else 1 / count

    def _fits(self, batch: Batch, worker: str) -> bool:
        return self._load[worker] + self._cost(batch, worker) <= 2 + _EPS

    def least(self, request: Request) -> str | None:
        """The worker with the least load of those that serve a class."""
        return min(self.serving(request), key=lambda worker: self._load[worker], default=None)

    def _lay(self, batch: Batch, worker: str | None) -> None:
        batch.worker = worker
        if worker is None:
            self.homeless[batch] = None
            return
        self._on[worker][batch] = None
        self._weigh(worker, self._load[worker] + self._cost(batch, worker))

    def _unlay(self, batch: Batch) -> None:
        if batch.worker is None:
            del self.homeless[batch]
            return
        del self._on[batch.worker][batch]
        # Nothing on it weighs nothing: fractions would leave a rest.
        self._weigh(batch.worker, self._load[batch.worker] - self._cost(batch, batch.worker) if self._on[batch.worker] else 0.0)

    def _weigh(self, worker: str, load: float) -> None:
        self._load[worker] = load
        for group, inside in (
            (self._free, load < 1 - _EPS),
            (self._half, load < 2 - _EPS),
            (self._over, load > 1 + _EPS),
            (self._twice, load > 2 + _EPS),
        ):
            if inside:
                group[worker] = None
            else:
                group.pop(worker, None)
