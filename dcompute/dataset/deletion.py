"""Deletion: items of a dataset count as never executed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dcompute.dataset.asked import Key, asked
from dcompute.dataset.entries import Action, Hide
from dcompute.dataset.hiding import Hides, joined_keys, without
from dcompute.dataset.keeper import Keeper
from dcompute.dataset.lease import Clock
from dcompute.dataset.outcomes import ROW_BITS, iter_outcomes, prefetched
from dcompute.dataset.parts import read_attempts
from dcompute.dataset.schema import RESERVED
from dcompute.dataset.settling import settled
from dcompute.dataset.state import CountedBatch, State
from dcompute.dataset.store import Store
from dcompute.dataset.succession import busy
from dcompute.errors import UsageError
from dcompute.records import ItemKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What a deletion did; ``str()`` of it is for people."""

    url: str
    items: int  #: that count as never executed from now on
    kept: int = 0  #: items of the run that a later run did again: they stay

    def __str__(self) -> str:
        kept = f"; {self.kept:,} that a later run did again stay" if self.kept else ""
        return f"{self.url}: {self.items:,} {'item' if self.items == 1 else 'items'} deleted{kept}"


def delete(store: Store, keys: Iterable[Key] | None = None, *, run: str | None = None, clock: Clock = time) -> Deletion:
    """Delete items: their rows are in the results and in the attempts no more, and the same line executes them again.

    Parameters
    ----------
    store
        Where the dataset is.
    keys
        Texts of keys, or pairs of text and kind of key.
    run
        Id of a run: the items whose outcome is that run's.
    clock
        Tells the time and sleeps.

    Returns
    -------
    Deletion
        How many.

    Raises
    ------
    UsageError
        There is no such key or run; nothing was deleted.
    DatasetBusy
        A driver is alive.
    """
    if (keys is None) == (run is None):
        raise UsageError("delete() takes keys= or run=, one of them: say what is to be deleted")
    named = None if keys is None else asked(keys)
    keeper = Keeper(store)
    if keeper.state.unsettled:
        return _after_an_interrupted_run(store, keeper.state, named, run, clock)
    found, kept = _found(store, keeper.state, named, run)
    epoch = keeper.state.epoch

    def decide() -> list[Action]:
        if keeper.state.epoch != epoch and keeper.state.driver is not None:
            raise busy(store, keeper.state.driver)
        return [Hide(keys=found, scope="all")]

    if found:
        keeper.commit(decide)
    return Deletion(url=store.url, items=len(found), kept=kept)


def _after_an_interrupted_run(store: Store, state: State, named: Sequence[ItemKey | str] | None, run: str | None, clock: Clock) -> Deletion:
    """What that run wrote and did not commit must be found first: else its successor would add what is deleted now."""
    with settled(store, state, "delete", clock=clock) as writer:
        found, kept = _found(store, writer.state, named, run)
        if found:
            writer.commit([Hide(keys=found, scope="all")])
    return Deletion(url=store.url, items=len(found), kept=kept)


def _found(store: Store, state: State, named: Sequence[ItemKey | str] | None, run: str | None) -> tuple[tuple[ItemKey, ...], int]:
    if named is None:
        return _of_run(store, state, run or "")
    return _of_keys(store, state, named), 0


def _of_keys(store: Store, state: State, named: Sequence[ItemKey | str]) -> tuple[ItemKey, ...]:
    texts = pa.array(list({key if isinstance(key, str) else key.text for key in named}), pa.string())
    hides = Hides.of(state.hides_all)
    kinds: dict[str, set[str]] = {}
    for one, table in zip(state.batches, _keys_in(store, state.batches), strict=True):
        rows = without(table.filter(pc.is_in(table.column("item_key"), value_set=texts)), one.batch.left_out)
        counting = rows.filter(pa.array(~hides.hit(rows, one.position)))
        for text, kind in zip(counting.column("item_key").to_pylist(), counting.column("key_kind").to_pylist(), strict=True):
            kinds.setdefault(text, set()).add(kind)
    _refuse_unknown(kinds, named)
    wanted = (ItemKey(key, min(kinds[key])) if isinstance(key, str) else key for key in named)
    return tuple(dict.fromkeys(wanted))


def _refuse_unknown(kinds: dict[str, set[str]], named: Sequence[ItemKey | str]) -> None:
    unknown = [key for key in named if (key not in kinds if isinstance(key, str) else key.kind not in kinds.get(key.text, ()))]
    if unknown:
        texts = ", ".join(repr(key if isinstance(key, str) else tuple(key)) for key in unknown[:3])
        more = f" and {len(unknown) - 3:,} more" if len(unknown) > 3 else ""
        raise UsageError(f"the dataset has no item with the key {texts}{more}: deleted before, or mistyped. Nothing was deleted")
    for key in named:
        if isinstance(key, str) and len(kinds[key]) > 1:
            pairs = " or ".join(repr((key, kind)) for kind in sorted(kinds[key]))
            raise UsageError(f"the key {key!r} is there with several kinds: say which one, as {pairs}. Nothing was deleted")


def _of_run(store: Store, state: State, run: str) -> tuple[tuple[ItemKey, ...], int]:
    """The keys whose outcome is a run's, and of how many others a later run's attempt is the newest."""
    if run not in {opened.run for opened in state.opened.values()}:
        raise UsageError(f"the dataset has no run {run!r}: its attempts have the ids of runs in the column run. Nothing was deleted")
    own = [ordinal for ordinal, one in enumerate(state.batches) if state.opened[one.epoch].run == run]
    if not own:
        return (), 0
    ever = pa.chunked_array([joined_keys(table) for table in _keys_in(store, [state.batches[at] for at in own])], pa.string()).unique()
    found = []
    for chunk in iter_outcomes(store, state, since=own[0], columns=()):
        of_run = np.isin((chunk.locations >> np.uint64(ROW_BITS)).astype(np.int64), own)
        keys = chunk.table.select(RESERVED).append_column("of_run", pa.array(of_run))
        found.append(keys.filter(pc.is_in(joined_keys(keys), value_set=ever)))
    return _newest_of_run(pa.concat_tables(found)) if found else ((), 0)


def _newest_of_run(rows: pa.Table) -> tuple[tuple[ItemKey, ...], int]:
    if not rows.num_rows:
        return (), 0
    codes = joined_keys(rows).dictionary_encode().indices.to_numpy()
    last = np.zeros(int(codes.max()) + 1, dtype=np.int64)
    last[codes] = np.arange(len(codes))  # the assignment of a later row stays: it is the newer one
    newest = rows.take(pa.array(np.sort(last)))
    own = newest.filter(newest.column("of_run"))
    keys = zip(own.column("item_key").to_pylist(), own.column("key_kind").to_pylist(), strict=True)
    return tuple(ItemKey(text, kind) for text, kind in keys), newest.num_rows - own.num_rows


def _keys_in(store: Store, batches: Sequence[CountedBatch]) -> Iterator[pa.Table]:
    return prefetched(lambda one: read_attempts(store, one.mark, RESERVED), batches, store.is_local)
