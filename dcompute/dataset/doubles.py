"""Keys that several datasets have: which of them count in an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dcompute.dataset.hiding import Hides, joined_keys
from dcompute.dataset.outcomes import iter_outcomes
from dcompute.dataset.reading import LogAt
from dcompute.dataset.state import State
from dcompute.dataset.store import Store
from dcompute.records import SUCCEEDED

# as many keys travel with the readers; of more the process that reads looks for them again
_CARRIED = 10_000
_ALWAYS = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Doubles:
    """Keys of one dataset that an earlier one has: called, they are hides of all their rows."""

    logs: tuple[LogAt, ...]  #: of the datasets up to this one
    kinds: tuple[str | None, ...]  #: of the failure of each; None: it succeeded
    keys: pa.Array | None  #: None: too many to carry

    def __call__(self) -> Hides:
        """Hides that hit all rows of these keys, wherever they lie in the log."""
        keys = _looked_for(self.logs) if self.keys is None else self.keys
        return Hides(keys, np.full(len(keys), _ALWAYS, dtype=np.int64))

    def __dask_tokenize__(self) -> list[tuple[str, int, str]]:
        return [(log.url, log.number, log.entry) for log in self.logs]

    def __reduce__(self) -> tuple[Any, ...]:
        # the kinds are for status only, and there may be millions
        return Doubles, (self.logs, (), self.keys)


def doubles_of(datasets: Sequence[tuple[Store, State]]) -> tuple[Doubles, ...]:
    """For each dataset, the keys with an outcome that one before it has; the keys of all outcomes are read.

    Keys of all datasets but the last are held in memory as text.
    """
    found: list[Doubles] = []
    known = pa.chunked_array([], pa.string())
    logs = tuple(LogAt(store, store.url, state.number, state.entry_id) for store, state in datasets)
    for index, (store, state) in enumerate(datasets):
        keys, kinds = _among(store, state, known) if len(known) else (pa.array([], pa.string()), ())
        found.append(Doubles(logs[: index + 1], kinds, keys if len(keys) <= _CARRIED else None))
        if index < len(datasets) - 1:
            known = pa.chunked_array([*known.chunks, *_all(store, state)], pa.string())
    return tuple(found)


@lru_cache(maxsize=2)
def _looked_for(logs: tuple[LogAt, ...]) -> pa.Array:
    states = [log.state() for log in logs]
    stores = [log.store for log in logs]
    known = [keys for store, state in zip(stores[:-1], states[:-1], strict=True) for keys in _all(store, state)]
    return _among(stores[-1], states[-1], pa.chunked_array(known, pa.string()))[0]


def _all(store: Store, state: State) -> list[pa.Array]:
    return [joined_keys(chunk.table) for chunk in iter_outcomes(store, state, columns=())]


def _among(store: Store, state: State, known: pa.ChunkedArray) -> tuple[pa.Array, tuple[str | None, ...]]:
    """The keys with an outcome that are among these, each once, and the kind of its failure."""
    newest: dict[str, str | None] = {}
    known = known.unique()
    for chunk in iter_outcomes(store, state, columns=("kind",)):
        keys = joined_keys(chunk.table)
        met = pc.is_in(keys, value_set=known)
        outcomes, kinds = (chunk.table.column(name).filter(met).to_pylist() for name in ("outcome", "kind"))
        failed = (None if outcome == SUCCEEDED else kind for outcome, kind in zip(outcomes, kinds, strict=True))
        newest.update(zip(keys.filter(met).to_pylist(), failed, strict=True))
    return pa.array(list(newest), pa.string()), tuple(newest.values())
