"""When a run stops because too much failed, and when it pauses because everything fails alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from dcompute.records import Failure, Kind
from dcompute.window.settings import WindowConfig

#: Failed probes after which a pause is given up; None: it lasts until one item succeeds, because waiting may heal it. Missing files get
#: about five minutes (a mount may come back); what else fails alike gets ``pause_probes``.
_PATIENCE: Mapping[str, int | None] = {Kind.TRANSIENT: None, Kind.INFRASTRUCTURE: None, Kind.RECOVERABLE: 10}
#: A share of failures is judged from so many ended items on.
_JUDGED_FROM = 100

Signature = tuple[str, str]


def too_many(config: WindowConfig, failed: int, ended: int) -> str:
    """Why a run has to stop; empty where it has not."""
    limit = config.max_failures
    if limit is None:
        return ""
    if isinstance(limit, float):
        if ended < _JUDGED_FROM or failed <= limit * ended:
            return ""
        return f"{failed:,} of {ended:,} ended items failed, more than max_failures={limit:g} allows"
    items = "1 item" if failed == 1 else f"{failed:,} items"
    return f"{items} failed, more than max_failures={limit:,} allows" if failed > limit else ""


class Alike:
    """The last attempts: whether nearly all of them failed with one error."""

    def __init__(self, config: WindowConfig) -> None:
        self._config = config
        self._last: deque[tuple[Signature | None, int]] = deque()
        self._length = 0

    def ended(self, succeeded: int, failures: tuple[Failure, ...]) -> None:
        """Add the attempts of one batch."""
        room = self._config.alike_items
        if succeeded:
            self._add(None, min(succeeded, room))
        for failure in failures[-room:]:
            self._add((failure.kind, failure.error), 1)
        while self._length > room:
            signature, count = self._last.popleft()
            cut = min(count, self._length - room)
            self._length -= cut
            if cut < count:
                self._last.appendleft((signature, count - cut))

    def verdict(self) -> Signature | None:
        """The kind and error that nearly all have; None where there is no such error, or too few attempts to tell."""
        if self._length < self._config.alike_items:
            return None
        counts: dict[Signature, int] = {}
        for signature, count in self._last:
            if signature is not None:
                counts[signature] = counts.get(signature, 0) + count
        worst = max(counts, key=lambda signature: counts[signature], default=None)
        return worst if worst is not None and counts[worst] >= self._config.alike_share * self._length else None

    def forget(self) -> None:
        """Start again from nothing."""
        self._last.clear()
        self._length = 0

    def _add(self, signature: Signature | None, count: int) -> None:
        self._length += count
        if self._last and self._last[-1][0] == signature:
            self._last[-1] = (signature, self._last[-1][1] + count)
        else:
            self._last.append((signature, count))


class Pause:
    """A pause: nothing but one probe at a time goes out, with longer and longer waits between them."""

    def __init__(self, config: WindowConfig) -> None:
        self._config = config
        self._alike = Alike(config)
        self._accepted: set[Signature] = set()
        self._failed = 0
        self.why: Signature | None = None  #: the error that the pause is for; None: there is no pause
        self.probe: int | None = None  #: the batch that probes
        self.due: float | None = None  #: when the next may go out; None: now

    def ended(self, number: int, succeeded: int, failures: tuple[Failure, ...], now: float) -> tuple[str, str] | None:
        """Add the attempts of one batch (none: it was lost); the code and text of a notice where the pause begins or ends."""
        self._alike.ended(succeeded, failures)
        if self.why is None:
            why = self._alike.verdict() if failures else None
            return None if why is None or why in self._accepted else self._begin(why, now)
        if number != self.probe:
            return None
        return self._resume() if succeeded else self._wait(self.why, now)

    def _begin(self, why: Signature, now: float) -> tuple[str, str]:
        self.why, self.probe, self._failed = why, None, 0
        self.due = now + self._config.pause_first
        items, (kind, error) = self._config.alike_items, why
        return "paused", (
            f"Nearly all of the last {items} attempts failed with {error} ({kind}). The run pauses and tries single items, "
            f"with waits of up to {self._config.pause_longest:g} s. {_advice(kind)}"
        )

    def _wait(self, why: Signature, now: float) -> tuple[str, str] | None:
        self.probe, self._failed = None, self._failed + 1
        kind, error = why
        patience = _PATIENCE.get(kind, self._config.pause_probes)
        if patience is not None and self._failed >= patience:
            self._accepted.add(why)
            self._end()
            return "pause-given-up", f"{error} ({kind}) does not heal by waiting: the run goes on, and such items end as failed."
        # The exponent is bounded because a float overflows.
        self.due = now + min(self._config.pause_longest, self._config.pause_first * 2.0 ** min(self._failed, 30))
        return None

    def _resume(self) -> tuple[str, str]:
        self._end()
        return "resumed", "An item succeeded: the run goes on."

    def _end(self) -> None:
        self.why, self.probe, self.due = None, None, None
        self._alike.forget()


def _advice(kind: str) -> str:
    if kind in _PATIENCE:
        return "If a service, a licence or a file system is down, nothing is lost: the run goes on by itself when it is back."
    return "If the workload is wrong, cancel, correct it and run the same line with retry_failed=True."
