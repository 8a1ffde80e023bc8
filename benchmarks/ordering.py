"""Who waits how long, and what a decision costs: 100 runs of four priorities on 10,000 slots, on a clock that is simulated.

Windows and the split of slots among them are the real ones; workers take exactly their time. Fails where a decision costs much more than on
a hundredth of the slots, where a lower priority waits less than a higher one, or where slots stand idle while something waits.

python benchmarks/ordering.py [SLOTS]
"""

from __future__ import annotations

import heapq
import itertools
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace

from dcompute.priority import PRIORITIES
from dcompute.records import Item, ItemKey, Receipt, Request
from dcompute.sharing import Claim, Party, Share, split
from dcompute.window import Capacity, Ended, Event, Offered, Send, Window, WindowConfig

SLOTS, RUNS, THREADS, SMALLER = 10_000, 100, 16, 100
#: Batches of all runs for each slot, the seconds that one takes at least and at most, and the seconds in which all runs have come.
ROUNDS, SHORTEST, LONGEST, ARRIVALS = 4, 20.0, 40.0, 60.0
#: Of ten runs so many have each priority; every other one has three times the weight.
OF_TEN = {"urgent": 1, "high": 2, "normal": 4, "low": 3}
#: The marks: a decision costs at most so many times one on the small cluster, and so much of the slots is used while something waits.
MOST_COST, LEAST_USE = 3.0, 0.95


@dataclass
class Run:
    """One run, its window, and what it has on the workers."""

    name: str
    priority: str
    weight: float
    came: float
    items: int
    held: Counter[str] = field(default_factory=Counter)
    where: dict[int, str] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.request = Request(priority=PRIORITIES[self.priority])
        config = WindowConfig(request=self.request, batch_size=1, second_below=0.0, twins=False)
        self.window = Window(config, rng=random.Random(0))

    def party(self) -> Party:
        """What it could use."""
        demand = self.window.demand()[self.request]
        claim = Claim(needs={"thread": 1.0}, demand=demand, priority=self.request.priority, held=dict(self.held))
        return Party(run=self.name, weight=self.weight, claims=(claim,))

    def capacity(self, share: Share, left: dict[str, int]) -> Capacity:
        """Its share of each worker and what nobody wants, and what it still has there."""
        (mine,) = share
        slots = {worker: max(mine.get(worker, 0) + spare, self.held[worker]) for worker, spare in left.items()}
        return Capacity({self.request: slots}, counted=frozenset({self.request}), most=sum(mine.values()))


class Simulation:
    """All runs on one cluster."""

    def __init__(self, slots: int, runs: int) -> None:
        chance = random.Random(7)
        names = [name for name, count in OF_TEN.items() for _ in range(count)]
        items = ROUNDS * slots // runs
        self.runs = [
            Run(f"run-{number:03d}", names[number % 10], 1.0 + 2 * (number // 10 % 2), chance.uniform(0, ARRIVALS), items)
            for number in range(runs)
        ]
        self.rooms = {f"tcp://10.0.{number // 250}.{number % 250}:4000": {"thread": float(THREADS)} for number in range(slots // THREADS)}
        self.slots = THREADS * len(self.rooms)
        self.chance = chance
        self.now = 0.0
        self.spent = self.split = 0.0  #: CPU seconds of windows, and of splits of one driver
        self.sent = self.splits = 0
        self.used = self.offered = 0.0  #: slot seconds while something waited
        self._ends: list[tuple[float, int, Run, Send]] = []
        self._order = itertools.count()

    def run(self) -> None:
        """From the first run that comes to the last that ends."""
        coming = sorted(self.runs, key=lambda run: run.came)
        there: list[Run] = []
        while coming or any(not run.window.over for run in there):
            while coming and coming[0].came <= self.now:
                there.append(self._come(coming.pop(0)))
            self._share([run for run in there if not run.window.over])
            self._pass(self.now + 1.0, there)

    def _come(self, run: Run) -> Run:
        items = [Item(ItemKey(str(number), "int"), number, "", number, 10) for number in range(run.items)]
        self._tell(run, Offered(items, exhausted=True))
        return run

    def _share(self, runs: list[Run]) -> None:
        """What every driver finds once a second, each for itself."""
        began = time.process_time()
        shares = split([run.party() for run in runs], self.rooms)
        self.split += time.process_time() - began
        self.splits += 1
        left = dict.fromkeys(self.rooms, THREADS)
        for (share,) in shares.values():
            for worker, count in share.items():
                left[worker] -= count
        for run in runs:
            self._tell(run, run.capacity(shares[run.name], left))

    def _pass(self, until: float, runs: list[Run]) -> None:
        waiting = any(run.window.counts().ready for run in runs)
        while self._ends and self._ends[0][0] <= until:
            at, _, run, send = heapq.heappop(self._ends)
            self.now = at
            run.held[run.where.pop(send.number)] -= 1
            self._tell(run, Ended(send.number, _receipt(send)))
        self.now = until
        if waiting and any(run.window.counts().ready for run in runs):
            self.used += min(len(self._ends), self.slots)
            self.offered += self.slots

    def _tell(self, run: Run, event: Event) -> None:
        began = time.process_time()
        said = run.window.handle(event, self.now)
        self.spent += time.process_time() - began
        for send in (instruction for instruction in said if isinstance(instruction, Send)):
            self.sent += 1
            run.waits.append(self.now - run.came)
            worker = send.only_on
            assert worker is not None, "where nobody but the windows counts, a batch names its worker"
            run.where[send.number] = worker
            run.held[worker] += 1
            heapq.heappush(self._ends, (self.now + self.chance.uniform(SHORTEST, LONGEST), next(self._order), run, send))


def _receipt(send: Send) -> Receipt:
    seconds = LONGEST
    return replace(_DONE, batch=str(send.number), seconds=seconds, slot_seconds=seconds)


_DONE = Receipt(batch="", execution="", holds=((0, 1),))


def simulated(slots: int, runs: int) -> Simulation:
    """A simulation that has ended, and its figures."""
    simulation = Simulation(slots, runs)
    simulation.run()
    assert simulation.sent == sum(run.items for run in simulation.runs)
    print(f"{simulation.slots:,} slots, {runs} runs, {simulation.sent:,} batches in {simulation.now:,.0f} simulated seconds:")
    print(f"  decisions a second of CPU: {simulation.sent / simulation.spent:,.0f}")
    print(f"  one split of all slots among the runs: {1000 * simulation.split / simulation.splits:.1f} ms")
    print(f"  slots used while something waited: {100 * simulation.used / max(simulation.offered, 1):.1f} %")
    return simulation


def waits(simulation: Simulation, weight: float | None = None) -> dict[str, float]:
    """Mean seconds from the coming of a run to the start of an item, by priority."""
    found: dict[str, list[float]] = {name: [] for name in OF_TEN}
    for run in simulation.runs:
        if weight in (None, run.weight):
            found[run.priority] += run.waits
    return {name: sum(times) / max(len(times), 1) for name, times in found.items()}


def main() -> int:
    """1 where a mark is missed."""
    slots = int(sys.argv[1]) if len(sys.argv) > 1 else SLOTS
    small = simulated(max(slots // SMALLER, THREADS), RUNS // 10)
    large = simulated(slots, RUNS)
    found, heavy, light = waits(large), waits(large, 3.0), waits(large, 1.0)
    print("  seconds until an item starts, by priority (runs of three times the weight, of one):")
    for name, mean in found.items():
        print(f"    {name:8} {mean:6.1f}   ({heavy[name]:.1f}, {light[name]:.1f})")
    cost = (large.spent / large.sent) / (small.spent / small.sent)
    use = large.used / max(large.offered, 1)
    print(f"  a decision costs {cost:.2f} times one on {small.slots:,} slots")
    in_order = list(found.values()) == sorted(found.values())
    return int(cost > MOST_COST or use < LEAST_USE or not in_order)


if __name__ == "__main__":
    sys.exit(main())
