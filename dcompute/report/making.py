"""What a run of a report makes, step by step, before it is published."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dcompute.report.checks import Broken, RowCheck, WholeCheck, check_whole, first_broken
from dcompute.report.computing import Compute, Job, Result, Target, call_all, carry_out
from dcompute.report.publishing import folder_of
from dcompute.report.rows import reading
from dcompute.report.sources import Taken
from dcompute.report.units import rows_of
from dcompute.report.versions import File, Portion, Step, Version
from dcompute.report.writing import common_schema

if TYPE_CHECKING:
    from dcompute.report.report import Report


@dataclass(slots=True, kw_only=True)
class Made:
    """What was made: files, and all that a version says of them."""

    files: tuple[File, ...]
    schema: pa.Schema
    rows_in: Mapping[str, int]
    dropped: Mapping[str, int]
    broken: tuple[Broken, ...] = ()
    partial: pa.Schema | None = None
    portions: tuple[Portion, ...] = ()
    computed: int = 1
    reason: str = ""

    @property
    def rows(self) -> int:
        """Of the result."""
        return sum(file.rows for file in self.files)


@dataclass(slots=True)
class Making:
    """The means of one run."""

    report: Report
    base: Version | None  #: the version that counts
    compute: Compute
    written: list[str] = field(default_factory=list)  #: names of files that no version names yet
    steps: list[Step] = field(default_factory=list)
    _last: float = field(default_factory=time.perf_counter)

    @property
    def number(self) -> int:
        """Of the version that it makes."""
        return 1 if self.base is None else self.base.number + 1

    @property
    def target(self) -> Target:
        """Where the result goes."""
        report = self.report
        checks = tuple(check for check in report.checks if isinstance(check, RowCheck))
        return Target(report.name, report.shelf.store, folder_of(self.number), report.schema, checks)

    def whole(self, taken: Mapping[str, Taken]) -> Made:
        """Everything, in one piece."""
        (result,) = self.carried_out([self.job({name: one.reading.to_dask() for name, one in taken.items()})], self.target)
        (rows_in,) = self.counted([taken])
        self.step("compute")
        return Made(files=result.files, schema=self.common([result]), rows_in=rows_in, dropped=result.dropped, broken=broken_in([result]))

    def job(self, frames: Mapping[str, Any]) -> Job:
        """The report's function, applied to its sources."""
        report = self.report
        return Job(report.function, named=frames) if report.by_name else Job(report.function, tuple(frames.values()))

    def carried_out(self, jobs: Sequence[Job], target: Target) -> list[Result]:
        """What jobs give, written."""
        results = carry_out(jobs, target, self.compute)
        self.written += [file.name for result in results for file in result.files]
        return results

    def counted(self, each: Sequence[Mapping[str, Taken]]) -> list[dict[str, int]]:
        """Rows of sources that count."""
        counts = [(index, name, one) for index, taken in enumerate(each) for name in taken for one in rows_of(taken[name].reading)]
        totals: list[dict[str, int]] = [dict.fromkeys(taken, 0) for taken in each]
        for (index, name, _), answer in zip(counts, call_all(self.compute, [one for _, _, one in counts]), strict=True):
            totals[index][name] += answer
        return totals

    def common(self, results: Sequence[Result], *, known: str = "", promised: bool = True) -> pa.Schema:
        """The schema of what was written, and of what stays."""
        texts = [(one.schema, one.file.rows if one.file is not None else 0) for result in results for one in result.written]
        return common_schema(self.report.name, [(known, 1), *texts] if known else texts, self.report.schema if promised else None)

    def frame_of(self, files: Sequence[File], schema: pa.Schema) -> Any:
        """Files of this report as a Dask dataframe."""
        return reading(self.report.shelf.store, schema, files, self.report.name).to_dask()

    def check(self, made: Made) -> None:
        """Look whether the result keeps what is promised.

        Raises
        ------
        ReportError
            It does not.
        """
        broken = list(made.broken)
        if self.report.balanced and not broken:
            broken += _imbalance(made)
        for check in self.report.checks:
            if isinstance(check, WholeCheck) and not broken:
                found = check_whole(self.report.name, check, self.frame_of(made.files, made.schema), self.compute)
                broken += [found] if found is not None else []
        error = first_broken(self.report.name, broken)
        self.step("check")
        if error is not None:
            raise error

    def step(self, name: str) -> None:
        """A step has ended."""
        now = time.perf_counter()
        self.steps.append(Step(step=name, seconds=round(now - self._last, 3)))
        self._last = now


def broken_in(results: Sequence[Result]) -> tuple[Broken, ...]:
    """What checks of rows said."""
    return tuple(broken for result in results for one in result.written for broken in one.broken)


def _imbalance(made: Made) -> list[Broken]:
    came, left = next(iter(made.rows_in.values())), sum(made.dropped.values())
    if came == made.rows + left:
        return []
    return [Broken("balanced", None, f"{came:,} rows in, {made.rows:,} out and {left:,} dropped with a reason")]
