"""Takes the rows that do not pass their checks out of a batch's results, into parts of the quarantine.

All is judged before anything is taken: where a check raises, the items of a table are judged again in halves.
"""

from __future__ import annotations

import base64
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dcompute.checks.judging import Broken, judge
from dcompute.checks.travel import RunChecks
from dcompute.dataset.names import quarantine_name
from dcompute.dataset.quarantined import INPUT, QUARANTINE_SCHEMA, RESULT, write_quarantine
from dcompute.dataset.schema import RESERVED, cast
from dcompute.errors import CheckFailed
from dcompute.records import BatchSpec, Failure, PartRef
from dcompute.secrecy import shown_value
from dcompute.worker.refusal import refusal

_KEYS = pa.schema([(name, pa.string()) for name in RESERVED])
#: A record of more characters has its values cut in the text for people.
_LONGEST = 20_000


class Record(NamedTuple):
    """What the quarantine says of one record, beside its key."""

    item: int  #: its place in the batch
    source: str
    check: str
    reason: str
    record: str


class Sieve:
    """The records of one execution of a batch that do not pass.

    Parameters
    ----------
    folder
        Where the files are written.
    run, batch, execution
        What is executed: id, batch, and random id.
    checks
        What is checked.
    now
        Seconds since 1970.
    """

    def __init__(
        self, folder: Path, run: str, batch: BatchSpec, execution: str, checks: RunChecks, *, now: Callable[[], float] = time.time
    ) -> None:  # fmt: skip
        self._folder = folder
        self._run = run
        self._batch = batch
        self._execution = execution
        self._checks = checks
        self._now = now
        self._records: list[Record] = []
        self._rows: list[tuple[int, pa.Table]] = []  # place of the first of them among the records
        self.counts: Counter[int] = Counter()  #: records by index of their item
        self.refused: dict[int, Failure] = {}  #: items that fail for their rows, by index
        self.columns: dict[str, None] = {}  #: of the rows that were taken
        self.parts: list[PartRef] = []  #: written
        self.files: list[tuple[str, str]] = []  #: local path and name in the dataset

    @property
    def nbytes(self) -> int:
        """Bytes of rows that are held."""
        return sum(table.nbytes for _, table in self._rows)

    def judge(self, table: pa.Table, schema: pa.Schema) -> Broken:
        """What the checks say of rows, which have their keys; they see the columns of the schema, too.

        Raises
        ------
        CheckError
            A check raised, or did not say of each row whether it passes.
        """
        return judge(self._checks.rows, cast(table, pa.schema([*_KEYS, *schema])), RESERVED)

    def take(self, table: pa.Table, indexes: Any, broken: Broken) -> pa.Table:
        """The rows that stay.

        Parameters
        ----------
        table
            With keys.
        indexes
            Of the item of each row.
        broken
            Which do not pass.
        """
        if not len(broken.rows):
            return table
        places = np.asarray(indexes)
        own = places[broken.rows]
        rows = table.take(pa.array(broken.rows)).drop_columns(list(RESERVED))
        self._note(rows, own.tolist(), broken)
        if self._checks.refuses:
            self._refuse(places, own, broken)
            return table.filter(pa.array(~np.isin(places, own)))
        stay = np.ones(table.num_rows, dtype=bool)
        stay[broken.rows] = False
        return table.filter(pa.array(stay))

    def refuse_input(self, index: int, check: str, reason: str, record: str) -> None:
        """Note an item that was not executed, as its input does not pass."""
        self._records.append(Record(index, INPUT, check, reason, record))
        self.counts[index] += 1

    def write(self, schema: pa.Schema) -> None:
        """Write what is held.

        Parameters
        ----------
        schema
            Of all the batch's rows so far.
        """
        records, self._records = self._records, []
        held, self._rows = self._rows, []
        if not records:
            return
        number = len(self.parts)
        path = self._folder / f"quarantine-{number}.parquet"
        write_quarantine(str(path), self._about(records), _together(held, len(records), schema))
        name = quarantine_name(self._batch.id, self._execution, number)
        self.parts.append(PartRef(name=name, size=path.stat().st_size, rows=len(records)))
        self.files.append((str(path), name))

    def _note(self, rows: pa.Table, indexes: Sequence[int], broken: Broken) -> None:
        if rows.num_columns:
            self._rows.append((len(self._records), rows))
        self.columns.update(dict.fromkeys(rows.column_names))
        self._records += map(Record, indexes, [RESULT] * len(indexes), broken.names, broken.reasons, _texts(rows, len(indexes)))
        self.counts.update(indexes)

    def _refuse(self, places: Any, own: Any, broken: Broken) -> None:
        returned = dict(zip(*(counts.tolist() for counts in np.unique(places, return_counts=True)), strict=True))
        for index, reason in zip(own.tolist(), broken.reasons, strict=True):
            if index not in self.refused:
                count, all_ = int((own == index).sum()), returned[index]
                text = f"{count:,} of its {all_:,} row{'s do' if all_ != 1 else ' does'} not pass: {reason}"
                self.refused[index] = refusal(index, CheckFailed, text)

    def _about(self, records: Sequence[Record]) -> pa.Table:
        batch, indexes = self._batch, [record.item for record in records]
        keys = [batch.keys[index] for index in indexes]
        columns = {
            "item_key": [key.text for key in keys],
            "key_kind": [key.kind for key in keys],
            "attempt": [batch.attempts[index] for index in indexes],
            **{name: [getattr(record, name) for record in records] for name in ("source", "check", "reason", "record")},
            "time": pa.repeat(pa.scalar(round(self._now() * 1e6), pa.timestamp("us", tz="UTC")), len(records)),
            "run": [self._run] * len(records),
            "batch": [batch.id] * len(records),
            "fingerprint": [batch.fingerprints[index] for index in indexes],
        }
        return pa.table([_column(columns[field.name], field) for field in QUARANTINE_SCHEMA], schema=QUARANTINE_SCHEMA)


def _column(values: Any, field: pa.Field) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values, field.type)
    except UnicodeEncodeError:  # a half character in a record's text
        return pa.array([value.encode("utf-8", "backslashreplace").decode() for value in values], field.type)


def _together(held: Sequence[tuple[int, pa.Table]], count: int, schema: pa.Schema) -> pa.Table | None:
    """The rows of all records, nulls where a record is no row."""
    if not held:
        return None
    names = {name for _, table in held for name in table.column_names}
    wanted = pa.schema([field for field in schema if field.name in names])
    tables, end = [], 0
    for start, table in held:
        tables += [_nulls(wanted, start - end), cast(table, wanted)]
        end = start + table.num_rows
    # the schema's own fields: a table that needed no cast has no marks
    return pa.table(pa.concat_tables([*tables, _nulls(wanted, count - end)]).columns, schema=wanted)


def _nulls(schema: pa.Schema, count: int) -> pa.Table:
    return pa.table([pa.nulls(count, field.type) for field in schema], schema=schema)


def _texts(rows: pa.Table, count: int) -> list[str]:
    """Each row as JSON for people."""
    try:
        return [text_of(row) for row in rows.to_pylist()] if rows.num_columns else ["{}"] * count
    except (ValueError, OverflowError, ArithmeticError):  # a time that Python has no form for
        return [json.dumps({name: str(rows.column(name)[place]) for name in rows.column_names}) for place in range(count)]


def text_of(record: Any) -> str:
    """A record as JSON; what JSON does not know is text."""
    text = json.dumps(_plain(record), ensure_ascii=False)
    if len(text) <= _LONGEST:
        return text
    cut = {name: shown_value(name, value) for name, value in record.items()} if isinstance(record, dict) else shown_value("value", record)
    return json.dumps(cut, ensure_ascii=False)[: 4 * _LONGEST]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else str(value)
