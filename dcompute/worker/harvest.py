"""What a journal holds, as columns of attempt rows: figures and constants at once, and item by item only what is an item's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import lt
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dcompute.dataset.parts import Mostly, same
from dcompute.keys import item_seeds
from dcompute.records import BatchSpec, Failure, RunSpec
from dcompute.worker import rows
from dcompute.worker.attempt import REFUSED
from dcompute.worker.attempts import Attempts, alike, outcomes
from dcompute.worker.journal import Figures, Journal, Measured, MemoryMeasured
from dcompute.worker.meter import bottleneck, bottlenecks
from dcompute.worker.produced import FILES

if TYPE_CHECKING:
    from dcompute.worker.finish import Surroundings
    from dcompute.worker.tables import Parts

_MEASURED = {int(Measured.ITEM): "item", int(Measured.BATCH): "batch", int(Measured.GROUP): "group", int(Measured.NOTHING): None}
_MEASURED_AS = {int(how): how.name.lower() if how else None for how in MemoryMeasured}
_BATCH, _NOTHING, _TREE = int(Measured.BATCH), int(Measured.NOTHING), int(MemoryMeasured.TREE)
_FILES = bytes([FILES])
_OWN = ("peak_memory", "bytes_read", "bytes_written", "io_wait", "leftovers")


class Harvest:
    """The first outcome of each item, in the order of the batch.

    Parameters
    ----------
    journal
        Of one execution.
    batch
        What was executed.
    parts
        Take the rows of what succeeded.
    """

    def __init__(self, journal: Journal, batch: BatchSpec, parts: Parts) -> None:
        self.items: list[int] = []  #: index of each in the batch
        self.failures: dict[int, Failure] = {}  #: by index
        self._batch = batch
        self._places: list[int] = []  # of the records
        self._measured: list[int] = []
        self._rows: list[int] = []
        self._extra: dict[int, Sequence[Any]] = {}  # by index: extended figures, metrics
        self._read(journal, parts)
        self._sort()
        self._times = journal.times(self._places)

    def _read(self, journal: Journal, parts: Parts) -> None:
        met = bytearray(len(self._batch))
        add, decode, places, items, counts, measured_by = parts.add, rows.decode, self._places, self.items, self._rows, self._measured
        are_there = parts.has_files
        for at, index, succeeded, measured, extra, payload in journal.scan():
            if met[index]:
                continue
            met[index] = 1
            if extra is not None:
                self._extra[index] = extra
            if succeeded:
                if are_there and payload[:1] == _FILES:
                    counts.append(parts.add_with_files(index, payload))
                else:
                    counts.append(add(index, decode(payload), len(payload)))
            else:
                told = json.loads(payload)
                self.failures[index] = _failure(index, told)
                counts.append(0)
                if REFUSED in told:
                    parts.refuse_input(index, told[REFUSED])
            places.append(at)
            items.append(index)
            measured_by.append(measured)

    def _sort(self) -> None:
        if all(map(lt, self.items, self.items[1:])):
            return
        order = sorted(range(len(self.items)), key=self.items.__getitem__)
        for line in (self.items, self._places, self._measured, self._rows):
            line[:] = [line[place] for place in order]

    def attempts(self, run: RunSpec, around: Surroundings) -> Attempts:
        """One row for each outcome."""
        batch, count = self._batch, len(self.items)
        keys = self._pick(batch.keys)
        return Attempts(count, {
            "item_key": [key.text for key in keys], "key_kind": alike([key.kind for key in keys]),
            "attempt": alike(self._pick(batch.attempts)), "fingerprint": self._pick(batch.fingerprints),
            "params_digest": same(run.params_digest), "code_digest": same(run.code_digest), "version": same(run.version),
            **outcomes(self._placed(self.failures)),
            "stdout": Mostly(None, self._placed(around.stdout)), "stderr": Mostly(None, self._placed(around.stderr)),
            **self._figures(around),
            "metrics": Mostly(None, self._placed({index: extra[1].decode() or None for index, extra in self._extra.items()})),
            "rows": alike(self._rows), "quarantined": same(0 if run.checks else None),
            "host": same(around.host), "worker": same(around.worker), "pid": same(around.pid),
            "batch": same(batch.id), "run": same(run.run), "workload": same(run.workload), "seed": item_seeds(run.seed, keys),
        })  # fmt: skip

    def _pick(self, values: Sequence[Any]) -> Sequence[Any]:
        values = tuple(values)
        return values if len(self.items) == len(values) else [values[index] for index in self.items]

    def _placed(self, values: Mapping[int, Any]) -> dict[int, Any]:
        """What is known by index, by the place of the row."""
        if len(self.items) == len(self._batch):
            return dict(values)
        return {place: values[index] for place, index in enumerate(self.items) if index in values} if values else {}

    def _figures(self, around: Surroundings) -> dict[str, Any]:
        """The columns that say what attempts took: most rows share all but duration and CPU."""
        started, duration, user, system = self._times.T
        usual = _shared(Figures(measured=self._measured[0]), around)
        odd = self._odd(around)
        unknown = np.isnan(user) | (np.asarray(self._measured) == _NOTHING)
        return {
            "started": started, "duration": duration, "cpu_user": _known(user, unknown), "cpu_system": _known(system, unknown),
            **{name: Mostly(getattr(usual, name), {place: getattr(own, name) for place, own in odd.items()}) for name in _OWN},
            "measured": Mostly(_MEASURED[usual.measured], {place: _MEASURED[own.measured] for place, own in odd.items()}),
            "memory_measured": Mostly(
                _MEASURED_AS[usual.memory_measured], {place: _MEASURED_AS[own.memory_measured] for place, own in odd.items()}
            ),
            "bottleneck": self._causes(usual, odd, around.memory_limit),
        }  # fmt: skip

    def _causes(self, usual: Figures, odd: Mapping[int, Figures], memory_limit: int | None) -> Any:
        own = {place: None if figures.measured == _NOTHING else bottleneck(figures, memory_limit) for place, figures in odd.items()}
        if usual.measured == _NOTHING:
            return Mostly(None, own)
        _, duration, user, system = self._times.T
        causes = bottlenecks(duration, user + system, usual, memory_limit)
        if not own:
            return causes
        places = sorted(own)
        is_own = np.zeros(len(causes), dtype=bool)
        is_own[places] = True
        return pc.replace_with_mask(causes, pa.array(is_own), pa.array([own[place] for place in places], pa.string()))

    def _odd(self, around: Surroundings) -> dict[int, Figures]:
        """By place, the figures of attempts that have more of their own."""
        usual, peaks, extras = self._measured[0], around.peaks, self._extra
        own_place = self._placed(dict.fromkeys([*extras, *peaks]))
        if self._measured.count(usual) != len(self._measured):
            own_place.update(dict.fromkeys(place for place, measured in enumerate(self._measured) if measured != usual))
        found: dict[int, Figures] = {}
        for place in own_place:
            index, measured = self.items[place], self._measured[place]
            _, *taken = self._times[place].tolist()
            more = extras[index][0] if index in extras else Figures()[4:]
            own = _shared(Figures._make((*taken, measured, *more)), around)
            tree = peaks.get(index)
            if measured != _NOTHING and tree is not None and tree > (own.peak_memory or 0):
                own = own._replace(peak_memory=tree, memory_measured=_TREE)
            found[place] = own
        return found


def _shared(figures: Figures, around: Surroundings) -> Figures:
    """A short item's figures are those of the batch's short items."""
    if figures.measured != _BATCH:
        return figures
    shared = around.shared
    return Figures._make((*figures[:4], shared[4], shared[5], shared[6], shared[7], figures[8], shared[9]))


def _known(values: Any, unknown: Any) -> Any:
    # not a number: the process was killed, and nobody knows
    return pa.array(values, mask=unknown) if unknown.any() else values


def _failure(index: int, failure: Mapping[str, Any]) -> Failure:
    return Failure(
        index=index,
        kind=failure["kind"],
        error=failure["error"],
        bases=tuple(failure["bases"]),
        message=failure["message"],
        exit_code=failure.get("exit_code"),
        signal=failure.get("signal"),
        traceback=failure["traceback"],
    )
