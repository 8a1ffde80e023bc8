"""A window and its plan, step by step, and a cluster that takes exactly its time."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field, replace

from dcompute.records import Failure, Item, ItemKey, Kind, Receipt, Request
from dcompute.retry import Retry
from dcompute.window import (
    Capacity,
    Drop,
    Ended,
    Event,
    Instruction,
    LookForMark,
    Lost,
    MarkFound,
    Measure,
    NoMark,
    Offered,
    Send,
    SetupFailed,
    Take,
    Tick,
    Window,
    WindowConfig,
)

BASE = Request()
GIB = 2**30
PLAIN = WindowConfig(request=BASE)


def items(count: int, size: int = 10) -> list[Item]:
    return [Item(ItemKey(str(index), "str"), None, "", index, size) for index in range(count)]


def receipt(send: Send, *failures: Failure, upto: int | None = None, seconds: float = 0.1) -> Receipt:
    count = len(send.tries) if upto is None else upto
    return Receipt(
        batch=str(send.number),
        execution="",
        holds=((0, count),) if count else (),
        failures=failures,
        seconds=seconds * count,
        slot_seconds=seconds * count + 0.01,
    )


def failed(kind: Kind, index: int = 0, error: str = "Error") -> Failure:
    return Failure(index=index, kind=kind, error=error, message="why")


def only(instructions: list[Instruction], kind: type) -> list:
    return [instruction for instruction in instructions if isinstance(instruction, kind)]


@dataclass
class Run:
    """A window whose plan has so many items; every ``tell`` answers what it asks for at once."""

    count: int
    slots: dict[str, int] = field(default_factory=lambda: {"a": 1, "b": 1})
    config: WindowConfig = PLAIN
    retry: Retry | None = None
    share: int | None = GIB
    size: int = 10
    marks: dict[int, Receipt] = field(default_factory=dict)
    never_began: set[int] = field(default_factory=set)  # batches that nobody began, and nobody can any more
    now: float = 0.0
    target: int | None = None
    counted: bool = False  # nobody but the window holds the slots
    outsiders: bool = False  # workers are there that must not get a batch
    out: dict[int, Send] = field(default_factory=dict)  # in flight

    def __post_init__(self) -> None:
        self.window = Window(self.config, retry=self.retry, rng=random.Random(0))
        self.left = items(self.count, self.size)
        self.first = self.tell(self.capacity())

    def capacity(self) -> Capacity:
        counted = frozenset(self.window.classes) if self.counted else frozenset()
        return Capacity(dict.fromkeys(self.window.classes, self.slots), self.target, 4 * GIB, self.share, counted, self.outsiders)

    def tell(self, event: Event, after: float = 0.0) -> list[Instruction]:
        self.now += after
        said: list[Instruction] = []
        if isinstance(event, Ended | Lost | SetupFailed):
            self.out.pop(event.batch, None)
        events = [event]
        while events:
            for instruction in self.window.handle(events.pop(0), self.now):
                said.append(instruction)
                if isinstance(instruction, Send):
                    self.out[instruction.number] = instruction
                elif isinstance(instruction, Drop):
                    self.out.pop(instruction.batch, None)
                elif isinstance(instruction, Take):
                    items, self.left = self.left[: instruction.count], self.left[instruction.count :]
                    events.append(Offered(items, not self.left))
                elif isinstance(instruction, Measure):
                    events.append(self.capacity())
                elif isinstance(instruction, LookForMark):
                    mark = self.marks.get(instruction.batch)
                    nothing = NoMark(instruction.batch, begun=instruction.batch not in self.never_began)
                    events.append(nothing if mark is None else MarkFound(instruction.batch, mark))
        return said

    def sends(self, event: Event, after: float = 0.0) -> list[Send]:
        return only(self.tell(event, after), Send)

    def wake(self) -> list[Instruction]:
        due = self.window.wake_at()
        assert due is not None
        return self.tell(Tick(), due - self.now)


@dataclass
class Clockwork:
    """A cluster that does what it is told and takes exactly its time."""

    run: Run
    item_seconds: float
    overhead: float = 0.012
    batches: list[tuple[float, float, int]] = field(default_factory=list)  # sent, ended, items

    def __post_init__(self) -> None:
        run, flying, free, line = self.run, [], [], []
        free = [0.0] * sum(run.slots.values())
        heapq.heapify(free)
        line += only(run.first, Send)
        while not run.window.over:
            for send in line:
                begin = max(run.now, heapq.heappop(free))
                took = len(send.tries) * self.item_seconds
                end = begin + took + self.overhead
                heapq.heappush(free, end)
                heapq.heappush(flying, (end, send.number, send, took))
                self.batches.append((begin, end, len(send.tries)))
            if not flying:
                line = only(run.wake(), Send)
                continue
            end, number, send, took = heapq.heappop(flying)
            held = receipt(send, seconds=self.item_seconds)
            line = run.sends(Ended(number, replace(held, slot_seconds=took + self.overhead)), end - run.now)

    def last_of_each_slot(self) -> float:
        ends = sorted(end for _, end, _ in self.batches)[-sum(self.run.slots.values()) :]
        return ends[-1] - ends[0]
