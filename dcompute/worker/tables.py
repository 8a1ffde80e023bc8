"""The parts of one batch, made of its items' rows.

Columns are typed for thousands of items at once. Only where their types do not meet are the guilty items looked for, by halving, in the
order of the batch: the schema known so far wins, a guilty item becomes a permanent failure, and its neighbours are untouched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dcompute.dataset.logs import write_logs
from dcompute.dataset.meeting import FILE_KINDS
from dcompute.dataset.names import logs_name, produced_name
from dcompute.dataset.parts import mark_name, results_name, write_attempts, write_results
from dcompute.dataset.schema import cast, from_text, join_schemas, marked, to_text
from dcompute.errors import CheckError, SchemaError, UsageError
from dcompute.records import STREAMS, BatchSpec, Failure, PartRef, Receipt, RunSpec
from dcompute.secrecy import shown_value
from dcompute.worker.attempts import Attempts
from dcompute.worker.blocks import MOST_COLUMNS, Entry, blocks, fitted, table_of
from dcompute.worker.briefing import brief
from dcompute.worker.collected import Collected, collect, columns_in, set_apart, with_columns
from dcompute.worker.produced import columns_of, taken_apart
from dcompute.worker.refusal import refusal
from dcompute.worker.rows import Rows, count, decode
from dcompute.worker.work import files_folder

if TYPE_CHECKING:
    from dcompute.worker.sieve import Sieve

#: A results part is written when so many bytes are held.
PART_BYTES = 128 * 2**20
#: Rows are made columns when so many bytes or rows of them wait.
WAITING_BYTES, WAITING_ROWS = 16 * 2**20, 65_536
#: What a row takes where nobody says.
ROW_BYTES = 64


class Parts:
    """Makes the results parts and the attempts part of one execution of a batch.

    Parameters
    ----------
    folder
        Where the files are written.
    run, batch
        What is executed; the schema that the run declares, or that the dataset had when the batch was sent, is the one known so far.
    execution
        Random id of this execution.
    part_bytes
        A results part is written when so many bytes are held; less where the child may use little memory.
    """

    def __init__(self, folder: str | Path, run: RunSpec, batch: BatchSpec, execution: str, *, part_bytes: int = PART_BYTES) -> None:
        self._folder = Path(folder)
        self._batch = batch
        self._execution = execution
        self._part_bytes = part_bytes
        self._declared = from_text(run.schema) if run.schema else None
        known = run.schema or batch.schema
        self._schema = from_text(known) if known else pa.schema([])
        self._keys: tuple[pa.Array, pa.Array] | None = None
        self._waiting: list[Entry] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._held: list[pa.Table] = []
        self._results: list[PartRef] = []
        self._columns: dict[str, None] = {}
        self._refused: dict[int, Failure] = {}
        self._logs: tuple[PartRef, ...] = ()
        self._produced: dict[int, tuple[Collected, ...]] = {}
        self._sieve = _sieve(self._folder, run, batch, execution) if run.checks else None
        self.files: list[tuple[str, str]] = []  #: local path and name in the dataset: of items, results, the attempts part last

    def add(self, index: int, rows: Rows, size: int = 0) -> int:
        """Take the rows of an item that succeeded.

        Parameters
        ----------
        index
            Place of the item in its batch.
        rows
            What ``rows.to_rows`` or ``rows.decode`` gave.
        size
            About how many bytes they take, where that is known.

        Returns
        -------
        int
            How many rows these are.
        """
        number = 1 if type(rows) is dict else count(rows)
        if not number:
            return 0
        self._waiting.append((index, rows))
        self._waiting_rows += number
        self._waiting_bytes += size or (ROW_BYTES * number if type(rows) is dict or type(rows) is list else rows.nbytes)  # type: ignore[union-attr]
        if self._waiting_rows >= WAITING_ROWS or self._waiting_bytes >= WAITING_BYTES:
            self._settle_waiting()
        return number

    @property
    def has_files(self) -> bool:
        """Whether items asked for files."""
        return files_folder(self._folder).is_dir()

    def add_with_files(self, index: int, payload: bytes) -> int:
        """Take rows with the files that the item produced, as they stand in the journal; one that wrote no such file has failed.

        Parameters
        ----------
        index
            Place of the item in its batch.
        payload
            What ``produced.Outputs.noted`` gave.

        Returns
        -------
        int
            How many rows these are.
        """
        produced, encoded = taken_apart(payload)
        rows, folder = decode(encoded), files_folder(self._folder)
        try:
            files = tuple(collect(one, folder, produced_name(self._batch.id, self._execution, index, one.name)) for one in produced)
            rows = with_columns(rows, files)
        except (SchemaError, UsageError) as error:
            self._refuse((index, rows), error)
            return 0
        self._produced[index] = files
        return self.add(index, rows, len(payload))

    def refuse_input(self, index: int, about: Mapping[str, str]) -> None:
        """Take an item that was not executed, as its input does not pass a check: what the quarantine says of it."""
        if self._sieve is not None:
            self._sieve.refuse_input(index, about["check"], about["reason"], about["record"])

    def add_logs(self, long: Sequence[Mapping[int, tuple[str, int]]], items: Collection[int]) -> None:
        """Write the log part: what items printed, by stream and index, with the bytes of all that they printed."""
        held, batch = set(items), self._batch
        rows = [
            (*batch.keys[index], batch.attempts[index], stream, *texts[index])
            for stream, texts in zip(STREAMS, long, strict=True)
            for index in sorted(held.intersection(texts))
        ]
        if not rows:
            return
        path = self._folder / "logs.parquet"
        write_logs(str(path), rows)
        name = logs_name(batch.id, self._execution)
        self._logs = (PartRef(name=name, size=path.stat().st_size, rows=len(rows)),)
        self.files.append((str(path), name))

    def finish(
        self,
        attempts: Attempts | Sequence[Sequence[Any]],
        *,
        failures: Iterable[Failure] = (),
        holds: Sequence[tuple[int, int]] | None = None,
        slot_seconds: float = 0.0,
        setup_seconds: float = 0.0,
        leftovers: int = 0,
    ) -> Receipt:
        """Write what is held and the attempts part.

        Parameters
        ----------
        attempts
            In the order of the batch; rows have the order of ``records.ATTEMPT_COLUMNS``.
        failures
            Those of the items, by index.
        holds
            Half-open ranges of the item indexes that have an attempt; told from the attempts' keys where None.
        slot_seconds, setup_seconds, leftovers
            As in the receipt.

        Returns
        -------
        Receipt
            The one that lies in the attempts part; :attr:`files` is complete then.
        """
        self._settle_waiting()
        self._write()
        # also those of items that are refused for their rows: these are in the quarantine, and may be released
        kept = [one for index, files in self._produced.items() if index not in self._refused for one in files]
        self.files[:0] = [(one.path, one.name) for one in kept]
        self._write_quarantine()
        if self._sieve is not None:
            self.files += self._sieve.files
            self._refused |= self._sieve.refused
        rows = attempts if isinstance(attempts, Attempts) else Attempts.of_rows(attempts)
        self._refuse_in(rows)
        failed = {failure.index: failure for failure in failures} | self._refused
        receipt = replace(
            self._receipt(rows, [failed[index] for index in sorted(failed)]),
            holds=tuple(holds) if holds is not None else self._holds(rows),
            slot_seconds=slot_seconds,
            setup_seconds=setup_seconds,
            leftovers=leftovers,
        )
        path = self._folder / "attempts.parquet"
        write_attempts(str(path), rows.table(), receipt)
        self.files.append((str(path), mark_name(self._batch.id)))
        return receipt

    def _settle_waiting(self) -> None:
        entries, self._waiting = self._waiting, []
        self._waiting_rows = self._waiting_bytes = 0
        if entries:
            self._settle(entries)
        if sum(table.nbytes for table in self._held) >= self._part_bytes:
            self._write()
        if self._sieve is not None and self._sieve.nbytes >= self._part_bytes:
            self._write_quarantine()

    def _settle(self, entries: list[Entry]) -> None:
        try:
            made, schema = self._typed(entries)
            broken = [self._sieve.judge(table, schema) for table, _ in made] if self._sieve is not None else []
        except (CheckError, SchemaError, pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            if len(entries) == 1:
                self._refuse(
                    entries[0], error if isinstance(error, CheckError | SchemaError) else SchemaError(f"Its rows make no table: {error}")
                )
                return
            middle = len(entries) // 2
            self._settle(entries[:middle])
            self._settle(entries[middle:])
        else:
            self._schema = schema
            for place, (table, indexes) in enumerate(made):
                self._columns.update(dict.fromkeys(table.column_names[2:]))
                self._hold(table if self._sieve is None else self._sieve.take(table, indexes, broken[place]))

    def _hold(self, table: pa.Table) -> None:
        if table.num_rows:
            self._held.append(table)

    def _typed(self, entries: list[Entry]) -> tuple[list[tuple[pa.Table, Any]], pa.Schema]:
        schema, tables = self._schema, []
        files = self._columns_of_files(entries) if self._produced else {}
        for block in blocks(entries):
            table, indexes = table_of(block)
            table, theirs = set_apart(table, files) if files else (table, None)
            if self._declared is not None:
                table = fitted(table, self._declared)
            else:
                table = marked(table)
                schema = join_schemas(schema, table.schema)
            if theirs is not None:  # nobody need declare these
                schema = join_schemas(schema, theirs.schema)
                table = pa.table([*table.columns, *theirs.columns], [*table.column_names, *theirs.column_names])
            tables.append((self._with_keys(table, indexes), indexes))
        if len(schema) > MOST_COLUMNS:
            raise SchemaError(f"A result takes the dataset beyond {MOST_COLUMNS} columns: return many rows instead of many columns.")
        return tables, schema

    def _columns_of_files(self, entries: Sequence[Entry]) -> dict[str, bytes]:
        """Those that say where files of these items are, and what each says."""
        own = {index: {name for one in self._produced.get(index, ()) for name in columns_of(one.column)} for index, _ in entries}
        produced = [one for index, _ in entries for one in self._produced.get(index, ())]
        files = {name: kind for one in produced for name, kind in zip(columns_of(one.column), FILE_KINDS, strict=True)}
        for index, rows in entries:
            if files and (both := files.keys() & (columns_in(rows) - own[index])):
                raise SchemaError(f"Column {min(both)!r} is of a file of one item, and another returned it.", column=min(both))
        return files

    def _with_keys(self, table: pa.Table, indexes: Any) -> pa.Table:
        if self._keys is None:
            keys = self._batch.keys
            self._keys = (pa.array([key.text for key in keys], pa.string()), pa.array([key.kind for key in keys], pa.string()))
        places = pa.array(indexes, pa.int64())
        columns = [keys.take(places) for keys in self._keys]
        return pa.table([*columns, *table.columns], names=["item_key", "key_kind", *table.column_names])

    def _refuse(self, entry: Entry, error: CheckError | SchemaError | UsageError) -> None:
        item, rows = entry
        message = error.message if isinstance(error, CheckError | SchemaError) else str(error)
        if isinstance(error, SchemaError) and error.column and not error.value and (value := _first_value(rows, error.column)):
            message = f"{message} The value is {value}."
        self._refused[item] = refusal(item, type(error), message)

    def _write(self) -> None:
        tables, self._held = self._held, []
        if not tables:
            return
        schema = self._part_schema()
        # the schema's own fields: a table that needed no cast has no marks
        whole = pa.table(pa.concat_tables([cast(table, schema) for table in tables]).columns, schema=schema)
        number = len(self._results)
        path = self._folder / f"results-{number}.parquet"
        write_results(str(path), whole)
        name = results_name(self._batch.id, self._execution, number)
        self._results.append(PartRef(name=name, size=path.stat().st_size, rows=whole.num_rows))
        self.files.append((str(path), name))

    def _write_quarantine(self) -> None:
        if self._sieve is not None:
            self._sieve.write(self._schema)

    def _part_schema(self) -> pa.Schema:
        own = [field for field in self._schema if field.name in self._columns]
        return pa.schema([pa.field("item_key", pa.string()), pa.field("key_kind", pa.string()), *own])

    def _refuse_in(self, attempts: Attempts) -> None:
        """Make failures of the refused items' attempts, and say what is in the quarantine."""
        counts = {} if self._sieve is None else self._sieve.counts
        if not self._refused and not counts:
            return
        index_of = {key: index for index, key in enumerate(self._batch.keys)}
        places = {index_of[key]: place for place, key in enumerate(attempts.whose())}
        attempts.fail({places[index]: failure for index, failure in self._refused.items() if index in places})
        attempts.quarantine({places[index]: count for index, count in counts.items() if index in places})

    def _receipt(self, attempts: Attempts, failures: list[Failure]) -> Receipt:
        return Receipt(
            batch=self._batch.id,
            execution=self._execution,
            holds=(),
            failures=brief(failures),
            results=tuple(self._results),
            quarantined=() if self._sieve is None else tuple(self._sieve.parts),
            logs=self._logs,
            schema=to_text(pa.schema([field for field in self._schema if field.name in self._columns])) if self._has_rows else None,
            rows=sum(part.rows for part in self._results),
            seconds=attempts.total("duration"),
            host=attempts.first("host"),
            worker=attempts.first("worker"),
            peak_memory=attempts.largest("peak_memory"),
        )

    @property
    def _has_rows(self) -> bool:
        return bool(self._results) or (self._sieve is not None and bool(self._sieve.columns))

    def _holds(self, attempts: Attempts) -> tuple[tuple[int, int], ...]:
        if len(attempts) == len(self._batch):
            return ((0, len(attempts)),) if len(attempts) else ()
        place = {key: index for index, key in enumerate(self._batch.keys)}
        return ranges(place[key] for key in attempts.whose())


def _sieve(folder: Path, run: RunSpec, batch: BatchSpec, execution: str) -> Sieve:
    # who checks nothing loads nothing for it
    from dcompute.checks.travel import opened
    from dcompute.worker.sieve import Sieve

    return Sieve(folder, run.run, batch, execution, opened(run.checks))


def ranges(indexes: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Half-open ranges of the indexes, in ascending order."""
    found: list[tuple[int, int]] = []
    for index in sorted(indexes):
        if found and found[-1][1] == index:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return tuple(found)


def _first_value(rows: Any, name: str) -> str:
    if isinstance(rows, pa.Table):
        if name not in rows.column_names:
            return ""
        return next((shown_value(name, value.as_py()) for value in rows.column(name) if value.is_valid), "")
    each = [rows] if type(rows) is dict else rows
    return next((shown_value(name, row[name]) for row in chain(each) if row.get(name) is not None), "")
