"""What one window is told once, and the counts that it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dcompute.quotas import Quota
from dcompute.records import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowConfig:
    """Limits and sizes of one window. All times are seconds."""

    request: Request  #: the class of the run's items
    batch_size: int | None = None  #: items a batch; None: by measured durations
    group: int | None = None  #: items a call of the workload; batches are multiples of it
    idempotent: bool = True  #: False: no item is sent twice, every failure is final
    errors: str = "record"  #: or "raise": stop at the first final failure
    max_failures: int | float | None = None  #: stop when more fail: a number, or as a float a share of ended items from 100 on
    first_number: int = 1  #: of the batches
    max_items: int = 10_000  #: a batch, where ``batch_size`` is None
    max_bytes: int = 1_000_000  #: of inputs through the graph, a batch
    probes: int = 16  #: batches of one item before anything is measured; more when none ends within ``probe_wait``
    probe_wait: float = 1.0
    growth: int = 8  #: a batch is at most so many times larger than the largest that ended
    floor_seconds: float = 0.25  #: no batch is cut shorter than this at the tail
    short_seconds: float = 1.0  #: a batch, in short runs ...
    usual_seconds: float = 5.0  #: ... at most, in usual ones ...
    long_seconds: float = 30.0  #: ... and in long ones
    second_below: float = 2.0  #: a slot gets a second batch when batches are shorter than this
    twins: bool = True  #: whether a batch that takes far longer than expected gets a twin
    twin_factor: float = 3.0  #: times what its items were expected to take ...
    twin_after: float = 5.0  #: ... and so many seconds at least
    batches_per_second: float | None = None  #: at most so many in the whole run, where storage counts requests
    max_retrying: int = 100_000  #: items waiting for another attempt; more stop the intake
    max_ready: int = 200_000  #: items taken from the plan and not sent yet
    max_ready_bytes: int = 64_000_000
    alike_share: float = 0.95  #: pause when so many of the last ``alike_items`` attempts failed with one error
    alike_items: int = 200
    pause_first: float = 1.0
    pause_longest: float = 60.0
    pause_probes: int = 3  #: failed probes after which failures that waiting does not heal are taken as they are
    grace: float = 10.0  #: after a stop, how long receipts of batches that had started are waited for
    setup_failures: int = 3  #: in a row end the run
    ageing: float | None = None  #: after which a class that waits gains one level of priority; None: it never does
    limits: Mapping[str, Quota] = field(default_factory=dict)  #: what there is of what ``Request.uses`` names


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Where the items of a window are."""

    offered: int = 0  #: all items that came from the plan
    ready: int = 0  #: waiting for a slot
    retrying: int = 0  #: waiting for their next attempt: in back-off
    running: int = 0  #: in batches in flight
    batches: int = 0  #: batches in flight
    succeeded: int = 0
    failed: int = 0  #: finally
    failed_by_kind: Mapping[str, int] = field(default_factory=dict)
    retries: int = 0  #: attempts that failed and were or will be tried again
    losses: int = 0  #: batches that were lost
    cancelled: int = 0  #: left without an outcome by a stop
    rows: int = 0
    seconds: float = 0.0  #: sum of the durations of ended items
    remaining: int | None = None  #: items still in the plan, where known
    exhausted: bool = False
    paused: bool = False
    ending: str = ""  #: code of the stop under way

    @property
    def ended(self) -> int:
        """Items with a final outcome."""
        return self.succeeded + self.failed
