"""What the window is told: frozen events, handed to :meth:`Window.handle` with the time they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dcompute.records import Failure, Item, Receipt, Request
from dcompute.window.instructions import Try


@dataclass(frozen=True, slots=True)
class Offered:
    """The plan's answer to :class:`~dcompute.window.Take`: at least one item, or ``exhausted``."""

    items: Sequence[Item]
    exhausted: bool = False  #: no more will come, whatever is asked
    remaining: int | None = None  #: how many are still to come after these, where that is known
    request: Request | None = None  #: the class of these items; None: that of the run


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the cluster offers now, for every class of :attr:`Window.classes`; told at the start, at each change and after ``Measure``."""

    slots: Mapping[Request, Mapping[str, int]]  #: class -> worker -> batches it can execute at once if it serves this class only
    target: int | None = None  #: batches in flight that an adaptive cluster must see to grow as far as it may; None: it is not adaptive
    largest_memory: int | None = None  #: bytes that the largest worker can give to one call; None: unknown, nothing is doubled
    share: int | None = None  #: bytes of a slot whose class declares no memory (the largest such share)
    counted: frozenset[Request] = frozenset()  #: classes whose slots nobody but the window holds: workers would execute more at once
    outsiders: bool = False  #: workers are there that must not get a batch: what goes out names the worker that executes it
    most: int | None = None  #: batches in flight at once, twins and second ones of a slot included; None: as many as there is room for
    hosts: Mapping[str, str] = field(default_factory=dict)  #: worker -> host; of one that is not there, its address tells
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  #: worker -> what is said of it


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much of each named limit this run may use now; until it is told, and of what it does not name, all that there is."""

    limits: Mapping[str, float]  #: a number at once, or of a rate so much a second


@dataclass(frozen=True, slots=True)
class Reprioritized:
    """The run has another priority: what goes out from now on, further attempts and twins included, goes by it."""

    priority: int  #: in place of that of ``WindowConfig.request``; classes with others keep their distance to it


@dataclass(frozen=True, slots=True)
class Started:
    """A worker began to execute a batch (lossy: its absence proves nothing)."""

    batch: int
    worker: str
    again: int | None = None  #: ``Send.again`` of the task; None: the only one in flight


@dataclass(frozen=True, slots=True)
class Ended:
    """A receipt of a batch came, from its task or as a worker's event; told twice it counts once."""

    batch: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Lost:
    """A task that :class:`~dcompute.window.Send` made for this batch ended without a receipt.

    Tasks that a later ``Send`` of the same batch replaced (one that is no twin) are not reported. Dropped ones need not be; one that is
    (its worker says that it wrote nothing) spares a stopped run the time in which receipts are waited for.
    """

    batch: int
    worker: str | None = None  #: where it was lost, if known
    times: int = 1  #: workers that died with it
    at_work: int | None = None  #: index of the item that was executing, if known
    again: int | None = None  #: ``Send.again`` of the task; None: the only one in flight


@dataclass(frozen=True, slots=True)
class SetupFailed:
    """The workload's set-up failed before any item of this batch was executed."""

    batch: int
    text: str
    again: int | None = None  #: ``Send.again`` of the task; None: the only one in flight
    worker: str | None = None  #: where, if known
    is_scratch: bool = False  #: the worker's scratch folder is full, or its devices are in use: no fault of the workload


@dataclass(frozen=True, slots=True)
class MarkFound:
    """Answer to :class:`~dcompute.window.LookForMark`: the batch was written."""

    batch: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class NoMark:
    """Answer to :class:`~dcompute.window.LookForMark`: there is no mark of this batch."""

    batch: int
    begun: bool = True  #: an execution of it may have begun; False: none did, and none will


@dataclass(frozen=True, slots=True)
class Misfit:
    """Items of a settled batch failed finally after all: the dataset has no room for their rows. Counts after the end too."""

    tries: Sequence[Try]  #: of the batch
    failures: Sequence[Failure]  #: of items that had succeeded; their indexes are places in ``tries``


@dataclass(frozen=True, slots=True)
class CancelAll:
    """Stop: send nothing more, keep what workers still write."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing but time has passed; due at :meth:`Window.wake_at`."""


Event = (
    Offered | Capacity | Allowance | Reprioritized | Started | Ended | Lost | SetupFailed | MarkFound | NoMark | Misfit | CancelAll | Tick
)
