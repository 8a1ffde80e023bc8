"""What was at work when: attempts and batches over time, counted in bins that grow with the time to be told.

A bin holds no list of attempts but two sums, from which the integral of "how many are at work" over any bin follows exactly. An attempt
that begins at ``s`` adds one to ``delta`` of its bin (from the bin's end on there is one more at work) and the time from ``s`` to that end
to ``area``; one that ends at ``e`` takes away the same. Two neighbouring bins make one of twice the width without loss: ``delta`` adds up,
and what began in the first of them was at work through all of the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dcompute.report import calls
from dcompute.report.calls import Calls, calls_of

#: Microseconds of the narrowest bin: a 64th of a second. Bins of level L are 2**L times as wide.
NARROWEST = 15_625

#: Bins of one run at most, and of all runs together about.
MOST_BINS, MOST_ROWS, FEWEST_BINS = 512, 60_000, 16

_COUNTS = ("ended", "failed", "rows")
#: busy: calls at work, which have one attempt each or several; held: batches at work, each in a slot; work: attempts that succeeded, each
#: at 1/duration of its call a second.
_LEVELS = ("busy", "held", "work")
_SUMS = (*_COUNTS, *(f"{name}_{part}" for name in _LEVELS for part in ("delta", "area")))
_FLOATS = ("work_delta", "work_area")


Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Timeline:
    """Bins of each run, or of each worker or host in each run; a tally."""

    by: tuple[str, ...] = ()  #: ``("worker",)`` or ``("host",)``

    @property
    def name(self) -> str:
        """Of the tally."""
        return "-".join(("timeline", *self.by))

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the attempts."""
        return ("run", *self.by, *calls.COLUMNS, "outcome", "rows")

    @property
    def keys(self) -> tuple[str, ...]:
        """What has a line of its own."""
        return ("run", *self.by)

    def count(self, attempts: pa.Table) -> pa.Table:
        """The bins of some attempts; those that never began are in none."""
        began = attempts.filter(pc.and_(pc.is_valid(attempts["started"]), pc.is_valid(attempts["duration"])))
        found = calls_of(began)
        events = pa.concat_tables([*self._of_attempts(began, found), *self._of_batches(began, found)])
        return self.merge([events])

    def merge(self, counted: Sequence[pa.Table]) -> pa.Table:
        """The bins of all."""
        table = pa.concat_tables(counted).combine_chunks()
        if not table.num_rows:
            return table
        return self._summed(_widened(table, self._levels(table)))

    def _of_attempts(self, table: pa.Table, found: Calls) -> list[pa.Table]:
        started, ended = _begin_and_end(table, found)
        succeeded = np.asarray(pc.equal(table["outcome"], "succeeded").fill_null(False))
        weight = np.where(succeeded, 1e6 / np.maximum(ended - started, 1), 0.0)
        rows = table["rows"].fill_null(0).to_numpy().astype(np.int64)
        one, call = np.ones(len(started), np.int64), found.leads.astype(np.int64)
        begins = self._events(table, started, {"busy": call, "work": weight}, {})
        ends = self._events(
            table, ended, {"busy": -call, "work": -weight}, {"ended": one, "failed": (~succeeded).astype(np.int64), "rows": rows}
        )
        return [begins, ends]

    def _of_batches(self, table: pa.Table, found: Calls) -> list[pa.Table]:
        started, ended = _begin_and_end(table, found)
        spans = table.select([*self.keys, "batch"]).append_column("began", pa.array(started)).append_column("ended", pa.array(ended))
        # whole batches lie in one partition: a batch is one file
        batches = spans.group_by([*self.keys, "batch"], use_threads=False).aggregate([("began", "min"), ("ended", "max")])
        one = np.ones(batches.num_rows, np.int64)
        return [
            self._events(batches, batches["began_min"].to_numpy(), {"held": one}, {}),
            self._events(batches, batches["ended_max"].to_numpy(), {"held": -one}, {}),
        ]

    def _events(self, table: pa.Table, at: Integers, levels: dict[str, npt.NDArray[Any]], counts: dict[str, npt.NDArray[Any]]) -> pa.Table:
        bin_ = at // NARROWEST
        left = (bin_ + 1) * NARROWEST - at
        columns: dict[str, npt.NDArray[Any]] = dict(counts)
        for name, change in levels.items():
            columns |= {f"{name}_delta": change, f"{name}_area": change * left}
        nothing = {name: np.zeros(len(at), np.float64 if name in _FLOATS else np.int64) for name in _SUMS if name not in columns}
        keys = {name: table[name].combine_chunks() for name in self.keys}
        places = {"level": np.zeros(len(at), np.int64), "bin": bin_, "first": at, "last": at}
        return pa.table({**keys, **places, **{name: (columns | nothing)[name] for name in _SUMS}})

    def _levels(self, table: pa.Table) -> Integers:
        """The level to which each row is brought: that of its run, so that the run has few bins and there are few rows in all."""
        run = table["run"].combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
        lines = len(table.group_by(list(self.keys)).aggregate([]))
        most = min(MOST_BINS, max(FEWEST_BINS, MOST_ROWS // max(lines, 1)))
        levels: Integers = _levels_for(run, table["level"].to_numpy(), table["bin"].to_numpy(), most)[run]
        return levels

    def _summed(self, table: pa.Table) -> pa.Table:
        keys = [*self.keys, "level", "bin"]
        asked = [*((name, "sum") for name in _SUMS), ("first", "min"), ("last", "max")]
        found = table.group_by(keys, use_threads=False).aggregate(asked)
        columns = {name: found[name] for name in keys} | {"first": found["first_min"], "last": found["last_max"]}
        return pa.table(columns | {name: found[f"{name}_sum"] for name in _SUMS})


def _begin_and_end(table: pa.Table, found: Calls) -> tuple[Integers, Integers]:
    """Of calls, in microseconds; one takes one at least."""
    started = table["started"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    duration = np.maximum(np.rint(found.seconds * 1e6), 1).astype(np.int64)
    return started, started + duration


def _levels_for(group: Integers, level: Integers, bin_: Integers, most: int) -> Integers:
    """The lowest level of each group at which it has at most so many bins from its first to its last, and no row has to be split."""
    count = int(group.max()) + 1
    first, last = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
    wanted = np.zeros(count, np.int64)
    np.minimum.at(first, group, bin_ << level)
    np.maximum.at(last, group, ((bin_ + 1) << level) - 1)
    np.maximum.at(wanted, group, level)
    while (too_many := (last >> wanted) - (first >> wanted) >= most).any():
        wanted += too_many
    return wanted


def _widened(table: pa.Table, levels: Integers) -> pa.Table:
    """The rows with bins of other levels, none lower than before."""
    level, bin_ = table["level"].to_numpy(), table["bin"].to_numpy()
    wider = bin_ >> (levels - level)
    gained = ((wider + 1) * (NARROWEST << levels)) - ((bin_ + 1) * (NARROWEST << level))
    columns = {name: table[name] for name in table.column_names} | {"level": pa.array(levels), "bin": pa.array(wider)}
    for name in _LEVELS:
        columns[f"{name}_area"] = pa.array(table[f"{name}_area"].to_numpy() + table[f"{name}_delta"].to_numpy() * gained)
    return pa.table(columns)


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a timeline, bin by bin without gaps."""

    keys: tuple[str | None, ...]  #: run, and worker or host
    begin: Integers  #: of each bin, in microseconds since 1970
    seconds: npt.NDArray[np.float64]  #: of each bin between the first begin and the last end
    ended: Integers  #: attempts
    failed: Integers  #: of them
    rows: Integers  #: of results
    busy: npt.NDArray[np.float64]  #: seconds in which calls were at work, added up over slots
    held: npt.NDArray[np.float64]  #: seconds in which batches were at work, added up over slots
    work: npt.NDArray[np.float64]  #: items done that succeeded, parts of items too


def lines(table: pa.Table, by: Sequence[str] = (), most: int = MOST_BINS) -> list[Line]:
    """The lines of a timeline, in the order of their begin.

    Parameters
    ----------
    table
        What a :class:`Timeline` counted.
    by
        Its ``by``.
    most
        Bins a run at most.
    """
    keys = ["run", *by]
    groups = table.select(keys).to_pandas().groupby(keys, dropna=False, sort=False).indices
    found = [_line(tuple(table[name][int(places[0])].as_py() for name in keys), table.take(places), most) for places in groups.values()]
    return sorted(found, key=lambda line: (int(line.begin[0]), str(line.keys)))


def _line(keys: tuple[str | None, ...], rows: pa.Table, most: int) -> Line:
    one = np.zeros(rows.num_rows, np.int64)
    levels = _levels_for(one, rows["level"].to_numpy(), rows["bin"].to_numpy(), most)[one]
    rows = _widened(rows, levels)
    bin_, width = rows["bin"].to_numpy(), NARROWEST << int(levels[0])
    first, count = int(bin_.min()), int(bin_.max() - bin_.min()) + 1
    sums = {name: np.bincount(bin_ - first, rows[name].to_numpy(), count) for name in _SUMS}
    begin = (np.arange(count, dtype=np.int64) + first) * width
    areas: dict[str, Any] = {}
    for name in _LEVELS:
        before = np.concatenate([[0.0], np.cumsum(sums[f"{name}_delta"])[:-1]])
        areas[name] = np.maximum(before * width + sums[f"{name}_area"], 0.0) / 1e6
    since, until = np.maximum(begin, rows["first"].to_numpy().min()), np.minimum(begin + width, rows["last"].to_numpy().max())
    counts: dict[str, Any] = {name: sums[name].astype(np.int64) for name in _COUNTS}
    return Line(keys=keys, begin=begin, seconds=np.maximum(until - since, 1) / 1e6, **counts, **areas)
