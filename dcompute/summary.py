"""What a run did, as figures and as the text that a person reads at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What one run did so far; ``str()`` of it is the text shown at the end."""

    run: str
    dataset: str  #: URL
    workload: str
    state: str  #: waiting, running, finished, cancelled or failed
    succeeded: int = 0  #: items that succeeded in this run
    failed: int = 0  #: items whose failure is final in this run
    failed_by_kind: Mapping[str, int] = field(default_factory=dict)
    skipped: int = 0  #: items that had succeeded before
    skipped_failed: Mapping[str, int] = field(default_factory=dict)  #: items that had failed finally before, by kind
    doubled: int = 0  #: inputs with the key and value of another one
    kept_changed: int = 0  #: items finished by an older form of the function, and kept
    kept: Mapping[str, int] = field(default_factory=dict)  #: finished items kept although this changed: ``on_change="keep"``
    redone: int = 0  #: items executed again because their input, params, seed or version changed
    unsettled: int = 0  #: inputs that changed a moment ago, left for the next run
    gone: int = 0  #: items of the dataset that are no input any more, where the inputs were read to their end
    dropped: int = 0  #: of them: hidden in this run
    adopted: int = 0  #: batches that an earlier driver's workers wrote, and nobody had committed
    rows: int = 0  #: rows of results added in this run
    quarantined: int = 0  #: rows and inputs that did not pass a check in this run
    seconds: float = 0.0
    requests: int = 0  #: to an object store, by driver and workers; 0 for a dataset on a disk
    left: int = 0  #: items met without a final outcome, in a run that ended early
    why_none: str = ""  #: where there were no inputs: what to look at

    @property
    def executed(self) -> int:
        """Items with a final outcome from this run."""
        return self.succeeded + self.failed

    @property
    def all_succeeded(self) -> bool:
        """Whether no item is known to have failed, now or before, and none was left."""
        return not (self.failed or self.left or sum(self.skipped_failed.values())) and self.state == "finished"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        lines = [f"{self.workload} -> {self.dataset}: {self._headline()}"]
        if self.failed:
            lines.append(f"  {self.failed:,} failed: {_by_kind(self.failed_by_kind)}; see failures()")
        lines += self._refused()
        if self.kept_changed:
            older = "made by an older form of the function and"
            made = counted(
                self.kept_changed, f"finished item was {older} is kept; redo it", f"finished items were {older} are kept; redo them"
            )
            lines.append(f'  {made} with version="code", or declare version=')
        lines += [f"  {line}" for line in self._of_inputs()]
        if self.adopted:
            lines.append(
                f"  {counted(self.adopted, 'batch of an earlier run was', 'batches of earlier runs were')} found written and adopted"
            )
        if self.requests:
            rate = f" ({self.requests / self.seconds:,.1f}/s)" if self.seconds > 0 else ""
            lines.append(f"  {counted(self.requests, 'request')} to storage{rate}")
        if self.left:
            lines.append(f"  {counted(self.left, 'item is', 'items are')} left; the same line again goes on")
        return lines

    def _of_inputs(self) -> list[str]:
        lines = []
        for what, count in self.kept.items():
            kept = counted(count, f"finished item is kept although its {what}", f"finished items are kept although their {what}")
            lines.append(f'{kept} changed (on_change="keep")')
        if self.redone:
            again = counted(self.redone, "was done again because its", "were done again because their")
            lines.append(f"{again} input, params, seed or version changed")
        if self.unsettled:
            left = counted(self.unsettled, "input changed a moment ago and is", "inputs changed a moment ago and are")
            lines.append(f"{left} left for the next run")
        if self.dropped:
            lines.append(
                counted(self.dropped, "item is no input any more and was dropped", "items are no inputs any more and were dropped")
            )
        if self.doubled:
            lines.append(f"{counted(self.doubled, 'input was', 'inputs were')} given more than once and counted once")
        return lines

    def _refused(self) -> list[str]:
        lines = []
        if self.quarantined:
            did = counted(self.quarantined, "record did not pass a check and is", "records did not pass a check and are")
            lines.append(f"  {did} in the quarantine; see quarantine()")
        if self.skipped_failed:
            count = sum(self.skipped_failed.values())
            stay = counted(count, "failed before and stays so", "failed before and stay so")
            lines.append(f"  {stay}: {_by_kind(self.skipped_failed)}; retry_failed=True runs {'it' if count == 1 else 'them'} again")
        return lines

    def _headline(self) -> str:
        if self.state == "finished" and not (self.executed or self.skipped or self.skipped_failed):
            return f"there were no inputs{': ' if self.why_none else ''}{self.why_none}"
        if self.state == "finished" and not self.executed:
            return f"up to date, {counted(self.skipped, 'item')} done before"
        rate = self.executed / self.seconds if self.seconds > 0 else 0.0
        before = f", {self.skipped:,} done before" if self.skipped else ""
        rows = counted(self.rows, "row")
        return f"{self.state}: {self.succeeded:,} succeeded, {rows}{before}, in {self.seconds:.1f} s ({rate:,.1f} items/s)"


def counted(count: int, one: str, several: str | None = None) -> str:
    """A number with its noun, or the words that agree with it: ``1 item``, ``1,200 items``."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def _by_kind(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
