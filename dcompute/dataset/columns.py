"""What a state holds, as Arrow columns: a row a batch, a row a key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dcompute.dataset.counted import CountedBatch
from dcompute.dataset.entries import AddBatch
from dcompute.records import ItemKey, PartRef

#: A row a key.
POSITIONS_SCHEMA = pa.schema([("text", pa.string()), ("kind", pa.string()), ("position", pa.int64())])

_KEYS = pa.list_(pa.struct([("text", pa.string()), ("kind", pa.string())]))

#: A row a batch: where it was added, and each field of ``AddBatch``.
BATCHES_SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("id", pa.string()),
        ("holds", pa.list_(pa.struct([("start", pa.int64()), ("stop", pa.int64())]))),
        ("left_out", _KEYS),
        ("final", _KEYS),
        ("results", pa.list_(pa.struct([("name", pa.string()), ("size", pa.int64()), ("rows", pa.int64())]))),
        ("succeeded", pa.int64()),
        ("failed", pa.list_(pa.struct([("kind", pa.string()), ("count", pa.int64())]))),
        ("rows", pa.int64()),
        ("seconds", pa.float64()),
        ("slot_seconds", pa.float64()),
        ("stands_for", pa.string()),
        ("quarantined", pa.list_(pa.struct([("name", pa.string()), ("size", pa.int64()), ("rows", pa.int64())]))),
        ("again", _KEYS),
    ]
)


def batch_columns(batches: Sequence[CountedBatch]) -> pa.Table:
    """Batches as columns of :data:`BATCHES_SCHEMA`."""
    columns: list[list[Any]] = [[counted.position for counted in batches]]
    columns += [[getattr(counted.batch, name) for counted in batches] for name in BATCHES_SCHEMA.names[1:]]
    arrays = [packed(values, field.type) for values, field in zip(columns, BATCHES_SCHEMA, strict=True)]
    return pa.table(arrays, schema=BATCHES_SCHEMA)


def opened_batches(columns: pa.Table) -> list[CountedBatch]:
    """The batches of columns of :data:`BATCHES_SCHEMA`."""
    values = {name: _opened(columns.column(name), _MAKE.get(name)) for name in BATCHES_SCHEMA.names}
    positions, names = values.pop("position"), list(values)
    rows = zip(*values.values(), strict=True)
    return [CountedBatch(at, AddBatch(**dict(zip(names, row, strict=True)))) for at, row in zip(positions, rows, strict=True)]


def results_of(columns: pa.Table) -> Iterator[tuple[int, tuple[ItemKey, ...], tuple[PartRef, ...]]]:
    """Of each batch its position, the keys left out, and its results parts."""
    return zip(*(_opened(columns.column(name), _MAKE.get(name)) for name in ("position", "left_out", "results")), strict=True)


def with_quarantine(columns: pa.Table) -> pa.Table:
    """The batches with records in the quarantine."""
    return columns.filter(pc.greater(pc.list_value_length(columns.column("quarantined")), 0))


def batch_ids(columns: pa.Table) -> pa.ChunkedArray:
    """The ids of batches, and of those that they stand for."""
    return pa.chunked_array([*columns.column("id").chunks, *columns.column("stands_for").drop_null().chunks], pa.string())


def position_columns(positions: Mapping[ItemKey, int]) -> pa.Table:
    """Positions of keys as columns of :data:`POSITIONS_SCHEMA`."""
    arrays: list[list[Any]] = [[key.text for key in positions], [key.kind for key in positions], list(positions.values())]
    return pa.table([packed(values, field.type) for values, field in zip(arrays, POSITIONS_SCHEMA, strict=True)], POSITIONS_SCHEMA)


def totals_of(columns: pa.Table) -> tuple[int, dict[str, int], int, float]:
    """Sums over batches: items succeeded, attempts failed by kind, rows, seconds of items."""
    failed: dict[str, int] = {}
    counts = pc.list_flatten(columns.column("failed"))
    for kind, count in zip(*(pc.struct_field(counts, [at]).to_pylist() for at in (0, 1)), strict=True):
        failed[kind] = failed.get(kind, 0) + count
    succeeded, rows, seconds = (pc.sum(columns.column(name)).as_py() or 0 for name in ("succeeded", "rows", "seconds"))
    return succeeded, failed, rows, float(seconds)


def size_of(columns: pa.Table, without: pa.ChunkedArray) -> tuple[int, int]:
    """Rows and bytes of the results parts of batches, but for some names."""
    parts = pc.list_flatten(columns.column("results"))
    counts = pc.invert(pc.is_in(pc.struct_field(parts, [0]), value_set=without))
    rows, size = (pc.sum(pc.struct_field(parts, [at]).filter(counts)).as_py() or 0 for at in (2, 1))
    return rows, size


def _part(name: str, size: int, rows: int) -> PartRef:
    return PartRef(name=name, size=size, rows=rows)


def _pair(first: Any, second: Any) -> tuple[Any, Any]:
    return first, second


_MAKE: dict[str, Any] = {
    "holds": _pair,
    "left_out": ItemKey,
    "final": ItemKey,
    "results": _part,
    "failed": _pair,
    "quarantined": _part,
    "again": ItemKey,
}


def packed(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Values as an array; lists of records as lists of structs."""
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
    flat = [thing for things in values for thing in things]
    fields = kind.value_type
    children = [pa.array([_value(thing, at, fields.field(at).name) for thing in flat], fields.field(at).type) for at in range(len(fields))]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(children, fields=list(fields)))


def _value(thing: Any, place: int, name: str) -> Any:
    return thing[place] if isinstance(thing, tuple) else getattr(thing, name)


def _opened(column: pa.ChunkedArray, make: Any) -> list[Any]:
    values: list[Any] = column.to_pylist() if make is None else []
    for chunk in column.chunks if make is not None else ():
        flat = chunk.flatten()
        things = list(map(make, *(child.to_pylist() for child in flat.flatten())))
        offsets = np.cumsum(np.append(0, chunk.value_lengths().to_numpy(zero_copy_only=False))).tolist()
        values.extend(tuple(things[start:stop]) for start, stop in pairwise(offsets))
    return values
