"""Tallies: what is counted in each partition of the attempts, and how the counts of several partitions become one.

A report looks at every row once, in the process that read it; what leaves that process is a small table. The tables meet in a tree, so that
no process ever holds more than a partition and a handful of small tables, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

#: Stands for the groups that were too many to be told one by one.
OTHERS = "(others)"

#: So many tables meet at once.
_FAN_IN = 8

Counted = Mapping[str, pa.Table]


class Tally(Protocol):
    """Something that is counted: partition by partition, in any order of partitions."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the attempts that it looks at."""
        ...

    def count(self, attempts: pa.Table) -> pa.Table:
        """What there is in some attempts."""
        ...

    def merge(self, counted: Sequence[pa.Table]) -> pa.Table:
        """What there is in all, from what there is in each; the result can be merged again."""
        ...


@dataclass(frozen=True)
class Groups:
    """Sums and extremes of groups of attempts.

    More than ``most`` groups are not told apart: the rarest ones are added up under :data:`OTHERS`, sums stay exact.
    """

    name: str
    columns: tuple[str, ...]
    prepare: Callable[[pa.Table], pa.Table]  #: a row of the groups' columns for each attempt, or several, or none
    keys: tuple[str, ...]
    sums: tuple[str, ...] = ("attempts",)  #: the first of them says how frequent a group is
    mins: tuple[str, ...] = ()
    maxs: tuple[str, ...] = ()
    firsts: tuple[str, ...] = ()  #: of any row of the group
    fold: tuple[str, ...] = ()  #: keys whose values give way to OTHERS where groups are too many
    most: int = 20_000

    def count(self, attempts: pa.Table) -> pa.Table:
        """The groups of some attempts."""
        return self._bounded(self._grouped(self.prepare(attempts)))

    def merge(self, counted: Sequence[pa.Table]) -> pa.Table:
        """The groups of all."""
        return self._bounded(self._grouped(pa.concat_tables(counted)))

    def by(self, counted: pa.Table, keys: Sequence[str]) -> pa.Table:
        """The groups of fewer keys, in their order."""
        found = replace(self, keys=tuple(keys))._grouped(counted)
        return found.sort_by([(name, "ascending") for name in keys]) if keys else found

    def _grouped(self, table: pa.Table) -> pa.Table:
        asked = {"sum": self.sums, "min": self.mins, "max": self.maxs, "first": self.firsts}
        # "first" is only defined in one thread
        found = table.group_by(list(self.keys), use_threads=False).aggregate(
            [(name, how) for how, names in asked.items() for name in names]
        )
        columns = {name: found[name] for name in self.keys}
        return pa.table(columns | {name: found[f"{name}_{how}"] for how, names in asked.items() for name in names})

    def _bounded(self, table: pa.Table) -> pa.Table:
        if table.num_rows <= self.most or not self.fold:
            return table
        # half of them at once, so that not every partition comes here again
        order = pc.sort_indices(table, [(self.sums[0], "descending"), *((name, "ascending") for name in self.keys)])
        kept, rest = order.slice(0, self.most // 2), order.slice(self.most // 2)
        folded = table.take(rest)
        for name in self.fold:
            at = folded.schema.get_field_index(name)
            folded = folded.set_column(at, folded.schema.field(at), pa.array([OTHERS] * folded.num_rows, folded.schema.field(at).type))
        return self._grouped(pa.concat_tables([table.take(kept), folded]))


def gather(frame: Any, tallies: Sequence[Tally]) -> dict[str, pa.Table]:
    """What tallies find in a lazy Dask dataframe of attempts, by their names; every row is read once.

    It is computed on the cluster of the ``Client`` that exists, else in threads here.

    Parameters
    ----------
    frame
        Of attempts, with the columns that the tallies look at.
    tallies
        What to count.
    """
    import dask

    kinds = tuple(tallies)
    columns = list(dict.fromkeys(name for tally in kinds for name in tally.columns))
    parts = frame[columns].map_partitions(_count, kinds, meta=_boxed({}).iloc[:0]).to_delayed()
    merge = dask.delayed(_merge)
    while True:
        parts = [merge(list(parts[start : start + _FAN_IN]), kinds) for start in range(0, len(parts), _FAN_IN)]
        if len(parts) == 1:
            break
    (box,) = dask.compute(parts[0])
    found: dict[str, pa.Table] = box["counted"].iloc[0]
    return found


def tallied(tables: Sequence[pa.Table], tallies: Sequence[Tally]) -> dict[str, pa.Table]:
    """What tallies find in tables of attempts, here and now; see :func:`gather`."""
    return {tally.name: tally.merge([tally.count(table) for table in tables]) for tally in tallies}


def _count(attempts: Any, tallies: Sequence[Tally]) -> Any:
    table = pa.Table.from_pandas(attempts, preserve_index=False).combine_chunks()
    return _boxed({tally.name: tally.count(table) for tally in tallies})


def _merge(boxes: Sequence[Any], tallies: Sequence[Tally]) -> Any:
    counted = [box["counted"].iloc[0] for box in boxes]
    return _boxed({tally.name: tally.merge([one[tally.name] for one in counted]) for tally in tallies})


def _boxed(counted: dict[str, pa.Table]) -> Any:
    """As a dataframe, which is what partitions are."""
    import pandas as pd

    return pd.DataFrame({"counted": pd.Series([counted], dtype=object)})
