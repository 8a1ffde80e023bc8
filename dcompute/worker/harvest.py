"""What a journal holds, as columns of attempt rows: figures and constants at once, and item by item only what is an item's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import lt
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dcompute.dataset.parts import Same
from dcompute.keys import item_seeds
from dcompute.records import BatchSpec, Failure, RunSpec
from dcompute.worker import rows
from dcompute.worker.attempts import Attempts, alike, outcomes, some
from dcompute.worker.journal import Figures, Journal, Measured, MemoryMeasured
from dcompute.worker.meter import bottleneck, bottlenecks

if TYPE_CHECKING:
    from dcompute.worker.finish import Surroundings
    from dcompute.worker.tables import Parts

_MEASURED = {int(Measured.ITEM): "item", int(Measured.BATCH): "batch", int(Measured.GROUP): "group", int(Measured.NOTHING): None}
_MEASURED_AS = {int(how): how.name.lower() if how else None for how in MemoryMeasured}
_BATCH, _NOTHING, _TREE = int(Measured.BATCH), int(Measured.NOTHING), int(MemoryMeasured.TREE)
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
        for at, index, succeeded, measured, extra, payload in journal.scan():
            if met[index]:
                continue
            met[index] = 1
            if extra is not None:
                self._extra[index] = extra
            if succeeded:
                counts.append(add(index, decode(payload), len(payload)))
            else:
                self.failures[index] = _failure(index, json.loads(payload))
                counts.append(0)
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
            "params_digest": Same(run.params_digest), "code_digest": Same(run.code_digest), "version": Same(run.version),
            **outcomes(count, self._placed(self.failures)),
            "stdout": some(count, self._placed(around.stdout)), "stderr": some(count, self._placed(around.stderr)),
            **self._figures(around),
            "metrics": some(count, self._placed({index: extra[1].decode() or None for index, extra in self._extra.items()})),
            "rows": alike(self._rows), "host": Same(around.host), "worker": Same(around.worker), "pid": Same(around.pid),
            "batch": Same(batch.id), "run": Same(run.run), "workload": Same(run.workload), "seed": item_seeds(run.seed, keys),
        })  # fmt: skip

    def _pick(self, values: Sequence[Any]) -> Sequence[Any]:
        values = tuple(values)
        return values if len(self.items) == len(values) else [values[index] for index in self.items]

    def _placed(self, values: Mapping[int, Any]) -> dict[int, Any]:
        """What is known by index, by the place of the row."""
        places = {index: place for place, index in enumerate(self.items) if index in values} if values else {}
        return {place: values[index] for index, place in places.items()}

    def _figures(self, around: Surroundings) -> dict[str, Any]:
        """The columns that say what attempts took: most rows share all but duration and CPU."""
        count = len(self.items)
        started, duration, user, system = self._times.T
        usual = _shared(Figures(measured=self._measured[0]), around)
        odd = self._odd(around)
        unknown = np.isnan(user) | (np.asarray(self._measured) == _NOTHING)
        return {
            "started": started, "duration": duration, "cpu_user": _known(user, unknown), "cpu_system": _known(system, unknown),
            **{name: some(count, {place: getattr(own, name) for place, own in odd.items()}, getattr(usual, name)) for name in _OWN},
            "measured": some(count, {place: _MEASURED[own.measured] for place, own in odd.items()}, _MEASURED[usual.measured]),
            "memory_measured": some(
                count, {place: _MEASURED_AS[own.memory_measured] for place, own in odd.items()}, _MEASURED_AS[usual.memory_measured]
            ),
            "bottleneck": _causes(bottlenecks(duration, user + system, usual, around.memory_limit), usual, odd, around.memory_limit),
        }  # fmt: skip

    def _odd(self, around: Surroundings) -> dict[int, Figures]:
        """By place, the figures of attempts that have more of their own."""
        usual, peaks, extras = self._measured[0], around.peaks, self._extra
        found: dict[int, Figures] = {}
        for place, (index, measured) in enumerate(zip(self.items, self._measured, strict=True)):
            if measured == usual and index not in extras and index not in peaks:
                continue
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


def _causes(usual_causes: Any, usual: Figures, odd: Mapping[int, Figures], memory_limit: int | None) -> Any:
    if not odd:
        return Same(None) if usual.measured == _NOTHING else usual_causes
    causes = [None] * len(usual_causes) if usual.measured == _NOTHING else usual_causes.to_pylist()
    for place, own in odd.items():
        causes[place] = None if own.measured == _NOTHING else bottleneck(own, memory_limit)
    return causes


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
