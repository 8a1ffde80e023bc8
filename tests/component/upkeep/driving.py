"""A driver without a cluster for tests of what happens beside it: real parts, real marks, a real log."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from dcompute.dataset.entries import Action, Add, AddBatch, Hide, setting
from dcompute.dataset.parts import attempts_table, mark_name, results_name, write_attempts, write_results
from dcompute.dataset.reading import attempts_arrow, results_arrow
from dcompute.dataset.schema import join, marked, to_text
from dcompute.dataset.store import Store
from dcompute.dataset.writer import Writer, open_dataset
from dcompute.records import ATTEMPT_COLUMNS, FAILED, SUCCEEDED, ItemKey, PartRef, Receipt, batch_id
from dcompute.testing import ManualClock

Rows = Sequence[Mapping[str, Any]]


def key(text: str) -> ItemKey:
    return ItemKey(text, "str")


class Driving:
    """One epoch of a dataset."""

    def __init__(self, store: Store, run: str = "r1") -> None:
        self.store = store
        self.writer = Writer.acquire(store, workload="flux", run=run, clock=ManualClock())
        self._number = 0

    def write(self, did: Mapping[str, Rows | None], execution: str = "e", **fields: Any) -> AddBatch:
        """Results part and mark of a batch: the rows of each key, None where it failed; nothing is committed."""
        self._number += 1
        batch = batch_id(self.writer.run, self.writer.epoch, self._number)
        table = self.table(did, batch, execution)
        parts = () if table is None else (self._part(results_name(batch, execution, 0), table),)
        schema = None if table is None else to_text(table.schema)
        receipt = Receipt(batch=batch, execution=execution, holds=((0, len(did)),), results=parts, schema=schema)
        buffer = io.BytesIO()
        write_attempts(buffer, attempts_table([self._row(text, rows, batch) for text, rows in did.items()]), receipt)
        self.store.create(mark_name(batch), buffer.getvalue())
        self.schema = schema
        counting = {text: rows for text, rows in did.items() if key(text) not in fields.get("left_out", ())}
        failed = sum(rows is None for rows in counting.values())
        return AddBatch(
            id=batch,
            holds=receipt.holds,
            results=parts,
            succeeded=len(counting) - failed,
            failed=(("permanent", failed),) if failed else (),
            rows=sum(part.rows for part in parts),
            **fields,
        )

    def table(self, did: Mapping[str, Rows | None], batch: str, execution: str) -> pa.Table | None:
        """The rows of a batch."""
        return results_table(did)

    def add(self, did: Mapping[str, Rows | None], *, hide: Sequence[str] = (), **fields: Any) -> AddBatch:
        """A batch that counts."""
        batch = self.write(did, **fields)
        actions: list[Action] = [Hide(keys=tuple(map(key, hide)))] if hide else []
        schema = join(self.writer.state.schema, self.schema)
        if schema is not None and schema != self.writer.state.schema:
            actions += setting(schema, self.writer.state.schema)
        self.writer.commit([*actions, Add(batches=(batch,))])
        return batch

    def close(self) -> None:
        self.writer.close()

    def _part(self, name: str, table: pa.Table) -> PartRef:
        buffer = io.BytesIO()
        write_results(buffer, table)
        self.store.create(name, buffer.getvalue())
        return PartRef(name=name, size=len(buffer.getvalue()), rows=table.num_rows)

    def _row(self, text: str, rows: Rows | None, batch: str) -> tuple[Any, ...]:
        failed = {"kind": "permanent", "error": "ValueError"} if rows is None else {}
        about = {"started": 1.0, "duration": 0.5, "batch": batch, "run": self.writer.run, "outcome": FAILED if rows is None else SUCCEEDED}
        known = {"item_key": text, "key_kind": "str", "attempt": 1, **about, **failed}
        return tuple(known.get(name) for name in ATTEMPT_COLUMNS)


def results_table(did: Mapping[str, Rows | None]) -> pa.Table | None:
    found = [{"item_key": text, "key_kind": "str", **row} for text, rows in did.items() for row in rows or ()]
    if not found:
        return None
    names = list(dict.fromkeys(name for row in found for name in row))
    return marked(pa.table({name: pa.array([row.get(name) for row in found]) for name in names}))


def visible(store: Store) -> Counter[str]:
    """The result rows that count."""
    return Counter(map(repr, results_arrow(store, open_dataset(store)[1]).to_pylist()))


def attempted(store: Store) -> Counter[str]:
    """The keys of the attempts that count."""
    return Counter(attempts_arrow(store, open_dataset(store)[1], ["item_key"]).column("item_key").to_pylist())


def on_storage(store: Store, schema: pa.Schema | None = None) -> Counter[str]:
    """The rows of all files in ``results``, whatever the log says."""
    import pyarrow.parquet as pq

    tables = [pq.read_table(io.BytesIO(store.read(name))) for name in store.names("results")]
    return Counter(repr(row) for table in tables for row in table.to_pylist())
