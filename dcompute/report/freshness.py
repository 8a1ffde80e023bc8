"""Whether a report shows what its sources hold: up to date, behind, failed, or never run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dcompute.report.publishing import Failure
from dcompute.report.sources import Behind
from dcompute.report.versions import Version

State = Literal["never run", "up to date", "behind", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How fresh a report is; ``str()`` of it is for people."""

    report: str
    url: str
    state: State
    version: int | None = None  #: that counts
    published: float | None = None  #: seconds since 1970
    rows: int | None = None  #: of it
    commits: int = 0  #: of its sources, and of theirs, that it does not show
    seconds: float = 0.0  #: since the first of them
    reasons: tuple[str, ...] = ()  #: what else is not as it was
    failed_since: float | None = None  #: seconds since 1970
    failed_times: int = 0
    message: str = ""  #: of the last failure
    upstream: tuple[Freshness, ...] = ()  #: of the reports among its sources

    def __str__(self) -> str:
        return "\n".join([self._line(), *(f"  {reason}" for reason in self.reasons), *self._of_upstream()])

    def _line(self) -> str:
        behind = ""
        if self.commits:
            behind = f"behind by {self.commits:,} commit{'s' if self.commits != 1 else ''} and {_duration(self.seconds)}"
        state = behind if behind and self.state == "behind" else self.state
        if self.failed_since is not None:
            times = f", {self.failed_times:,} times" if self.failed_times > 1 else ""
            state += f" since {_time(self.failed_since)}{times}: {self.message}"
        parts = [f"{self.report}: {state}"]
        if self.version is not None and self.published is not None:
            parts.append(f"version {self.version} of {_time(self.published)} with {self.rows:,} rows counts")
        return "; ".join([*parts, behind] if behind and self.state == "failed" else parts)

    def _of_upstream(self) -> list[str]:
        return [f"  {line}" for one in self.upstream for line in str(one).splitlines()]


def freshness(
    version: Version | None,
    failure: Failure | None,
    found: Mapping[str, Behind],
    *,
    name: str,
    url: str,
    now: float,
    changed: str,
    upstream: Sequence[Freshness],
) -> Freshness:
    """What is to say of a report.

    Parameters
    ----------
    version
        That counts; None: none.
    failure
        The last one there was.
    found
        What each source has since.
    name, url
        Of the report.
    now
        Seconds since 1970.
    changed
        What of the report itself is not as it was.
    upstream
        Of the reports among the sources.
    """
    stale = [one for one in upstream if one.state != "up to date"]
    reasons = [*filter(None, [changed, *(one.reason for one in found.values())])]
    reasons += [f"its source {one.report} is not up to date" for one in stale]
    commits = sum(one.commits for one in found.values()) + sum(one.commits for one in stale)
    ages = [max(0.0, now - one.since) for one in found.values() if one.since is not None] + [one.seconds for one in stale]
    is_behind = version is None or commits > 0 or bool(reasons)
    next_number = version.number + 1 if version else 1
    failed = failure if failure is not None and is_behind and failure.number == next_number else None
    about = Freshness(report=name, url=url, state=_state(version, failed, is_behind), upstream=tuple(upstream))
    if version is not None:
        about = replace(
            about, version=version.number, published=version.published, rows=version.rows, commits=commits,
            seconds=max(ages, default=0.0), reasons=tuple(reasons),
        )  # fmt: skip
    if failed is not None:
        about = replace(about, failed_since=failed.since, failed_times=failed.times, message=failed.message)
    return about


def _state(version: Version | None, failed: Failure | None, is_behind: bool) -> State:
    if failed is not None:
        return "failed"
    if version is None:
        return "never run"
    return "behind" if is_behind else "up to date"


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
