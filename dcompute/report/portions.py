"""A mergeable report: what changed of its first source is computed, and joined or combined with what stays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dcompute.dataset.names import new_id
from dcompute.dataset.schema import from_text
from dcompute.report.combining import Combine
from dcompute.report.computing import Job, Result, call_all
from dcompute.report.incremental import Plan, all_of, some_of
from dcompute.report.making import Made, Making, broken_in
from dcompute.report.publishing import folder_of
from dcompute.report.sources import Taken
from dcompute.report.units import Units
from dcompute.report.versions import Portion, summed


@dataclass(slots=True)
class InPortions:
    """Makes a version in portions."""

    making: Making
    taken: Mapping[str, Taken]
    first: str  #: name of the source that is taken in portions
    units: Units
    reason: str  #: why all must be computed; "": it need not

    def make(self) -> Made:
        """Everything that the next version has."""
        plan, known = self._plan()
        base = self.making.base
        before = base.portions if base is not None and not plan.reason else ()
        merged = [before[index] for index in plan.merge]
        frames = [self._frames(names) for names in plan.compute]
        jobs = [self._job(each) for each in frames]
        if merged:
            jobs.append(self._merging(merged))
        by_key = self.making.report.combine is not None
        target = self.making.target
        results = self.making.carried_out(jobs, target.bare() if by_key else target)
        fresh = self._fresh(plan, frames, results)
        if merged:
            names = [name for index in plan.merge for name in known[index]]
            fresh.append(self._portion(results[-1], names, summed(one.rows_in for one in merged), summed(one.dropped for one in merged)))
        self.making.step("compute")
        portions = (*(before[index] for index in plan.stay), *fresh)
        made = self._combined(portions, results, bool(before)) if by_key else self._joined(portions, results, bool(before))
        made.portions, made.computed, made.reason = portions, len(plan.compute), plan.reason
        made.rows_in = self._rows_in(portions)
        return made

    def _plan(self) -> tuple[Plan, list[list[str]]]:
        units, base = self.units, self.making.base
        if self.reason or base is None:
            return all_of(units.names(), units.weight, self.reason), []
        store, since = self.making.report.shelf.store, base.sources[self.first][0].number
        known: list[list[str]] = [json.loads(store.read(portion.units)) for portion in base.portions]
        added = units.added(since, frozenset(name for names in known for name in names))
        changed = self._changed(since, known) if added is not None else None
        if added is None or changed is None:
            return all_of(units.names(), units.weight, f"parts of {self.first} were compacted and vacuumed, or rows released, since"), []
        return some_of(known, changed, added, known=units.known, weight=units.weight), known

    def _changed(self, since: int, known: Sequence[Sequence[str]]) -> list[bool] | None:
        looks = self.units.look(since, known)
        answers = [look.answer for look in looks]
        if any(answer is None for answer in answers):
            answers = call_all(self.making.compute, looks)
        return None if any(answer is None for answer in answers) else [bool(answer) for answer in answers]

    def _frames(self, names: Sequence[str]) -> dict[str, Taken]:
        return {**self.taken, self.first: replace(self.taken[self.first], reading=self.units.reading(names))}

    def _job(self, frames: Mapping[str, Taken]) -> Job:
        report = self.making.report
        job = self.making.job({name: one.reading.to_dask() for name, one in frames.items()})
        return replace(job, function=report.combine.checked(report.name, job.function)) if isinstance(report.combine, Combine) else job

    def _merging(self, merged: Sequence[Portion]) -> Job:
        base = self.making.base
        assert base is not None
        schema = from_text(base.partial or base.schema)
        frame = self.making.frame_of([file for one in merged for file in one.files], schema)
        return Job(self.making.report.combine or _together, (frame,))

    def _fresh(self, plan: Plan, frames: Sequence[Mapping[str, Taken]], results: Sequence[Result]) -> list[Portion]:
        counts = self.making.counted([{self.first: each[self.first]} for each in frames])
        return [
            self._portion(result, names, count, result.dropped)
            for result, names, count in zip(results[: len(frames)], plan.compute, counts, strict=True)
        ]

    def _portion(self, result: Result, names: Sequence[str], rows_in: Mapping[str, int], dropped: Mapping[str, int]) -> Portion:
        name = f"{folder_of(self.making.number)}/{new_id()}.json"
        self.making.written.append(name)
        self.making.report.shelf.store.create(name, json.dumps(names).encode())
        return Portion(files=result.files, units=name, rows_in=rows_in, dropped=dropped)

    def _joined(self, portions: Sequence[Portion], results: Sequence[Result], goes_on: bool) -> Made:
        """What the portions hold is the result."""
        known = self.making.base.schema if goes_on and self.making.base is not None else ""
        return Made(
            files=tuple(file for one in portions for file in one.files),
            schema=self.making.common(results, known=known),
            rows_in={},
            dropped=summed(one.dropped for one in portions),
            broken=broken_in(results),
        )

    def _combined(self, portions: Sequence[Portion], results: Sequence[Result], goes_on: bool) -> Made:
        """The result is combined from what the portions hold."""
        report = self.making.report
        assert report.combine is not None
        known = self.making.base.partial if goes_on and self.making.base is not None else ""
        partial = self.making.common(results, known=known, promised=False)
        frame = self.making.frame_of([file for one in portions for file in one.files], partial)
        (result,) = self.making.carried_out([Job(report.combine, (frame,))], self.making.target)
        self.making.step("combine")
        return Made(
            files=result.files,
            schema=self.making.common([result]),
            rows_in={},
            dropped=summed([*(one.dropped for one in portions), result.dropped]),
            broken=broken_in([result]),
            partial=partial,
        )

    def _rows_in(self, portions: Sequence[Portion]) -> dict[str, int]:
        first = summed(one.rows_in for one in portions)
        (others,) = self.making.counted([{name: one for name, one in self.taken.items() if name != self.first}])
        return {name: {**first, **others}.get(name, 0) for name in self.taken}


def why_all(making: Making, taken: Mapping[str, Taken], first: str, *, full: bool) -> str:
    """Why nothing of the last version can stay; "" where it can."""
    base, report = making.base, making.report
    if base is None:
        return "it is the first version"
    if full:
        return "it was asked for"
    if base.digest != report.digest:
        return "what is declared changed"
    for name, one in taken.items():
        before = base.sources[name]
        if one.schema != base.columns[name]:
            return f"the columns of {name} changed"
        behind = report.sources[name].behind(before)
        if behind.reason or [place.url for place in before] != [place.url for place in one.places]:
            return f"{name} is not the same as before"
        if name != first and behind:
            return f"{name} changed"
    return ""


def _together(frame: Any) -> Any:
    return frame.repartition(npartitions=max(1, frame.npartitions // 8))
