"""Rows of a dataset that travel by their place: whoever opens one reads the part that it lies in.

A part never changes, so a place in it is good as long as the part is there: vacuum keeps what compaction replaced for its retention time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dcompute.dataset.frames import to_pandas
from dcompute.dataset.parts import explained, source_of
from dcompute.dataset.produced import absolute, url_columns
from dcompute.dataset.reading import ByUrl
from dcompute.dataset.renames import Renames
from dcompute.dataset.schema import cast
from dcompute.dataset.store import Store

#: Rows that lie together and travel one by one nevertheless, since a pair takes more than they do.
_FEW = 2
#: Rows of a part: the number of one, or of the first of those that lie together and of the one after the last.
Place = int | tuple[int, int]


@dataclass(frozen=True, slots=True)
class Part:
    """A results part, and the columns of it that are wanted."""

    at: ByUrl
    name: str
    position: int  #: in the log
    schema: pa.Schema
    renames: Renames  #: of columns: the schema has the names of now
    size: int | None = None  #: bytes of all of it, where they are known

    @property
    def store(self) -> Store:
        """Where it lies."""
        return self.at.store


@dataclass(frozen=True, slots=True)
class Row:
    """One row; pickled and opened again it is a mapping of its columns."""

    part: Part
    place: int

    def __reduce__(self) -> tuple[Any, ...]:
        return mapping_at, (self.part, self.place)


@dataclass(frozen=True, slots=True)
class Table:
    """Some rows; pickled and opened again they are a pandas dataframe with Arrow's types."""

    places: tuple[tuple[Part, tuple[Place, ...]], ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return frame_at, (self.places,)


def mapping_at(part: Part, place: int) -> dict[str, Any]:
    """The row at a place.

    Raises
    ------
    DatasetError
        The part is gone or damaged.
    """
    row: dict[str, Any] = taken(part, (place,)).to_pylist()[0]
    return row


def frame_at(places: Sequence[tuple[Part, Sequence[Place]]]) -> Any:
    """The rows at some places; see :func:`mapping_at`."""
    return to_pandas(pa.concat_tables([taken(part, rows) for part, rows in places]))


def taken(part: Part, places: Sequence[Place]) -> pa.Table:
    """Rows of a part by their places, ascending; row groups that hold none of them are not read."""
    ends = _ends(part)
    groups: dict[int, list[Any]] = {}
    for place in places:
        start, stop = (place, place + 1) if isinstance(place, int) else place
        while start < stop:
            group = bisect_right(ends, start)
            begin, end = ends[group - 1] if group else 0, min(stop, ends[group])
            groups.setdefault(group, []).append(np.arange(start - begin, end - begin))
            start = end
    return pa.concat_tables([_group(part, group).take(pa.array(np.concatenate(rows))) for group, rows in groups.items()])


def together(rows: Any) -> tuple[Place, ...]:
    """The places of rows whose numbers an array of NumPy has, ascending; many that lie together are one place."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    begins, ends = rows[np.r_[0, breaks]].tolist(), (rows[np.r_[breaks - 1, -1]] + 1).tolist()
    found: list[Place] = []
    for start, stop in zip(begins, ends, strict=True):
        if stop - start > _FEW:
            found.append((start, stop))
        else:
            found.extend(range(start, stop))
    return tuple(found)


@lru_cache(maxsize=256)
def _ends(part: Part) -> list[int]:
    """After which row each row group ends."""
    with explained(part.store, part.name), source_of(part.store, part.name, size=part.size) as source:
        metadata = pq.read_metadata(source)
    return list(accumulate(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)))


# the items of a batch, and of the next one, mostly lie in one row group
@lru_cache(maxsize=2)
def _group(part: Part, group: int) -> pa.Table:
    with explained(part.store, part.name), source_of(part.store, part.name, size=part.size) as source:
        table = read_group(source, part, group)
    urls = url_columns(part.schema)
    return absolute(table, urls, part.store.url) if urls else table


def read_group(source: Any, part: Part, group: int | None) -> pa.Table:
    """One row group of a part, or all of it, in the columns and types that are wanted; files are named from the dataset on."""
    opened = pq.ParquetFile(source, pre_buffer=not isinstance(source, str))
    stored = part.renames.stored(opened.schema_arrow.names, part.position)
    now = {old: name for name, old in stored.items() if name in part.schema.names}
    table = opened.read(columns=list(now)) if group is None else opened.read_row_group(group, columns=list(now))
    if not now:
        return pa.table({field.name: pa.nulls(table.num_rows, field.type) for field in part.schema}, schema=part.schema)
    return cast(table.rename_columns([now[name] for name in table.column_names]), part.schema)
