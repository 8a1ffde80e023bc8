"""The results that count, a batch or a row group at a time, with the place of each row: for who wants the rows of an item together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dcompute.dataset.counted import CountedPart
from dcompute.dataset.hiding import Hides, are_keys, joined_keys
from dcompute.dataset.parts import explained, source_of
from dcompute.dataset.reading import ByUrl
from dcompute.dataset.references import Part, read_group
from dcompute.dataset.renames import Renames
from dcompute.dataset.schema import RESERVED
from dcompute.dataset.state import State
from dcompute.dataset.store import Store

Numbers = npt.NDArray[np.int64]


class Unit(NamedTuple):
    """What is read at once: the parts of one batch, in which no other unit's keys are, or a row group of a compacted part."""

    parts: tuple[CountedPart, ...]
    group: int | None = None


class Wanted(NamedTuple):
    """What is asked for of a dataset."""

    store: Store
    schema: pa.Schema  #: columns, among them those of the key
    hides: Hides
    renames: Renames

    def part(self, part: CountedPart, schema: pa.Schema | None = None) -> Part:
        """A part, with these columns of it; None: all that are wanted."""
        at = ByUrl(self.store, self.store.url)
        return Part(at, part.name, part.position, self.schema if schema is None else schema, self.renames, part.size)


class Slab(NamedTuple):
    """The rows of a unit that count."""

    table: pa.Table
    keys: pa.Array  #: one text a row that stands for its key
    parts: Numbers  #: of each row the number of its part in the unit
    places: Numbers  #: and its number in that part


def units(store: Store, state: State) -> Iterator[Unit]:
    """All there is to read, in the order of the log; footers of compacted parts are read."""
    compacted = {part.name for part in state.compacted}
    for is_compacted, parts in groupby(state.counted_parts(), key=lambda part: part.name in compacted):
        if is_compacted:
            for part in parts:
                yield from (Unit((part,), group) for group in range(_groups(store, part)))
        else:
            yield from (Unit(tuple(same)) for _, same in groupby(parts, key=lambda part: _batch(part.name)))


def slab(wanted: Wanted, unit: Unit) -> Slab:
    """The rows of a unit that count."""
    store = wanted.store
    tables, parts, places = [], [], []
    for number, part in enumerate(unit.parts):
        with explained(store, part.name), source_of(store, part.name, size=part.size) as source:
            table = read_group(source, wanted.part(part), unit.group)
        keep = ~are_keys(table, part.left_out) & ~wanted.hides.hit(table, part.position)
        tables.append(table if keep.all() else table.filter(pa.array(keep)))
        rows = np.flatnonzero(keep) + (_first(store, part, unit.group) if unit.group else 0)
        places.append(rows)
        parts.append(np.full(len(rows), number, dtype=np.int64))
    table = pa.concat_tables(tables).combine_chunks()
    return Slab(table, joined_keys(table), np.concatenate(parts), np.concatenate(places))


def scattered(wanted: Wanted, state: State) -> set[int]:
    """Hashes of keys that more than one unit has, which compaction alone brings about; then all keys are read, at 8 bytes a key."""
    if not any(part.name not in state.replaced for part in state.compacted):
        return set()
    keys = wanted._replace(schema=pa.schema([(name, pa.string()) for name in RESERVED]))
    found = [np.fromiter(map(hash, slab(keys, unit).keys.unique().to_pylist()), dtype=np.int64) for unit in units(wanted.store, state)]
    hashes = np.sort(np.concatenate([np.empty(0, dtype=np.int64), *found]))
    return set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


def _batch(name: str) -> str:
    # results/<batch id>-<random>-<n>.parquet
    return name.rsplit("-", 2)[0]


def _groups(store: Store, part: CountedPart) -> int:
    with explained(store, part.name), source_of(store, part.name, size=part.size) as source:
        return int(pq.read_metadata(source).num_row_groups)


def _first(store: Store, part: CountedPart, group: int) -> int:
    with explained(store, part.name), source_of(store, part.name, size=part.size) as source:
        metadata = pq.read_metadata(source)
    return sum(metadata.row_group(each).num_rows for each in range(group))
