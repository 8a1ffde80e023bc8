"""The rows of one results part as they lie in it: the columns and row groups that are asked for, no others."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from itertools import combinations
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from dcompute.dataset.filters import Filter
from dcompute.dataset.parts import explained, source_of
from dcompute.dataset.pieces import File
from dcompute.dataset.renames import Renames
from dcompute.dataset.store import Store

# up to here one request for all of a file is quicker than one for its footer and one for each column
_WHOLE_BYTES = 4 << 20
# several threads decode what is larger; for less, starting them is the work
_THREADED_BYTES = 1 << 20
# columns that may each be NaN or not: so many make 15 cases
_MOST_FLOATS = 4
_NONE = Renames()


def fetch(store: Store, file: File, wanted: pa.Schema, *, where: Filter | None = None, renames: Renames = _NONE) -> pa.Table:
    """Those of some columns that a results part has, in its own types; row groups that cannot hold a row of ``where`` are left out.

    Parameters
    ----------
    store
        The dataset's.
    file
        The part, and its share of it.
    wanted
        Columns, those of ``where`` among them; absent ones are left out. Where a part has another type for a column of ``where``, its
        statistics are not asked.
    where
        Which rows are wanted; rows of other kinds may come too.
    renames
        Of columns: ``wanted`` has the names of now.

    Raises
    ------
    DatasetCorruptError
        It is gone, or no Parquet file.
    """
    with explained(store, file.name), _source(store, file) as source:
        return _read(source, file, wanted, where, renames)


def _source(store: Store, file: File) -> AbstractContextManager[Any]:
    if not store.is_local and file.share == (0, 1) and file.size <= _WHOLE_BYTES:
        return io.BytesIO(store.read(file.name))
    return source_of(store, file.name)


def _read(source: Any, file: File, wanted: pa.Schema, where: Filter | None, renames: Renames) -> pa.Table:
    opened = pq.ParquetFile(source, pre_buffer=not isinstance(source, (str, io.BytesIO)))
    present = opened.schema_arrow.names
    stored = renames.stored(present, file.position)
    names = [stored[name] for name in wanted.names if name in stored]
    index, shares = file.share
    groups = [group for group in range(opened.num_row_groups) if group * shares // opened.num_row_groups == index]
    if where is not None:
        groups = _that_may_match(source, opened, groups, wanted, where=where, stored=stored)
    use_threads = file.size > _THREADED_BYTES
    if len(groups) == opened.num_row_groups:
        table = opened.read(columns=names, use_threads=use_threads)
    else:
        table = opened.read_row_groups(groups, columns=names, use_threads=use_threads)
    if not renames:
        return table
    now = {old: name for name, old in stored.items()}
    return table.rename_columns([now[name] for name in table.column_names])


def _that_may_match(
    source: Any, opened: pq.ParquetFile, groups: list[int], wanted: pa.Schema, *, where: Filter, stored: Mapping[str, str]
) -> list[int]:
    """Those of the row groups whose statistics do not say that no row of them is wanted."""
    physical = opened.schema_arrow
    if not groups or any(name not in stored or physical.field(stored[name]).type != wanted.field(name).type for name in where.names):
        return groups
    floats = [name for name in where.names if _holds_floats(wanted.field(name).type)]
    if len(floats) > _MOST_FLOATS or not all(pa.types.is_floating(wanted.field(name).type) for name in floats):
        return groups
    # it reads the footer once more, which the page cache has, or the buffer
    fragment = pads.ParquetFileFormat().make_fragment(source, LocalFileSystem() if isinstance(source, str) else None)
    try:
        kept = _within_bounds(fragment, groups, wanted, where, stored) | _with_nan(fragment, groups, wanted, where, stored, floats=floats)
    except pa.ArrowException:
        # it cannot be asked of these bounds: whether it can of the rows is for the filter to say
        return groups
    return [group for group in groups if group in kept]


def _within_bounds(fragment: Any, groups: list[int], wanted: pa.Schema, where: Filter, stored: Mapping[str, str]) -> set[int]:
    """The row groups of which a row between the bounds may be wanted."""
    if any(stored[name] != name for name in where.names):
        return {group for group in groups if _may_match(_statistics(fragment, group), wanted, where, stored)}
    return {group.id for group in fragment.subset(where.expression, schema=fragment.physical_schema).row_groups}


def _with_nan(
    fragment: Any, groups: list[int], wanted: pa.Schema, where: Filter, stored: Mapping[str, str], *, floats: list[str]
) -> set[int]:
    """The row groups of which a row with NaN may be wanted: statistics know nothing of NaN, which is between no bounds."""
    several = [chosen for count in range(len(floats)) for chosen in combinations(floats, count + 1)]
    nans = [chosen for chosen in several if _may_match({}, wanted, where, stored, nan=chosen)]
    if not nans:
        return set()
    statistics = {group: _statistics(fragment, group) for group in groups}
    return {group for group in groups if any(_may_match(statistics[group], wanted, where, stored, nan=chosen) for chosen in nans)}


def _statistics(fragment: Any, group: int) -> Mapping[str, Any]:
    try:
        return fragment.row_groups[group].statistics or {}
    except pa.ArrowInvalid:  # of a file with floats of 16 bits, in whatever column, pyarrow tells none
        return {}


def _holds_floats(type_: pa.DataType) -> bool:
    return pa.types.is_floating(type_) or any(_holds_floats(type_.field(index).type) for index in range(type_.num_fields))


def _may_match(
    statistics: Mapping[str, Any], wanted: pa.Schema, where: Filter, stored: Mapping[str, str], nan: Collection[str] = ()
) -> bool:
    """Whether the statistics of a row group, told in the names of now, leave a row that may be wanted, with NaN in some columns."""
    known = pc.scalar(True)
    for name in where.names:
        column, type_ = pc.field(name), wanted.field(name).type
        if name in nan:
            known &= column == pa.scalar(math.nan, type_)
        # a time of Python's has no nanoseconds
        elif (bounds := statistics.get(stored[name])) is not None and not pa.types.is_time64(type_):
            known &= (column >= pa.scalar(bounds["min"], type_)) | column.is_null()
            known &= (column <= pa.scalar(bounds["max"], type_)) | column.is_null()
    # Arrow leaves out a fragment that is known to hold no such row: this one stands for the row group
    told = pads.ParquetFileFormat().make_fragment(io.BytesIO(), partition_expression=known)
    whole = pads.FileSystemDataset([told], wanted, pads.ParquetFileFormat(), LocalFileSystem())
    return next(iter(whole.get_fragments(where.expression)), None) is not None
