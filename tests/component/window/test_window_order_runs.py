"""The order of classes, whatever they need: strict by priority, with ageing nobody starves, and between runs by weight."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcompute.records import Item, ItemKey, Receipt, Request
from dcompute.sharing import Claim, Party, split
from dcompute.window import Capacity, Ended, Event, Offered, Send, Window, WindowConfig

calm = settings(suppress_health_check=[HealthCheck.too_slow], derandomize=True, deadline=None, max_examples=60)
#: Seconds that a batch takes at most.
LONGEST = 5.0


def some(name: str, count: int) -> list[Item]:
    return [Item(ItemKey(f"{name}{index}", "str"), None, "", index, 10) for index in range(count)]


@dataclass
class Mixed:
    """Classes of several priorities and sizes on workers that take exactly their time, of which the window alone counts the slots."""

    seed: int
    priorities: list[int]
    workers: int
    ageing: float | None = None
    items: int = 25
    now: float = 0.0
    load: dict[str, float] = field(default_factory=dict)
    sent: list[tuple[float, Request]] = field(default_factory=list)
    left: Counter[Request] = field(default_factory=Counter)
    came: dict[Request, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.classes = [Request(priority=priority, memory=1 + number) for number, priority in enumerate(self.priorities)]
        names = [f"w{number}" for number in range(self.workers)]
        self.slots = {request: {name: self.random.choice([0, 1, 2, 4]) for name in names} for request in self.classes}
        for there in self.slots.values():
            there[names[0]] = there[names[0]] or 1
        self.load = dict.fromkeys(names, 0.0)
        self.where: dict[int, Send] = {}
        config = WindowConfig(request=self.classes[0], batch_size=1, second_below=0, twins=False, ageing=self.ageing)
        self.window = Window(config, rng=random.Random(0))
        self.ends: list[tuple[float, int]] = []

    def run(self) -> None:
        self.tell(Capacity(self.slots, counted=frozenset(self.classes)))
        coming = [(self.random.uniform(0, 20), number) for number in range(len(self.classes))]
        for at, number in sorted(coming):
            self.until(at)
            request = self.classes[number]
            self.left[request], self.came[request] = self.items, self.now
            self.tell(Offered(some(str(number), self.items), exhausted=number == max(coming)[1], request=request))
        self.until(10_000.0)
        assert self.window.over, self.window.counts()

    def until(self, at: float) -> None:
        while self.ends and self.ends[0][0] <= at:
            self.now, number = heapq.heappop(self.ends)
            send = self.where.pop(number)
            self.load[send.only_on or ""] -= self.weight(send.request, send.only_on or "")
            self.tell(Ended(number, Receipt(batch="", execution="", holds=((0, 1),), seconds=3, slot_seconds=3)))
        self.now = max(self.now, at) if self.ends or at < 10_000 else self.now

    def weight(self, request: Request, worker: str) -> float:
        return 1 / self.slots[request][worker]

    def tell(self, event: Event) -> None:
        sends = [said for said in self.window.handle(event, self.now) if isinstance(said, Send)]
        still = self.left - Counter(send.request for send in sends)
        for send in sends:
            assert send.only_on is not None
            if self.ageing is None:
                self.check_strict(send, still)
            self.load[send.only_on] += self.weight(send.request, send.only_on)
            assert self.load[send.only_on] < 1.001
            self.sent.append((self.now, send.request))
            self.where[send.number] = send
            heapq.heappush(self.ends, (self.now + self.random.uniform(1, LONGEST), send.number))
        self.left = still

    def check_strict(self, send: Send, still: Counter[Request]) -> None:
        """Nothing goes out while something of a higher priority waits that has room on any worker."""
        for request in (request for request in still if request.priority > send.request.priority):
            room = [worker for worker, count in self.slots[request].items() if count and self.load[worker] + 1 / count < 1.001]
            assert not room, f"{send.request} went out at {self.now} while {request} had room on {room}"


mixes = {"seed": st.integers(0, 2**32), "priorities": st.lists(st.sampled_from([-10, 0, 0, 10, 20]), min_size=2, max_size=4)}


@calm
@given(workers=st.integers(1, 4), **mixes)
def test_priorities_are_strict(seed: int, priorities: list[int], workers: int) -> None:
    """Whatever part of a worker the classes need, and whenever they come."""
    mixed = Mixed(seed, priorities, workers)
    mixed.run()
    assert len(mixed.sent) == mixed.items * len(priorities)


@calm
@given(workers=st.integers(1, 3), ageing=st.sampled_from([1.0, 4.0, 20.0]), **mixes)
def test_with_ageing_nothing_starves(seed: int, priorities: list[int], workers: int, ageing: float) -> None:
    """No class waits longer for its next batch than it takes to rise above all others, and for the batches before it to end."""
    mixed = Mixed(seed, priorities, workers, ageing, items=60)
    mixed.run()
    levels = (max(priorities) - min(priorities)) / 10 + 1
    for request in mixed.classes:
        times = [mixed.came[request], *(at for at, its in mixed.sent if its == request)]
        longest = max(after - before for before, after in itertools.pairwise(times))
        assert longest <= (levels + 1) * ageing + 2 * LONGEST * len(priorities), f"{request} waited {longest} s"


@calm
@given(seed=st.integers(0, 2**32), weights=st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=2, max_size=4), threads=st.integers(2, 6))
def test_runs_have_slots_by_their_weight(seed: int, weights: list[float], threads: int) -> None:
    """Windows that take the shares which the split of slots finds have, while all of them wait, what their weights say, to a slot."""
    rooms = {f"w{number}": {"thread": float(threads)} for number in range(4)}
    chance = random.Random(seed)
    request = Request()
    windows = [Window(WindowConfig(request=request, batch_size=1, second_below=0, twins=False), rng=random.Random(0)) for _ in weights]
    held: list[dict[int, str]] = [{} for _ in weights]
    ends: list[tuple[float, int, int]] = []

    def tell(number: int, event: Event, now: float) -> None:
        for send in windows[number].handle(event, now):
            if isinstance(send, Send):
                held[number][send.number] = send.only_on or ""
                heapq.heappush(ends, (now + chance.uniform(1, LONGEST), number, send.number))

    for number in range(len(weights)):
        tell(number, Offered(some(str(number), 1000), exhausted=True), 0.0)
    for now in range(30):
        while ends and ends[0][0] <= now:
            at, number, batch = heapq.heappop(ends)
            del held[number][batch]
            tell(number, Ended(batch, Receipt(batch="", execution="", holds=((0, 1),), seconds=3, slot_seconds=3)), at)
        parties = [
            Party(run=str(number), weight=weight, claims=(Claim(needs={"thread": 1.0}, demand=1000, held=Counter(held[number].values())),))
            for number, weight in enumerate(weights)
        ]
        shares = split(parties, rooms)
        for number in range(len(weights)):
            (mine,) = shares[str(number)]
            slots = {worker: max(mine.get(worker, 0), list(held[number].values()).count(worker)) for worker in rooms}
            capacity = Capacity({request: slots}, counted=frozenset({request}), most=sum(mine.values()))
            tell(number, capacity, float(now))
        assert sum(map(len, held)) <= 4 * threads
    for number, weight in enumerate(weights):
        assert abs(len(held[number]) - 4 * threads * weight / sum(weights)) <= 1.0
