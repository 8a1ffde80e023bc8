"""A dataset written by hand, batch by batch, for what reads one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dcompute.dataset.entries import Action, Add, AddBatch, Entry, Hide, Open, SetSchema
from dcompute.dataset.parts import attempts_table, mark_name, results_name, write_attempts, write_results
from dcompute.dataset.schema import join_schemas, marked, to_text
from dcompute.dataset.state import State, fold
from dcompute.dataset.store import Store
from dcompute.records import ATTEMPT_COLUMNS, FAILED, SUCCEEDED, ItemKey, PartRef, Receipt, batch_id


@dataclass
class Did:
    """One attempt: a kind where it failed, else the rows of its result."""

    key: str
    attempt: int = 1
    failed: str | None = None
    rows: Sequence[dict[str, Any]] = ()
    extra: dict[str, Any] = field(default_factory=dict)


class Scene:
    """Writes parts and entries as a driver and its workers would."""

    def __init__(self, store: Store, name: str = "") -> None:
        self.store = store
        self.name = name  # tells the ids of its entries from those of others
        self.entries: list[Entry] = []
        self.schema: pa.Schema | None = None
        self._batches = 0

    @property
    def state(self) -> State:
        return fold(self.entries)

    def open(self, **changed: Any) -> Scene:
        action = Open(**{"epoch": 1, "run": "run", "workload": "w", "host": "h", "boot": "", "pid": 1, "started": 0.0, **changed})
        return self.commit(action)

    def commit(self, *actions: Action) -> Scene:
        number = len(self.entries) + 1
        self.entries.append(Entry(number, f"{self.name}{number:032x}", 1000.0 + number, actions))
        return self

    def publish(self) -> Scene:
        """Put dataset.json and the log where a reader looks."""
        self.store.write("dataset.json", b'{"format": [1, 0], "id": "d", "created": 0}')
        for entry in self.entries:
            self.store.write(f"log/{entry.number:020d}.json", entry.to_bytes())
        return self

    def add(self, *did: Did, left_out: Sequence[str] = (), final: Sequence[str] = ()) -> Scene:
        return self.commit(*self.schema_action(batch := self.batch(*did, left_out=left_out, final=final)), Add(batches=(batch,)))

    def hide(self, *keys: str, scope: str = "results") -> Scene:
        return self.commit(Hide(keys=tuple(key_of(key) for key in keys), scope=scope))

    def batch(self, *did: Did, left_out: Sequence[str] = (), final: Sequence[str] = ()) -> AddBatch:
        self._batches += 1
        batch = batch_id("run", 1, self._batches)
        parts = self._results(batch, did)
        receipt = Receipt(batch=batch, execution="e", holds=((0, len(did)),), results=parts)
        buffer = io.BytesIO()
        write_attempts(buffer, attempts_table([_row(one, batch) for one in did]), receipt)
        self.store.write(mark_name(batch), buffer.getvalue())
        counting = [one for one in did if one.key not in left_out]
        kinds = [one.failed for one in counting if one.failed]
        return AddBatch(
            id=batch,
            holds=receipt.holds,
            left_out=tuple(map(key_of, left_out)),
            final=tuple(map(key_of, final)),
            results=parts,
            succeeded=len(counting) - len(kinds),
            failed=tuple(sorted((kind, kinds.count(kind)) for kind in set(kinds))),
            rows=sum(part.rows for part in parts),
        )

    def schema_action(self, _batch: AddBatch) -> list[Action]:
        return [SetSchema(schema=to_text(self.schema))] if self.schema is not None else []

    def _results(self, batch: str, did: Sequence[Did]) -> tuple[PartRef, ...]:
        rows = [{"item_key": one.key, "key_kind": "str", **row} for one in did for row in one.rows]
        if not rows:
            return ()
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = marked(pa.table({name: pa.array([row.get(name) for row in rows]) for name in names}))
        self.schema = join_schemas(self.schema, table.schema)
        buffer = io.BytesIO()
        write_results(buffer, table)
        name = results_name(batch, "e", 0)
        self.store.write(name, buffer.getvalue())
        return (PartRef(name=name, size=len(buffer.getvalue()), rows=len(rows)),)


def key_of(text: str) -> ItemKey:
    return ItemKey(text, "str")


def _row(one: Did, batch: str) -> tuple[Any, ...]:
    known = {
        "item_key": one.key,
        "key_kind": "str",
        "attempt": one.attempt,
        "outcome": FAILED if one.failed else SUCCEEDED,
        "kind": one.failed,
        "started": 1.5,
        "batch": batch,
        **one.extra,
    }
    return tuple(known.get(name) for name in ATTEMPT_COLUMNS)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """An empty dataset on local disk."""
    return Scene(Store.at(tmp_path / "dataset"))


@pytest.fixture(scope="session")
def did() -> type[Did]:
    """Makes one attempt of an item."""
    return Did


@pytest.fixture(scope="session")
def new_scene() -> type[Scene]:
    """Makes more datasets in one test."""
    return Scene
