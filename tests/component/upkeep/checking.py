"""Batches whose rows were checked, for tests of what becomes of the quarantine: written as workers do, committed as drivers do."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from dcompute.checks.forms import checks_of
from dcompute.checks.travel import RunChecks, packed
from dcompute.dataset.entries import Action, Add, AddBatch, Hide, SetSchema
from dcompute.dataset.schema import join
from dcompute.dataset.status import Dataset
from dcompute.dataset.store import Store
from dcompute.records import ATTEMPT_COLUMNS, FAILED, SUCCEEDED, BatchSpec, Failure, Receipt, RunSpec, batch_id
from dcompute.worker.tables import Parts
from tests.component.upkeep.driving import Driving, key

Rows = Sequence[Mapping[str, Any]]

CHECKS = packed(RunChecks(checks_of({"positive": pc.field("n") > 0})))
REFUSING = packed(RunChecks(checks_of({"positive": pc.field("n") > 0}), True))


class Checking(Driving):
    """One epoch whose rows must have a positive ``n``, and whose inputs are refused where None stands for their rows."""

    numbers = 0

    def checked(self, did: Mapping[str, Rows | None], *, checks: bytes = CHECKS, execution: str = "e") -> Receipt:
        """The receipt of a batch that was written; nothing is committed."""
        self._number += 1
        keys = tuple(map(key, did))
        prints = tuple(f"print of {text}" for text in did)
        batch = BatchSpec(id=batch_id(self.writer.run, self.writer.epoch, self._number), keys=keys, attempts=(1,) * len(keys),
                          fingerprints=prints, values=b"")  # fmt: skip
        spec = RunSpec(run=self.writer.run, dataset="", workload="flux", code=b"", code_digest="", params_digest="", checks=checks)
        with tempfile.TemporaryDirectory() as folder:
            parts = Parts(folder, spec, batch, execution)
            counts = [self._take(parts, index, rows) for index, rows in enumerate(did.values())]
            failures = [Failure(index=index, kind="permanent", error="E") for index, rows in enumerate(did.values()) if rows is None]
            receipt = parts.finish([self._attempt(batch, *each) for each in zip(did, did.values(), counts, strict=True)], failures=failures)
            for path, name in parts.files:
                self.store.create(name, Path(path).read_bytes())
        return receipt

    def add_checked(
        self, did: Mapping[str, Rows | None], *, hide: Sequence[str] = (), again: Sequence[str] = (), **fields: Any
    ) -> AddBatch:
        """A batch that counts; what failed in it is final but for ``again``."""
        receipt = self.checked(did, **fields)
        keys = tuple(map(key, did))
        failed = [keys[failure.index] for failure in receipt.failures]
        batch = AddBatch(
            id=receipt.batch, holds=receipt.holds, final=tuple(one for one in failed if one.text not in again), results=receipt.results,
            succeeded=len(did) - len(failed), failed=(("permanent", len(failed)),) if failed else (), rows=receipt.rows,
            quarantined=receipt.quarantined, again=tuple(map(key, again)),
        )  # fmt: skip
        actions: list[Action] = [Hide(keys=tuple(map(key, hide)))] if hide else []
        schema = join(self.writer.state.schema, receipt.schema)
        if schema is not None and schema != self.writer.state.schema:
            actions.append(SetSchema(schema=schema))
        self.writer.commit([*actions, Add(batches=(batch,))])
        return batch

    def _take(self, parts: Parts, index: int, rows: Rows | None) -> int:
        if rows is None:
            parts.refuse_input(index, {"check": "small", "reason": "too large", "record": '{"value": 9}'})
            return 0
        return parts.add(index, list(map(dict, rows)))

    def _attempt(self, batch: BatchSpec, text: str, rows: Rows | None, count: int) -> tuple[Any, ...]:
        outcome = FAILED if rows is None else SUCCEEDED
        known = {
            "item_key": text, "key_kind": "str", "attempt": 1, "outcome": outcome, "kind": "permanent" if rows is None else None,
            "started": 1.0, "rows": count, "batch": batch.id, "run": self.writer.run,
        }  # fmt: skip
        return tuple(known.get(name) for name in ATTEMPT_COLUMNS)


def records(store: Store, at: int | None = None) -> list[tuple[str, str, Any]]:
    """Key, check and values of what is in the quarantine, in order."""
    found = Dataset(store, at).quarantine().compute().to_dict("records")
    return sorted(((row["item_key"], row["check"], json.loads(row["record"])) for row in found), key=str)


def results(store: Store) -> list[tuple[str, Any]]:
    """Keys and values of the results that count, in order."""
    return sorted(((row["item_key"], row["n"]) for row in Dataset(store).to_arrow().to_pylist()), key=str)
