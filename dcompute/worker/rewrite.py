"""A written batch whose results do not join the dataset's schema, written once more so that they do.

Two batches in flight at the same time may meet a new column with types that cannot meet; the one committed first decides. The other one is
rewritten under a batch id of its own: rows that fit are cast, an item with rows that do not fit becomes a failed attempt, and the new mark
names the batch that it stands for. The old mark and its parts are left as they are; they never count. No user code is loaded.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from dcompute.dataset.names import new_id
from dcompute.dataset.parts import (
    ATTEMPTS_SCHEMA,
    mark_name,
    read_attempts,
    read_receipt,
    read_results,
    results_name,
    write_attempts,
    write_results,
)
from dcompute.dataset.schema import RESERVED, from_text, join, join_schemas, to_text
from dcompute.dataset.store import Store
from dcompute.errors import DatasetCorruptError, SchemaError
from dcompute.records import ATTEMPT_COLUMNS, FAILED, Failure, Kind, PartRef, Receipt
from dcompute.worker import code_cache
from dcompute.worker.asking import ask
from dcompute.worker.briefing import brief
from dcompute.worker.fitting import Fitting, Misfit
from dcompute.worker.slot import Slot

logger = logging.getLogger("dcompute.worker")

_ERROR = "dcompute.errors.SchemaError"
_BASES = ("dcompute.errors.DcomputeError", "TypeError", "Exception", "BaseException")


def rewrite_batch(run: bytes | str, old: str, new: str, schema: str | None) -> dict[str, Any]:
    """Rewrite a written batch, unless that was done before; the function of the Dask task.

    Parameters
    ----------
    run
        The pickled ``RunSpec``, or the digest under which the scheduler keeps it.
    old, new
        Ids of the batch that was written, and of the one that is to stand for it.
    schema
        The dataset's, as text; one that the run declares comes before it.

    Returns
    -------
    dict
        ``receipt`` of the new mark.

    Raises
    ------
    StoreError
        The storage failed again and again.
    """
    slot = Slot.here()
    spec = code_cache.run_spec(run, slot.worker)
    store = Store.at(spec.dataset, dict(spec.storage_options))
    declared, scratch = spec.schema is not None, slot.scratch
    # it may begin anew at any time
    receipt = ask(lambda: rewrite(store, old, new, spec.schema or schema, declared=declared, scratch=scratch)).to_json()
    slot.tell(spec.run, {"event": "receipt", "batch": new, "receipt": receipt})
    return {"receipt": receipt}


def rewrite(
    store: Store, old: str, new: str, schema: str | None, *, declared: bool = False, scratch: str | Path | None = None
) -> Receipt:  # fmt: skip
    """The receipt of a batch that stands for a written one and joins the schema.

    Parameters
    ----------
    store
        Where the dataset is.
    old, new
        Ids of the batch that was written, and of the one that is to stand for it. Item indexes stay those of the old batch.
    schema
        The dataset's, as text; where two types cannot meet it wins.
    declared
        Whether the schema was declared: other columns do not fit then.
    scratch
        Folder for files on their way to the storage; None: the system's.

    Raises
    ------
    FileNotFoundError
        The old batch has no mark.
    DatasetCorruptError
        Its mark or one of its parts is damaged or gone.
    StoreError
        The storage failed; calling again does no harm.
    """
    if store.exists(mark_name(new)):
        return read_receipt(store, mark_name(new))
    with tempfile.TemporaryDirectory(prefix="dcompute-rewrite-", dir=scratch) as folder:
        return _Rewriting(store, old, new, Fitting(schema, declared=declared), Path(folder)).execute()


def schema_after(schema: str | None, own: str | None) -> str | None:
    """The dataset's schema once a batch that does not join it is rewritten: those of its columns that can meet are joined.

    Batches settled while the rewrite is under way are held against this one, so that what is rewritten still joins when it comes.
    """
    joined = from_text(schema) if schema else pa.schema([])
    for field in from_text(own) if own else ():
        try:
            joined = join_schemas(joined, pa.schema([field]))
        except SchemaError:
            continue
    return to_text(joined) if len(joined) else schema


class Rewriter:
    """What ``Writer.adopt`` needs to take in written batches that do not join: they are rewritten here, in the calling process.

    Parameters
    ----------
    store
        Where the dataset is.
    next_id
        Gives batch ids of the epoch that adopts, each once.
    """

    def __init__(self, store: Store, next_id: Callable[[], str]) -> None:
        self._store = store
        self._next_id = next_id
        self._schema: str | None = None

    def join(self, old: str | None, new: str | None) -> str | None:
        """``dataset.schema.join``; the schema that a batch does not join is the one it is rewritten to."""
        self._schema = old
        return join(old, new)

    def rewrite(self, receipt: Receipt) -> str | None:
        """The name of the mark that stands for a batch which did not join; None where its parts are gone or damaged."""
        try:
            return mark_name(rewrite(self._store, receipt.batch, self._next_id(), self._schema).batch)
        except (FileNotFoundError, DatasetCorruptError) as error:
            logger.warning("batch %s cannot be rewritten: %s", receipt.batch, error, extra={"action": "rewrite_failed"})
            return None


class _Rewriting:
    """One rewrite of one batch."""

    def __init__(self, store: Store, old: str, new: str, fitting: Fitting, folder: Path) -> None:
        self._store = store
        self._new = new
        self._fitting = fitting
        self._folder = folder
        self._execution = new_id()
        self._was = read_receipt(store, mark_name(old))
        self._attempts = read_attempts(store, mark_name(old), ATTEMPT_COLUMNS)
        if self._attempts.num_rows != self._was.count:
            raise _corrupt(mark_name(old), f"its receipt holds {self._was.count} items, and it has {self._attempts.num_rows} rows")
        # a rewrite that does not join any more stands for what the first one stood for
        self._stands_for = self._was.stands_for or old
        self._misfits: dict[int, Misfit] = {}
        self._files: list[tuple[str, PartRef]] = []

    def execute(self) -> Receipt:
        """Write parts and mark; the receipt of the mark that is there then."""
        names = [*RESERVED, *(from_text(self._was.schema).names if self._was.schema else ())]
        for part in self._was.results:
            # all rows of an item lie in one part: what becomes of it is known when that part is written
            table = read_results(self._store, part.name, names)
            fitted, misfits = self._fitting.fit(table, self._places(table, part.name))
            self._misfits |= misfits
            if fitted.num_rows:
                self._write(fitted)
        return self._publish(self._receipt())

    def _places(self, table: pa.Table, name: str) -> Any:
        """Of each row the place of its item among the attempts."""
        import pyarrow.compute as pc

        places = pc.index_in(_keys(table), value_set=_keys(self._attempts))
        if places.null_count:
            raise _corrupt(name, "it has rows of items that its batch does not hold")
        return places.to_numpy()

    def _write(self, table: pa.Table) -> None:
        number = len(self._files)
        path = self._folder / f"results-{number}.parquet"
        write_results(str(path), table)
        name = results_name(self._new, self._execution, number)
        self._files.append((str(path), PartRef(name=name, size=path.stat().st_size, rows=table.num_rows)))

    def _receipt(self) -> Receipt:
        parts = tuple(part for _, part in self._files)
        indexes = [index for start, stop in self._was.holds for index in range(start, stop)]
        refused = {indexes[place]: _failure(indexes[place], misfit) for place, misfit in self._misfits.items()}
        failed = {failure.index: failure for failure in self._was.failures} | refused
        return replace(
            self._was,
            batch=self._new,
            execution=self._execution,
            failures=brief(failed[index] for index in sorted(failed)),
            results=parts,
            schema=to_text(self._fitting.written) if parts else None,
            joins=True,
            stands_for=self._stands_for,
            rows=sum(part.rows for part in parts),
        )

    def _publish(self, receipt: Receipt) -> Receipt:
        store, mark = self._store, mark_name(self._new)
        for path, part in self._files:
            store.upload(path, part.name)
        buffer = io.BytesIO()
        write_attempts(buffer, self._with_misfits(), receipt)
        try:
            store.create(mark, buffer.getvalue())
        except FileExistsError:
            winner = read_receipt(store, mark)
            if winner.execution != receipt.execution:  # else it was written, and only the answer was lost
                store.remove([part.name for part in receipt.results])
            return winner
        return receipt

    def _with_misfits(self) -> pa.Table:
        """The attempt rows, in which the items that do not fit have failed."""
        if not self._misfits:
            return self._attempts
        columns = {name: self._attempts.column(name).to_pylist() for name in ("outcome", "kind", "error", "message", "rows")}
        for place, misfit in self._misfits.items():
            failed = {"outcome": FAILED, "kind": Kind.PERMANENT.value, "error": _ERROR, "message": misfit.message, "rows": 0}
            for name, value in failed.items():
                columns[name][place] = value
        table = self._attempts
        for name, values in columns.items():
            field = ATTEMPTS_SCHEMA.field(name)
            table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
        return table


def _keys(table: pa.Table) -> Any:
    """Key and kind as one text a row; no kind has a NUL in it."""
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(table.column("key_kind"), table.column("item_key"), "\0").combine_chunks()


def _failure(index: int, misfit: Misfit) -> Failure:
    # the plain text: events are packed strictly, and an enumeration's member is no text there
    return Failure(index=index, kind=Kind.PERMANENT.value, error=_ERROR, bases=_BASES, message=misfit.message)


def _corrupt(name: str, why: str) -> DatasetCorruptError:
    return DatasetCorruptError(f"{name} is not what dcompute wrote ({why}): restore the file from a copy, or remove it.")
