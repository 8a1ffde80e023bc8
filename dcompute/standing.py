"""Where a run stands: the figures that others ask for while the driver works, and the error that an ending means."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from dcompute.dataset.explaining import Reason, Told
from dcompute.errors import ClusterError, DcomputeError, InitializerError, ItemError, RunCancelled, TooManyFailures
from dcompute.plan import Tally
from dcompute.progress import Snapshot
from dcompute.summary import Summary
from dcompute.window import Counts
from dcompute.window.waiting import words

if TYPE_CHECKING:
    from dcompute.assignment import Assignment
    from dcompute.flights import Flights
    from dcompute.ledger import Ledger
    from dcompute.plan import Plan
    from dcompute.window import End, Waiting, Window

#: The rate is that of the items which ended in this time (seconds): it follows changes, and does not jump with each batch.
RATE_SECONDS = 30.0


class Standing:
    """Figures of one run. Written by its driver, read by any thread: every field is replaced whole."""

    def __init__(self, assignment: Assignment) -> None:
        self.state = "waiting"
        self.ledger: Ledger | None = None
        self.plan: Plan | None = None
        self._assignment = assignment
        self._window: Window | None = None
        self._flights: Flights | None = None
        self.explained: dict[str, Any] = {}  #: what the last heartbeat said
        self._note = ""
        self._waits = ""
        self._began = time.monotonic()
        self._seconds: float | None = None
        self._requests: int | None = None
        self._ended_at: deque[tuple[float, int]] = deque(maxlen=1024)

    def watch(self, window: Window, flights: Flights) -> None:
        """Take figures from these from now on."""
        self._window, self._flights = window, flights
        self._ended_at.append((time.monotonic(), 0))

    def note(self, text: str) -> None:
        """What the run does or waits for; empty: nothing to say."""
        self._note = text

    def wait_for(self, text: str) -> None:
        """What of the run waits for workers while it goes on; empty: nothing."""
        if self._note in ("", self._waits):  # what was said of workers says more
            self._note = text
        self._waits = text

    def stop(self) -> None:
        """The run has ended: its time stands."""
        self._seconds = time.monotonic() - self._began
        self._requests = self._requests_so_far()
        self._note = ""

    def has_committed(self, place: int) -> bool:
        """Whether the dataset has batches from this place on."""
        return self.ledger is not None and self.ledger.batches > place

    def counts(self) -> dict[str, Any]:
        """Figures for the heartbeat."""
        counts = self._counts()
        if counts is None:
            return {}
        return {"succeeded": counts.succeeded, "failed": counts.failed, "retrying": counts.retrying, "running": counts.running}

    def beat(self, beside: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Figures for the heartbeat, and why what waits does; called on the driver's thread."""
        waiting = self._window.reasons() if self._window is not None and self.state == "running" else ()
        told = Told(note=self._note, reasons=[_reason(one) for one in waiting], beside=beside)
        self.explained = {**self.counts(), **told.to_json()}
        return self.explained

    def told(self) -> dict[str, Any]:
        """Figures that other runs, scalers and dashboards at the same scheduler may read."""
        return {"state": self.state, "counts": self.counts(), "rate": self.snapshot().rate}

    def snapshot(self) -> Snapshot:
        """Where the run is at this moment."""
        counts = self._counts()
        if counts is None:
            planned = self.plan.tally if self.plan is not None else Tally()
            failed = sum(planned.failed.values())
            return Snapshot(state=self.state, note=self._note, before=planned.succeeded + failed, before_failed=failed)
        done = counts.succeeded + (self._flights.finished_items if self._flights is not None else 0)
        total = None if counts.remaining is None and not counts.exhausted else counts.offered + (counts.remaining or 0)
        rate = self._rate(done + counts.failed)
        left = None if total is None or rate <= 0 else max(0.0, (total - done - counts.failed) / rate)
        return Snapshot(
            done=min(done, total) if total is not None else done,
            failed=counts.failed,
            retrying=counts.retrying,
            running=counts.running,
            total=total,
            rows=counts.rows,
            rate=rate,
            seconds_left=left,
            item=self._flights.said if self._flights is not None and self.state == "running" else "",
            note=self._note,
            state=self.state,
        )

    def summary(self) -> Summary:
        """What the run did so far."""
        counts, spec = self._counts() or Counts(), self._assignment.spec
        planned = self.plan.tally if self.plan is not None else Tally()
        return Summary(
            run=spec.run,
            dataset=self._assignment.store.url,
            workload=spec.workload,
            state=self.state,
            succeeded=counts.succeeded,
            failed=counts.failed,
            failed_by_kind=dict(counts.failed_by_kind),
            skipped=planned.succeeded,
            skipped_failed=dict(planned.failed),
            doubled=planned.doubled,
            kept_changed=planned.kept_changed,
            kept=dict(planned.kept),
            redone=planned.redone,
            unsettled=planned.unsettled,
            gone=planned.gone,
            dropped=self.ledger.dropped if self.ledger is not None else 0,
            adopted=self.ledger.adopted if self.ledger is not None else 0,
            rows=self.ledger.rows if self.ledger is not None else 0,
            quarantined=self.ledger.quarantined if self.ledger is not None else 0,
            requests=self._requests if self._requests is not None else self._requests_so_far(),
            seconds=self._seconds if self._seconds is not None else time.monotonic() - self._began,
            left=self._left(),
            why_none=self._assignment.source.why_none() if self.state == "finished" and self.plan is not None and not planned.met else "",
        )

    def _requests_so_far(self) -> int:
        of_workers = self.ledger.requests if self.ledger is not None else 0
        return self._assignment.store.requests + self._assignment.source.requests + of_workers

    def _left(self) -> int:
        """Items without an outcome when a run ended early: those met, and all inputs that were not looked at any more."""
        plan, counts = self.plan, self._counts()
        if plan is None or self.state in ("waiting", "running", "finished"):
            return 0
        met = plan.tally.todo - (counts.ended if counts else 0)
        unmet = (self._assignment.source.count or 0) - plan.tally.met
        return max(0, met) + max(0, unmet)

    def _counts(self) -> Counts | None:
        return self._window.counts() if self._window is not None else None

    def _rate(self, ended: int) -> float:
        now = time.monotonic()
        if not self._ended_at or now - self._ended_at[-1][0] > RATE_SECONDS / 256:
            self._ended_at.append((now, ended))
        while len(self._ended_at) > 1 and now - self._ended_at[0][0] > RATE_SECONDS:
            self._ended_at.popleft()
        since, before = self._ended_at[0]
        return (ended - before) / (now - since) if now > since else 0.0


def _reason(waiting: Waiting) -> Reason:
    seconds = None if waiting.until is None else max(0.0, waiting.until - time.monotonic())
    return Reason(asks=words(waiting.request), items=waiting.items, why=str(waiting.why), text=waiting.text, seconds=seconds)


def outcome_of(error: BaseException) -> Literal["cancelled", "failed"]:
    """How a run ended that this error ended."""
    return "cancelled" if isinstance(error, RunCancelled) else "failed"


def error_of(end: End, *, again: str) -> DcomputeError | None:
    """The error that the end of a window means for who waits; None where the work is done."""
    match end.code:
        case "cancelled":
            return RunCancelled(f"the run was cancelled ({end.text}). To go on, {again}")
        case "item":
            return _item_error(end)
        case "failures":
            return TooManyFailures(f"{end.text}. What is done is committed; failures() says what failed. To go on, {again}")
        case "initializer":
            return InitializerError(f"the set-up of the workload failed time after time, at last with:\n{end.text}")
        case "scratch":
            return ClusterError(f"no batch could be executed any more: {end.text}. What is done is committed. Then {again}")
    return None


def _item_error(end: End) -> ItemError:
    key = end.tried.item.key.text if end.tried is not None else ""
    attempt = end.tried.attempt if end.tried is not None else 0
    failure = end.failure
    if failure is None:
        return ItemError(end.text, key=key, attempt=attempt)
    text = f"item {key!r} failed at attempt {attempt} ({failure.kind}): {failure.error}: {failure.message}\n{failure.traceback}"
    return ItemError(text.rstrip(), key=key, attempt=attempt, kind=failure.kind, traceback=failure.traceback)
