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
    adopted: int = 0  #: batches that an earlier driver's workers wrote, and nobody had committed
    rows: int = 0  #: rows of results added in this run
    seconds: float = 0.0
    left: int = 0  #: items met without a final outcome, in a run that ended early

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
        if self.skipped_failed:
            count = sum(self.skipped_failed.values())
            lines.append(f"  {count:,} failed before and stay so: {_by_kind(self.skipped_failed)}; retry_failed=True runs them again")
        if self.kept_changed:
            lines.append(
                f"  {self.kept_changed:,} finished items were made by an older form of the function and are kept; "
                'redo them with version="code", or declare version='
            )
        for what, count in self.kept.items():
            lines.append(f'  {count:,} finished items are kept although their {what} changed (on_change="keep")')
        if self.redone:
            lines.append(f"  {self.redone:,} were done again because their input, params, seed or version changed")
        if self.doubled:
            lines.append(f"  {self.doubled:,} inputs were given more than once and counted once")
        if self.adopted:
            lines.append(f"  {self.adopted:,} batches written by an earlier run's workers were adopted")
        if self.left:
            lines.append(f"  {self.left:,} items are left; the same line again goes on")
        return lines

    def _headline(self) -> str:
        if self.state == "finished" and not (self.executed or self.skipped or self.skipped_failed):
            return "there were no inputs"
        if self.state == "finished" and not self.executed:
            return f"up to date, {self.skipped:,} items done before"
        rate = self.executed / self.seconds if self.seconds > 0 else 0.0
        before = f", {self.skipped:,} done before" if self.skipped else ""
        return f"{self.state}: {self.succeeded:,} succeeded, {self.rows:,} rows{before}, in {self.seconds:.1f} s ({rate:,.1f} items/s)"


def _by_kind(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
