"""Bringing a tally up to date: of what was added since, only the parts that can change it are read."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from dcompute.dataset.ahead import prefetched
from dcompute.dataset.counted import CountedBatch
from dcompute.dataset.hiding import are_keys
from dcompute.dataset.outcomes import CHUNK_ROWS, ROW_BITS, load, newest
from dcompute.dataset.state import POSITION_BITS, State
from dcompute.dataset.store import Store
from dcompute.dataset.tally import LastFailure, Tally
from dcompute.records import SUCCEEDED, ItemKey

_COLUMNS = ("item_key", "key_kind", "attempt", "outcome", "kind")

#: Of more failed items than these (about 300 bytes each) no tally is kept.
MOST_FAILED = 200_000


@dataclass(slots=True)
class _Step:
    """Keys that an entry hides, and then the batches that it adds."""

    hidden: list[ItemKey] = field(default_factory=list)
    first: int = 0  # ordinal of the first batch
    batches: list[CountedBatch] = field(default_factory=list)
    is_read: bool = False


def tallied(store: Store, state: State) -> Tally | None:
    """The tally of a state, brought up to its last entry; None where none is kept."""
    if state.tally is None or state.tally.number == state.number:
        return state.tally
    # on a copy: whatever fails on the way, the state keeps one that is whole
    tally = copy.copy(state.tally)
    _advance(tally, store, state)
    state.keep_tally(tally if len(tally.failed) <= MOST_FAILED else None)
    return state.tally


def unread(state: State) -> int:
    """How many parts have to be read to bring the tally of a state up to its last entry."""
    return 0 if state.tally is None else sum(len(step.batches) for step in _steps(state.tally, state) if step.is_read)


def _advance(tally: Tally, store: Store, state: State) -> None:
    if not state.later_hides and not tally.is_watching and not _has_failures(state, tally.batches):
        counts = state.batches.columns().column("succeeded").to_numpy()
        tally.succeeded += int(counts[tally.batches :].sum())
    else:
        _replay(tally, store, _steps(tally, state))
    tally.number, tally.batches = state.number, len(state.batches)


def _has_failures(state: State, start: int) -> bool:
    return any(len(failed) for failed in state.batches.columns().column("failed").slice(start))


def _steps(tally: Tally, state: State) -> list[_Step]:
    """What came after a tally, in order: a step holds what can be counted together, at most an entry."""
    steps: list[_Step] = []
    is_watching = tally.is_watching
    entry = -1
    for position, ordinal, thing in _events(tally, state):
        if position >> POSITION_BITS != entry or (steps[-1].batches and not isinstance(thing, CountedBatch)):
            steps.append(_Step(first=ordinal))
            entry = position >> POSITION_BITS
        step = steps[-1]
        if isinstance(thing, CountedBatch):
            step.batches.append(thing)
            step.is_read |= is_watching or bool(thing.batch.failed)
            # a failure that is not final is watched from the next step on; in its own all is read
            is_watching |= sum(count for _, count in thing.batch.failed) > len(thing.batch.final)
        else:
            step.hidden.extend(thing)
            is_watching = True
    return steps


def _events(tally: Tally, state: State) -> Iterator[tuple[int, int, CountedBatch | Sequence[ItemKey]]]:
    """Position, ordinal of the next batch, and either that batch or keys that were hidden; by position."""
    hides = iter(state.later_hides)
    hide = next(hides, None)
    ordinal = tally.batches
    for ordinal, counted in enumerate(state.batches[tally.batches :], tally.batches):
        while hide is not None and hide[0] < counted.position:
            yield hide[0], ordinal, hide[1]
            hide = next(hides, None)
        yield counted.position, ordinal, counted
    while hide is not None:
        yield hide[0], ordinal + 1, hide[1]
        hide = next(hides, None)


def _replay(tally: Tally, store: Store, steps: Sequence[_Step]) -> None:
    wanted = (counted for step in steps if step.is_read for counted in step.batches)
    tables = prefetched(lambda counted: load(store, counted, _COLUMNS), wanted, store.is_local)
    held: list[tuple[int, CountedBatch, pa.Table]] = []
    rows = 0
    for step in steps:
        if step.hidden or rows >= CHUNK_ROWS:
            _take(tally, held)
            held, rows = [], 0
        for key in step.hidden:
            tally.hide(key)
        if not step.is_read:
            tally.succeeded += sum(counted.batch.succeeded for counted in step.batches)
            continue
        for ordinal, counted in enumerate(step.batches, step.first):
            held.append((ordinal, counted, next(tables)))
            rows += held[-1][2].num_rows
    _take(tally, held)


def _take(tally: Tally, held: Sequence[tuple[int, CountedBatch, pa.Table]]) -> None:
    """Count the newest attempts of some batches between which nothing was hidden."""
    if not held:
        return
    kept = [~are_keys(table, counted.batch.left_out) for _, counted, table in held]
    table = pa.concat_tables(table.filter(pa.array(keep)) for (_, _, table), keep in zip(held, kept, strict=True))
    entries = np.repeat([counted.position >> POSITION_BITS for _, counted, _ in held], [keep.sum() for keep in kept])
    locations = np.concatenate([np.flatnonzero(keep) | ordinal << ROW_BITS for (ordinal, _, _), keep in zip(held, kept, strict=True)])
    index = newest(table, entries)
    table, locations = table.take(pa.array(index)), locations[index]
    columns = (table.column(name).to_pylist() for name in ("item_key", "key_kind", "outcome", "kind", "final"))
    for text, key_kind, outcome, kind, final, location in zip(*columns, locations.tolist(), strict=True):
        if outcome == SUCCEEDED:
            tally.succeed(ItemKey(text, key_kind))
        else:
            tally.fail(ItemKey(text, key_kind), LastFailure(kind, location, final))
