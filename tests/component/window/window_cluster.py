"""A simulated cluster on which anything may happen at any time, and what a window promises whatever happens."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dcompute.affinity import permits
from dcompute.quotas import Quota, parse_quotas
from dcompute.records import Affinity, Failure, Item, ItemKey, Kind, Receipt, Request
from dcompute.window import (
    Allowance,
    CancelAll,
    Capacity,
    Drop,
    End,
    Ended,
    Event,
    Instruction,
    LookForMark,
    Lost,
    MarkFound,
    Measure,
    NoMark,
    Offered,
    Record,
    Send,
    Settled,
    SetupFailed,
    Started,
    Take,
    Tick,
    Try,
    Window,
    WindowConfig,
)

GIB = 2**30
BASE = Request()


@dataclass(frozen=True)
class Scenario:
    """What one run is made of; the same scenario gives the same run."""

    seed: int
    items: int = 40
    workers: int = 3
    batch_size: int | None = None
    idempotent: bool = True
    twice: bool = True  #: whether batches are short enough for a second one a slot
    trouble: int = 20  #: how often something goes wrong that is not an item's doing
    stuck: int = 0  #: one execution in so many stands still, until a twin or the end of all else; 0: none
    zombies: bool = True
    at_work: bool = True  #: whether losses come with the item at work
    cancel_after: int | None = None  #: steps
    target: int | None = None
    conduct: tuple[str, ...] = ("ok",)
    max_bytes: int = 400
    errors: str = "record"
    most: int | None = None  #: batches in flight at most, now and then another number
    licences: int | None = None  #: each task in flight holds one; now and then fewer are allowed
    rate: str | None = None  #: each item takes one
    affinity: tuple[Affinity, ...] = ()  #: workers come by two on a host, every other host is in zone a

    @property
    def request(self) -> Request:
        uses = (("api", 1.0),) * (self.rate is not None) + (("licence", 1.0),) * (self.licences is not None)
        return replace(BASE, uses=uses, affinity=self.affinity)

    @property
    def limits(self) -> dict[str, Quota]:
        return parse_quotas({name: there for name, there in (("licence", self.licences), ("api", self.rate)) if there is not None})


@dataclass
class Task:
    send: Send
    worker: str | None = None
    allowed: tuple[str, ...] = ()
    stuck: bool = False


@dataclass
class Cluster:
    """Executes what a window sends, badly, and checks each instruction against the promises of the window."""

    scenario: Scenario
    now: float = 0.0
    steps: int = 0
    live: dict[tuple[int, int], Task] = field(default_factory=dict)  # by number and send
    twinned: set[int] = field(default_factory=set)  # batches that had a twin
    zombies: list[Task] = field(default_factory=list)
    marks: dict[int, Receipt] = field(default_factory=dict)
    looked_for: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    unresolved: dict[ItemKey, set[int]] = field(default_factory=dict)
    outcomes: dict[ItemKey, str] = field(default_factory=dict)
    lost: Counter[ItemKey] = field(default_factory=Counter)
    claims: dict[int, Task | None] = field(default_factory=dict)  # with idempotent=False: who began a batch; None: nobody ever will
    begun: Counter[ItemKey] = field(default_factory=Counter)  # how often an item began
    unmarked: set[int] = field(default_factory=set)  # batches that were begun and left no mark when one was looked for
    tries: dict[int, tuple[Try, ...]] = field(default_factory=dict)  # what was sent under each number
    condemned: dict[ItemKey, int] = field(default_factory=dict)  # items that no worker said how they ended, and their losses
    slots: dict[str, int] = field(default_factory=dict)
    homes: dict[int, str] = field(default_factory=dict)  # where the last item of a group went, as long as that host is there
    taken: list[tuple[float, int]] = field(default_factory=list)  # of the rate: when, and by how many items
    ended: End | None = None
    stopped: bool = False
    log: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.scenario.seed)
        self.most, self.licences = self.scenario.most, self.scenario.licences
        self.trouble = self.scenario.trouble
        self.items = [
            Item(ItemKey(str(index), "str"), None, "", index, self.random.choice([10, 100, 100, 390, 500]))
            for index in range(self.scenario.items)
        ]
        rules = [rule for rule in self.scenario.affinity if not rule.labels]
        self.items = [item._replace(groups=tuple(self.random.randrange(5) for _ in rules)) for item in self.items]
        self.conduct = {item.key: self.random.choice(self.scenario.conduct) for item in self.items}
        config = WindowConfig(
            request=self.scenario.request,
            limits=self.scenario.limits,
            batch_size=self.scenario.batch_size,
            idempotent=self.scenario.idempotent,
            second_below=2.0 if self.scenario.twice else 0.0,
            max_bytes=self.scenario.max_bytes,
            errors=self.scenario.errors,
            alike_items=15,
            setup_failures=10**6,
        )
        self.window = Window(config, rng=random.Random(self.scenario.seed))

    # -- the run

    def run(self) -> None:
        self.tell(self.capacity())
        while self.ended is None:
            self.steps += 1
            assert self.steps < 20_000, "the run does not end"
            if self.scenario.cancel_after == self.steps:
                self.tell(CancelAll("enough"))
                continue
            self.random.choice(self.possible())()

    def possible(self) -> list:
        """What may happen next. Whatever is left when nothing goes wrong any more must suffice to end the run."""
        acts = [self.answer_mark] * 2 * bool(self.looked_for) + [self.answer_take] * 3 * bool(self.asked)
        if any(task.worker is None and self.places(task) for task in self.live.values()):
            acts += [self.start] * 3
        if any(task.worker is not None and not task.stuck for task in self.live.values()):
            acts += [self.finish] * 4
        if any(task.stuck for task in self.live.values()):
            acts += [self.recover]
        if self.zombies:
            acts += [self.zombie_ends]
        if self.window.wake_at() is not None:
            acts += [self.wake]
        if self.trouble > 0 and self.random.random() < 0.3:
            acts += [self.change_capacity, self.lose, self.fail_setup]
        if not any(map(self.permits, self.slots)) or (self.most == 0 and not self.live):
            acts += [self.change_capacity]
        if self.licences is not None and (self.trouble > 0 or not self.licences):
            acts += [self.change_allowance]
        assert acts, f"the run is stuck: {self.window.counts()} {self.slots} {self.live}"
        return acts

    def tell(self, event: Event) -> None:
        self.events.append(event)
        while self.events:
            event = self.events.pop(0)
            self.log.append(repr(event))
            self.stopped = self.stopped or isinstance(event, CancelAll)
            said = self.window.handle(event, self.now)
            assert self.ended is None or not said
            for instruction in said:
                self.log.append(repr(instruction))
                self.carry_out(instruction)
            self.stopped = self.stopped or bool(self.window.counts().ending)

    # -- what happens

    def answer_mark(self) -> None:
        number = self.looked_for.pop(self.random.randrange(len(self.looked_for)))
        if number in self.marks:
            self.tell(MarkFound(number, self.marks[number]))
        else:
            self.resolve(number)
            begun = self.scenario.idempotent or self.claims.setdefault(number, None) is not None
            if begun:
                self.unmarked.add(number)
            self.tell(NoMark(number, begun))

    def answer_take(self) -> None:
        count = self.random.randint(1, self.asked.pop())
        items, self.items = self.items[:count], self.items[count:]
        for item in items:
            self.unresolved[item.key] = set()
        remaining = len(self.items) if self.random.random() < 0.5 else None
        self.tell(Offered(items, exhausted=not self.items, remaining=remaining))

    def wake(self) -> None:
        self.now = max(self.now, self.window.wake_at())
        self.tell(Tick())
        assert (self.window.wake_at() or self.now + 1) > self.now, "a driver would wake up again at once"

    def places(self, task: Task) -> list[str]:
        # As in Dask: a task that may run on some workers only is never given to one that came later.
        return [worker for worker in self.slots if (not task.allowed or worker in task.allowed) and self.fits(task, worker)]

    def fits(self, task: Task, worker: str) -> bool:
        there = [other.send for other in self.live.values() if other.worker == worker] + [task.send]
        return sum(1 / self.room(send.request, worker) for send in there) < 1.001

    def allowed(self, send: Send) -> tuple[str, ...]:
        if send.alone_on is not None or send.only_on is not None:
            return (send.alone_on or send.only_on,)
        return tuple(worker for worker in self.slots if worker not in send.avoid) if send.avoid else ()

    def start(self) -> None:
        task = self.random.choice([task for task in self.live.values() if task.worker is None and self.places(task)])
        task.worker = self.random.choice(self.places(task))
        task.stuck = bool(self.scenario.stuck) and self.random.randrange(self.scenario.stuck) == 0
        if self.scenario.affinity and not task.allowed:
            self.check_place(task.send, task.worker)
        if self.random.random() < 0.8:
            self.tell(Started(task.send.number, task.worker, task.send.again))

    def recover(self) -> None:
        self.random.choice([task for task in self.live.values() if task.stuck]).stuck = False

    def finish(self) -> None:
        task = self.random.choice([task for task in self.live.values() if task.worker is not None and not task.stuck])
        killer = self.killer(task)
        if killer is not None or not self.claim(task):
            self.end_badly(task, killer)
            return
        del self.live[task.send.number, task.send.again]
        short = self.trouble > 0 and self.random.random() < 0.1
        self.trouble -= short
        self.tell(Ended(task.send.number, self.write(task, short)))

    def lose(self) -> None:
        if self.live:
            self.end_badly(self.random.choice(list(self.live.values())), None)

    def end_badly(self, task: Task, killer: int | None) -> None:
        self.trouble -= killer is None
        del self.live[task.send.number, task.send.again]
        claimed = task.worker is not None and self.random.random() < 0.7 and self.claim(task)
        if self.scenario.zombies and task.worker is not None and self.random.random() < 0.4:
            self.zombies.append(task)
        elif claimed:
            self.die(task)
        guess = killer if killer is not None else self.random.randrange(len(task.send.tries))
        known = self.scenario.at_work and self.random.random() < 0.5
        for tried in task.send.tries:
            self.lost[tried.item.key] += 1
        times = self.random.choice([1, 1, 1, 4])
        self.tell(Lost(task.send.number, task.worker, times, guess if known else None, task.send.again))

    def zombie_ends(self) -> None:
        task = self.zombies.pop(self.random.randrange(len(self.zombies)))
        if not self.claim(task):
            return
        if self.killer(task) is not None or self.random.random() < 0.2:
            self.die(task)
            return
        receipt = self.write(task, short=self.random.random() < 0.3)
        if self.random.random() < 0.7:
            self.tell(Ended(task.send.number, receipt))

    def fail_setup(self) -> None:
        if self.live:
            self.trouble -= 1
            number, again = self.random.choice(list(self.live))
            del self.live[number, again]
            self.tell(SetupFailed(number, "no model", again))

    def change_capacity(self) -> None:
        self.trouble -= 1
        count = self.random.randint(0 if self.trouble > 0 else 1, self.scenario.workers)
        names = [f"w{self.random.randrange(6)}" for _ in range(count)]
        before, self.slots = self.slots, {name: self.random.randint(1, 3) for name in names}
        for task in self.live.values():
            if task.worker is not None and task.worker not in self.slots:
                task.worker, task.stuck = None, False
        assert before is not self.slots
        present = {host(worker) for worker in self.slots}
        self.homes = {group: there for group, there in self.homes.items() if there in present}
        if self.scenario.most is not None:
            self.most = self.random.randint(0 if self.trouble > 0 else 1, self.scenario.most)
        self.tell(self.capacity())

    def change_allowance(self) -> None:
        self.trouble -= 1
        self.licences = self.random.randint(0 if self.trouble > 0 else 1, self.scenario.licences or 0)
        self.tell(Allowance({"licence": self.licences}))

    def capacity(self) -> Capacity:
        if not self.slots and self.steps == 0:
            self.slots = {f"w{index}": 1 + index % 2 for index in range(self.scenario.workers)}
        classes = self.window.classes
        slots = {request: {worker: self.room(request, worker) * self.permits(worker) for worker in self.slots} for request in classes}
        hosts = {worker: host(worker) for worker in self.slots}
        labels = {worker: labels_of(worker) for worker in self.slots}
        return Capacity(slots, self.scenario.target, largest_memory=4 * GIB, share=GIB, most=self.most, hosts=hosts, labels=labels)

    def permits(self, worker: str) -> bool:
        return permits(self.scenario.affinity, host(worker), labels_of(worker))

    def room(self, request: Request, worker: str) -> int:
        return max(1, self.slots[worker] // max(1, (request.memory or GIB) // GIB))

    # -- execution

    def claim(self, task: Task) -> bool:
        """Whether this execution may begin: with idempotent=False only the first of a batch, unless that began nothing."""
        return self.scenario.idempotent or self.claims.setdefault(task.send.number, task) is task

    def die(self, task: Task) -> None:
        """Begin some of the items, and end without a mark."""
        if task.send.number not in self.marks:
            for tried in task.send.tries[: self.random.randint(0, len(task.send.tries))]:
                self.begun[tried.item.key] += 1

    def killer(self, task: Task) -> int | None:
        kills = (index for index, tried in enumerate(task.send.tries) if self.conduct[tried.item.key] == "kills")
        return next(kills, None)

    def write(self, task: Task, short: bool) -> Receipt:
        """Execute a batch and create its mark, or find that of another execution."""
        send = task.send
        if send.number in self.marks:
            return self.marks[send.number]
        length = len(send.tries)
        upto = self.random.randint(0, length - 1) if short else length
        held = [index for index in range(upto) if index not in send.exclude]
        failures = tuple(failure for index in held if (failure := self.execute(index, send)) is not None)
        if not self.scenario.idempotent and upto < length and self.random.random() < 0.5:
            # the item at work when its batch was stopped: the mark holds all that began
            self.begun[send.tries[upto].item.key] += 1
            held.append(upto)
            failures = (*failures, Failure(index=upto, kind=Kind.INFRASTRUCTURE, error="stopped"))
        seconds = self.random.choice([0.001, 0.1, 3.0]) * len(held)
        self.now += self.random.choice([0.0, 0.05, 1.0])
        receipt = Receipt(
            batch=str(send.number),
            execution="",
            holds=ranges(held),
            failures=failures,
            seconds=seconds,
            slot_seconds=seconds + 0.01,
            peak_memory=100,
        )
        self.marks[send.number] = receipt
        return receipt

    def execute(self, index: int, send: Send) -> Failure | None:
        tried = send.tries[index]
        self.begun[tried.item.key] += 1
        conduct = self.conduct[tried.item.key]
        kind, _, times = conduct.partition(":")
        if kind == "ok" or (kind == "memory" and (tried.request.memory or GIB) >= int(times) * GIB):
            return None
        if kind != "memory" and times and tried.attempt > int(times):
            return None
        return Failure(index=index, kind=Kind(kind), error="Error")

    # -- promises

    def carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Send():
                self.check_send(instruction)
                self.live[instruction.number, instruction.again] = Task(instruction, allowed=self.allowed(instruction))
            case Take(count):
                assert count > 0
                assert not self.asked
                self.asked.append(count)
            case Settled():
                self.settle(instruction)
            case Record():
                self.record(instruction)
            case LookForMark(number):
                assert not self.tasks(number) or self.stopped or self.window.counts().ending
                self.forget(number)
                self.looked_for.append(number)
            case Drop(number, again):
                self.drop(number, again)
            case Measure():
                self.events.append(self.capacity())
            case End():
                self.ended = instruction

    def tasks(self, number: int) -> list[Task]:
        return [task for (its, _), task in self.live.items() if its == number]

    def forget(self, number: int) -> None:
        for task in self.tasks(number):
            del self.live[number, task.send.again]

    def drop(self, number: int, again: int | None) -> None:
        for task in self.tasks(number):
            if again is None or task.send.again == again:
                del self.live[number, task.send.again]
                if task.worker is not None and self.random.random() < 0.6:
                    self.zombies.append(task)

    def resolve(self, number: int) -> None:
        for numbers in self.unresolved.values():
            numbers.discard(number)

    def check_send(self, send: Send) -> None:
        assert send.tries
        assert not self.stopped, "something was sent after the stop"
        if send.twin:
            self.check_twin(send)
        else:
            assert not self.tasks(send.number)
        sizes = [tried.item.size for tried in send.tries]
        assert sum(sizes) <= self.scenario.max_bytes or len(sizes) == 1
        assert len(send.tries) <= (self.scenario.batch_size or 10_000)
        for index, tried in enumerate(send.tries):
            key = tried.item.key
            assert key not in self.outcomes or index in send.exclude, "an item with an outcome was sent"
            assert self.unresolved[key] <= {send.number}, "an item went out under another id, and its mark was not looked for"
            assert tried.request == send.request
            self.unresolved[key].add(send.number)
            self.tries[send.number] = send.tries
            assert self.scenario.idempotent or not self.begun[key], "an item that may have begun was sent again"
        self.check_alone(send)
        self.check_bound(send)
        self.check_limits(send)
        self.check_affinity(send)

    def check_twin(self, send: Send) -> None:
        """Once a batch, beside one task of it, at the end of a run that goes well."""
        assert [task.send.tries for task in self.tasks(send.number)] == [send.tries]
        assert send.number not in self.twinned, "a batch got a second twin"
        self.twinned.add(send.number)
        counts = self.window.counts()
        assert self.scenario.idempotent
        assert not send.alone
        assert not counts.paused
        assert (counts.exhausted, self.items, counts.ready) == (True, [], 0), "a twin took the slot of an item that waits"
        assert not any(tried.losses for tried in send.tries), "what may have killed a worker got a twin"
        assert send.only_on in self.slots
        assert len(self.slots) > 1

    def check_alone(self, send: Send) -> None:
        assert len(send.tries) == 1 or not any(tried.alone for tried in send.tries)
        if send.alone_on is not None:
            assert send.alone
            assert not any(task.worker == send.alone_on for task in self.live.values() if task.send.alone)
        for task in self.live.values():
            if task.send.alone_on is not None and task.send.alone_on in self.slots:
                assert send.alone_on != task.send.alone_on
                assert (send.only_on or send.alone_on) is not None or task.send.alone_on in send.avoid
                assert send.only_on != task.send.alone_on

    def check_bound(self, send: Send) -> None:
        """In flight is never more than the slots (twice, where batches are short), or the target; without slots one a class."""
        depth = 2 if self.scenario.twice or send.twin else 1
        same = 1 + sum(task.send.request == send.request for task in self.live.values())
        target = self.scenario.target or 0
        served = sum(self.room(send.request, worker) for worker in self.slots)
        if not served:
            assert same <= max(1, target)
        else:
            assert same <= max(depth * served, target)
            assert len(self.live) + 1 <= max(depth * sum(self.slots.values()), target)

    def check_limits(self, send: Send) -> None:
        """Of a number never more is held than is allowed at that moment, of a rate never more taken in any period."""
        assert self.most is None or len(self.live) < self.most
        assert self.licences is None or len(self.live) < self.licences
        rate = self.scenario.limits.get("api")
        if rate is not None:
            assert rate.period is not None
            self.taken.append((self.now, len(send.tries) - len(send.exclude)))
            assert sum(count for at, count in self.taken if at > self.now - rate.period + 1e-6) <= rate.amount

    def check_affinity(self, send: Send) -> None:
        """No batch goes where a hard rule forbids it, seen from the workers and the batches that are there at that moment."""
        worker = send.only_on or send.alone_on
        if self.scenario.affinity and worker is not None:
            self.check_place(send, worker)

    def check_place(self, send: Send, worker: str) -> None:
        assert self.permits(worker)
        rules = [rule for rule in self.scenario.affinity if not rule.labels]
        for index, rule in enumerate(rules):
            groups = {tried.item.groups[index] for tried in send.tries}
            if rule.hard and rule.kind == "together":
                assert {self.homes.get(group, host(worker)) for group in groups} == {host(worker)}
            elif rule.hard:
                places = [(task.worker or (*task.allowed, None)[0], task.send) for task in self.live.values() if task.send is not send]
                near = [other for there, other in places if there is not None and host(there) == host(worker)]
                assert groups.isdisjoint(tried.item.groups[index] for other in near for tried in other.tries)
            if rule.kind == "together":
                self.homes.update(dict.fromkeys(groups, host(worker)))

    def settle(self, settled: Settled) -> None:
        assert self.marks[settled.batch] == settled.receipt, "what is committed was never written"
        self.forget(settled.batch)
        failed = {failure.index: failure for failure in settled.receipt.failures}
        held = [index for start, stop in settled.receipt.holds for index in range(start, stop)]
        succeeded = 0
        for index in held:
            key = settled.tries[index].item.key
            if index in settled.left_out:
                continue
            assert key not in self.outcomes, "a second outcome"
            if index not in failed:
                self.outcomes[key] = "succeeded"
                succeeded += 1
            elif index in settled.final:
                self.outcomes[key] = failed[index].kind
        assert settled.succeeded == succeeded
        assert succeeded + len(settled.final) + len(settled.left_out) + settled.retried == len(held)
        self.resolve(settled.batch)

    def record(self, record: Record) -> None:
        assert record.batch not in self.marks
        self.marks[record.batch] = None
        for index, tried in enumerate(record.tries):
            assert record.failures[index].index == index
            if index in record.final:
                assert tried.item.key not in self.outcomes, "a second outcome"
                assert not self.scenario.idempotent or (tried.alone and tried.losses == 5), "condemned without having run alone"
                self.condemned[tried.item.key] = tried.losses
                self.outcomes[tried.item.key] = record.failures[index].kind


def host(worker: str) -> str:
    return f"h{int(worker[1:]) // 2}"


def labels_of(worker: str) -> dict[str, str]:
    return {"zone": "ab"[int(host(worker)[1:]) % 2]}


def ranges(held: Sequence[int]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for index in held:
        if found and found[-1][1] == index:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return tuple(found)


def finished(scenario: Scenario) -> Cluster:
    cluster = Cluster(scenario)
    cluster.run()
    counts = cluster.window.counts()
    found = Counter("succeeded" if outcome == "succeeded" else "failed" for outcome in cluster.outcomes.values())
    assert (counts.succeeded, counts.failed) == (found["succeeded"], found["failed"])
    assert not cluster.live, "a task was left behind"
    assert (counts.running, counts.batches, counts.ready, counts.retrying) == (0, 0, 0, 0)
    return cluster
