"""Which rows of a part do not count: keys left out of it, and keys hidden after it; for whole tables at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dcompute.records import ItemKey

# no kind of key holds it, so that kind, this and text together tell every two keys apart
_BETWEEN = "\0"


def joined_keys(table: pa.Table) -> pa.Array:
    """One text a row that stands for its key; the table has ``item_key`` and ``key_kind``."""
    texts, kinds = _whole(table, "item_key"), _whole(table, "key_kind")
    return pc.binary_join_element_wise(kinds, texts, _BETWEEN)


def are_keys(table: pa.Table, keys: Collection[ItemKey]) -> npt.NDArray[np.bool_]:
    """For each row, whether its key is one of ``keys``."""
    if not keys:
        return np.zeros(table.num_rows, dtype=bool)
    return _numpy(pc.is_in(joined_keys(table), value_set=_joined(keys)))


def without(table: pa.Table, keys: Collection[ItemKey]) -> pa.Table:
    """The table without the rows of some keys."""
    return table.filter(pa.array(~are_keys(table, keys))) if keys else table


@dataclass(frozen=True, slots=True)
class Hides:
    """Keys, and the position of the newest hide of each."""

    keys: pa.Array
    positions: npt.NDArray[np.int64]

    @classmethod
    def of(cls, newest: Mapping[ItemKey, int]) -> Hides:
        """From a mapping as ``State.hides`` is one."""
        return cls(_joined(newest), np.fromiter(newest.values(), dtype=np.int64, count=len(newest)))

    def __len__(self) -> int:
        return len(self.keys)

    def joined(self, other: Hides) -> Hides:
        """Both; what stands in both is hidden at the later position."""
        keys = pa.concat_arrays([self.keys, other.keys])
        positions = np.concatenate([self.positions, other.positions])
        order = np.argsort(-positions, kind="stable")
        # of a key that stands twice a look-up finds the first
        return Hides(keys.take(pa.array(order)), positions[order])

    def after(self, position: int) -> Hides:
        """Those that can hit a part of this position."""
        later = self.positions > position
        return self if later.all() else Hides(self.keys.filter(pa.array(later)), self.positions[later])

    def hit(self, table: pa.Table, positions: npt.NDArray[np.int64] | int) -> npt.NDArray[np.bool_]:
        """For each row, whether a hide later than its position hits it.

        Parameters
        ----------
        table
            Has ``item_key`` and ``key_kind``.
        positions
            Where in the log each row was added, or all of them.
        """
        hides = self.after(int(np.min(positions))) if table.num_rows else self
        if not len(hides) or not table.num_rows:
            return np.zeros(table.num_rows, dtype=bool)
        keys = joined_keys(table)
        if len(hides) > len(keys):  # the smaller side makes the hash table
            met = _numpy(pc.is_in(hides.keys, value_set=keys))
            hides = Hides(hides.keys.filter(pa.array(met)), hides.positions[met])
        index = pc.fill_null(pc.index_in(keys, value_set=hides.keys), -1).to_numpy(zero_copy_only=False)
        newest = np.append(hides.positions, -1)[index]  # -1, no hide, takes the appended one
        hit: npt.NDArray[np.bool_] = newest > positions
        return hit

    def without_hit(self, tables: Sequence[pa.Table], positions: Sequence[int]) -> pa.Table:
        """The rows of tables, each added at one position, that no later hide hits, as one table."""
        table = pa.concat_tables(tables)
        if not len(self):
            return table
        hit = self.hit(table, np.repeat(np.array(positions, dtype=np.int64), [one.num_rows for one in tables]))
        return table.filter(pa.array(~hit)) if hit.any() else table


def _joined(keys: Collection[ItemKey]) -> pa.Array:
    return pa.array([kind + _BETWEEN + text for text, kind in keys], pa.string())


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name).combine_chunks()
    # combine_chunks of a column gives a chunked array where 2 GiB of text do not fit one chunk
    return column.cast(pa.large_string()).combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _numpy(mask: pa.Array) -> npt.NDArray[np.bool_]:
    values: npt.NDArray[np.bool_] = mask.to_numpy(zero_copy_only=False)
    return values
