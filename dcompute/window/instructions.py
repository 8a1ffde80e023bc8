"""What the window asks for: frozen instructions, carried out by the driver in their order."""

from __future__ import annotations

from dataclasses import dataclass

from dcompute.records import Failure, Item, Receipt, Request


@dataclass(slots=True, eq=False)
class Try:
    """One item on its way to one attempt. The window owns it; everybody else reads. ``attempt``, ``request`` and ``alone`` never change."""

    item: Item
    attempt: int  #: number of the attempt, from 1
    request: Request  #: its class; memory may have been raised
    losses: int = 0  #: attempts lost with a worker; never billed to the item
    billed: tuple[str, ...] = ()  #: failures of its own so far, each by the budget of the retry policy that it is counted with
    alone: bool = False  #: one item in a fresh child, with nothing else of ours on the worker
    shared: bool = False  #: it was also sent under an earlier batch, whose mark may come late


@dataclass(frozen=True, slots=True)
class Send:
    """Execute a batch. With ``idempotent=False`` the driver first commits the keys as sent."""

    number: int  #: of the batch; the same again when a lost batch goes out again
    request: Request
    tries: tuple[Try, ...]
    alone_on: str | None = None  #: the one worker that may execute it, empty of our batches now
    again: int = 0  #: how often it went out before, twins included: tells the tasks of one batch apart
    avoid: tuple[str, ...] = ()  #: workers that must not execute it: kept free for others, or where it was lost
    exclude: tuple[int, ...] = ()  #: indexes not to execute: a late mark settled them (``BatchSpec.exclude``)
    only_on: str | None = None  #: the one worker that has room for it: of a twin, where nobody but the window counts, or beside outsiders
    twin: bool = False  #: a second task beside the one in flight; the first receipt of either settles the batch
    priority: int = 0  #: of its task: that of its class, as it was changed and as it has aged

    @property
    def alone(self) -> bool:
        """Whether its one item runs in a fresh child (``BatchSpec.alone``)."""
        return self.tries[0].alone


@dataclass(frozen=True, slots=True)
class Take:
    """Ask the plan for so many more items; answered by one ``Offered``, with fewer where more would have to be waited for."""

    count: int


@dataclass(frozen=True, slots=True)
class Measure:
    """A new class exists (memory was raised): tell a ``Capacity`` for all of ``Window.classes``."""

    request: Request


@dataclass(frozen=True, slots=True)
class Settled:
    """Commit a receipt. Indexes refer to ``tries``, which are as they were sent."""

    batch: int
    receipt: Receipt
    left_out: tuple[int, ...]  #: held, but not to be counted: another batch has their final outcome
    final: tuple[int, ...]  #: failures that are final
    tries: tuple[Try, ...]
    retried: int = 0  #: failures of it that will be tried again

    @property
    def succeeded(self) -> int:
        """Items of it that now have succeeded."""
        return self.receipt.count - len({failure.index for failure in self.receipt.failures}.union(self.left_out))


@dataclass(frozen=True, slots=True)
class Record:
    """Write outcomes that no worker could write, as an attempts part under this batch number, and commit it."""

    batch: int
    tries: tuple[Try, ...]
    failures: tuple[Failure, ...]  #: one for each of ``tries``; its index is the place there
    final: tuple[int, ...]  #: indexes of those that are final


@dataclass(frozen=True, slots=True)
class LookForMark:
    """Look in the dataset for the mark of this batch; answered by ``MarkFound`` or ``NoMark``."""

    batch: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Cancel the tasks of this batch. A receipt, should one come, is still to be told; their loss is not."""

    batch: int
    again: int | None = None  #: only the task of that ``Send``: its twin goes on


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence for the user; ``code`` is for programs."""

    code: str  #: "paused", "resumed", "pause-given-up", "retries-full", "no-worker", "condemned", "predicate"
    text: str


@dataclass(frozen=True, slots=True)
class End:
    """The run is over; nothing follows."""

    #: "done", "cancelled", "item" (ItemError), "failures" (TooManyFailures), "initializer" (InitializerError), "scratch" (ClusterError)
    code: str
    text: str = ""
    tried: Try | None = None  #: the item that ended it ("item")
    failure: Failure | None = None  #: its failure


Instruction = Send | Take | Measure | Settled | Record | LookForMark | Drop | Notice | End
