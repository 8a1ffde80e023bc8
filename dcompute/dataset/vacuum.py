"""Vacuum: files that do not count and that nobody reads any more are removed. What is removed is decided apart from doing it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dcompute.dataset.entries import Action, Drop, Entry, Release, Replace, Vacuum
from dcompute.dataset.hiding import Hides
from dcompute.dataset.keeper import Keeper
from dcompute.dataset.listing import File, within
from dcompute.dataset.logs import kept as kept_logs
from dcompute.dataset.names import (
    ATTEMPTS,
    LOGS,
    QUARANTINE,
    RESULTS,
    TEMPORARY,
    is_compacted,
    logs_batch,
    mark_batch,
    part_batch,
    quarantine_batch,
)
from dcompute.dataset.parts import gone
from dcompute.dataset.produced import listed as produced_files
from dcompute.dataset.produced import over, unused
from dcompute.dataset.releasing import counting_records
from dcompute.dataset.state import POSITION_BITS, State
from dcompute.dataset.store import Store
from dcompute.errors import UsageError

#: A temporary file may be written by somebody who lives for so long (seconds), whatever the retention.
TEMPORARY_SECONDS = 3600.0

_FOLDERS = ("", "log", ATTEMPTS, RESULTS, QUARANTINE, LOGS, "runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vacuumed:
    """What a vacuum removed, or would; ``str()`` of it is for people."""

    url: str
    removed: tuple[str, ...] = ()  #: names of files
    bytes: int = 0  #: of them
    kept: int = 0  #: files that do not count and are younger than the retention
    foreign: tuple[str, ...] = ()  #: names of files in ``results`` that dcompute did not write: they are left alone
    dry_run: bool = False

    def __str__(self) -> str:
        verb = "would be removed" if self.dry_run else "were removed"
        text = f"{self.url}: {len(self.removed):,} files ({self.bytes / 1e6:,.1f} MB) {verb}"
        if self.kept:
            text += f"; {self.kept:,} that do not count are younger than the retention"
        return text


def removable(state: State, names: Collection[str]) -> set[str]:
    """Those of some files in parts that do not count and never will: of no run that has an epoch not settled.

    A compacted part that nobody committed is one of them, though somebody may be about to: see :class:`~dcompute.dataset.entries.Vacuum`.
    """
    counted = {part.name for part in (*state.counted_parts(), *state.quarantine_parts())}.union(one.mark for one in state.batches)
    counted |= kept_logs(state, names)
    return {name for name in names if name not in counted and (is_compacted(name) or _is_over(state, name))}


def foreign(names: Collection[str]) -> tuple[str, ...]:
    """Files in ``results`` with names that dcompute does not give."""
    return tuple(sorted(name for name in names if name.startswith(RESULTS) and not is_compacted(name) and part_batch(name) is None))


def seconds_of(retention: Any) -> float:
    """A retention time in seconds.

    Raises
    ------
    UsageError
        It is no time.
    """
    from dask.utils import parse_timedelta

    try:
        seconds = float(parse_timedelta(retention) if isinstance(retention, str | timedelta) else retention)
    except (TypeError, ValueError, KeyError, IndexError):
        seconds = math.nan
    # a text of digits alone may mean days to who types it, and would be seconds
    if not 0 <= seconds < math.inf or (seconds and isinstance(retention, str) and retention.strip().replace(".", "").isdigit()):
        raise UsageError(f'retention={retention!r} is no time: say one such as "7 days", "12 h" or 0')
    return seconds


def vacuum(store: Store, retention: Any = "7 days", *, dry_run: bool = False, now: Callable[[], float] = time.time) -> Vacuumed:
    """Remove files that do not count, beside whatever driver and compaction there are.

    Parameters
    ----------
    store
        Where the dataset is.
    retention
        What readers may still need: a part that was replaced is kept for so long from then on, any other file from its last change on. A
        file that an item produced is kept, too, as long as a part that names it.
    dry_run
        Remove nothing.
    now
        Seconds since 1970.

    Returns
    -------
    Vacuumed
        What was removed, or would be.

    Raises
    ------
    DatasetError
        A compacted part that counts is gone: nothing was removed.
    """
    seconds = seconds_of(retention)
    keeper = Keeper(store)
    # before the parts: what is settled now is named by these parts, or by some that were merged of them
    produced = over(keeper.state, produced_files(store))
    files = _listed(store)
    # two clocks may differ: where nothing is to be kept, none is asked
    before = now() - seconds if seconds else math.inf
    until, young = _replaced_since(keeper, before)
    found: set[str] = set()

    def decide() -> list[Action] | None:
        spent = _spent(keeper, files, until)
        candidates = removable(keeper.state, files).union(spent)
        recent = young.union(*(_replaced(entry) for entry in keeper.since if entry.at > before))
        found.clear()
        found.update(name for name in candidates if name not in recent and files[name].changed <= before)
        dropped = found & _uncommitted(keeper, candidates)
        if dry_run:
            return None
        # the keys of their records say that none counts, and keys are in the files: the log must say it without them
        ended: list[Action] = [Drop(records=tuple((name, spent[name]) for name in sorted(found.intersection(spent))))]
        vacuumed: list[Action] = [Vacuum(until=until, dropped=tuple(sorted(dropped)))]
        return (ended if found.intersection(spent) else []) + (vacuumed if any(name.startswith(RESULTS) for name in found) else []) or None

    # whoever is about to commit a compacted part that goes now reads this first, and does not
    keeper.commit(decide)
    kept = len(removable(keeper.state, files) - found)
    idle = _unused(keeper, produced, files, found)
    old = {name for name in idle if produced[name].changed <= before}
    temporary = _temporary(store, now() - max(seconds, TEMPORARY_SECONDS))
    names = sorted(found) + sorted(temporary)
    if not dry_run:
        _refuse_lost(keeper, files)
        store.remove(names)
        # what names them is gone
        store.remove(sorted(old))
    names += sorted(old)
    kept += len(idle) - len(old)
    everything = {**files, **temporary, **produced}
    size = sum(everything[name].size for name in names)
    return Vacuumed(url=store.url, removed=tuple(names), bytes=size, kept=kept, foreign=foreign(files), dry_run=dry_run)


def _unused(keeper: Keeper, produced: Collection[str], listed: Collection[str], going: Collection[str]) -> set[str]:
    """Files of items that no part names which stays."""
    state = keeper.state
    counted = {part.name for part in (*state.counted_parts(), *state.quarantine_parts())}
    stay = counted.union(name for name in listed if is_compacted(name) or (part_batch(name) or quarantine_batch(name)) is not None)
    return unused(keeper.store, state, produced, stay.difference(going))


def _refuse_lost(keeper: Keeper, listed: Collection[str]) -> None:
    """A storage may forget what it acknowledged: while a compacted part is not there, those that it replaced must stay."""
    for part in keeper.state.counted_parts():
        if is_compacted(part.name) and part.name not in listed and not keeper.store.exists(part.name):
            raise gone(keeper.store, part.name)


def _spent(keeper: Keeper, names: Collection[str], until: int) -> dict[str, tuple[tuple[int, int], ...]]:
    """Parts of the quarantine of which no record counts since an entry, and the rows that hides alone ended: done again, or deleted."""
    state = keeper.state
    hides = Hides.of({key: position for key, position in state.hides.items() if position >> POSITION_BITS <= until})
    found = {}
    for part in state.quarantine_parts() if len(hides) else ():
        may_be_hit = part.name in names and len(hides.after(part.position))
        if may_be_hit and not counting_records(keeper.store, part, hides, state.ended.get(part.name, ())).places:
            ended = [0, *(place for pair in sorted(state.ended.get(part.name, ())) for place in pair), part.rows]
            found[part.name] = tuple((start, stop) for start, stop in zip(ended[::2], ended[1::2], strict=True) if start < stop)
    return found


def _is_over(state: State, name: str) -> bool:
    """Whether no entry will ever add a file."""
    batch = part_batch(name) or mark_batch(name) or quarantine_batch(name) or logs_batch(name)
    return batch is not None and state.is_over(*batch[:2])


def _uncommitted(keeper: Keeper, names: Collection[str]) -> set[str]:
    """Compacted parts among some that do not count, of which the log does not say that they ever did."""
    return {name for name in names if is_compacted(name) and name not in keeper.state.replaced}


def _replaced(entry: Entry) -> set[str]:
    replaced = {name for action in entry.actions if isinstance(action, Replace) for name in action.parts}
    return replaced.union(name for action in entry.actions if isinstance(action, Drop | Release) for name, _ in action.records)


def _replaced_since(keeper: Keeper, before: float) -> tuple[int, set[str]]:
    """The last entry that was committed before a time, and the parts that entries after it replaced."""
    parts: set[str] = set()
    for number in range(keeper.state.number, 0, -1):
        if before == math.inf:
            return number, parts
        entry = keeper.log.read(number)
        if entry is None or entry.at <= before:
            return number, parts
        parts |= _replaced(entry)
    return 0, parts


def _listed(store: Store) -> dict[str, File]:
    """The files of parts of which the storage tells when they changed."""
    found: dict[str, File] = {}
    for folder in (RESULTS, ATTEMPTS, QUARANTINE, LOGS):
        about = within(store, folder)
        found |= {name: about[name] for name in store.names(folder) if name in about}
    return found


def _temporary(store: Store, before: float) -> dict[str, File]:
    """What killed writers left behind."""
    if not store.is_local:
        return {}
    found = {name: file for folder in _FOLDERS for name, file in within(store, folder).items()}
    return {name: file for name, file in found.items() if name.rpartition("/")[2].startswith(TEMPORARY) and file.changed <= before}
