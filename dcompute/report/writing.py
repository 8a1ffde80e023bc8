"""One partition of a result, as a Parquet file that no version names yet: a callable that Dask sends to workers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from dcompute.dataset.names import new_id
from dcompute.dataset.schema import cast, from_text, join_schemas, marked, to_text
from dcompute.dataset.store import Store
from dcompute.errors import CheckError, ReportError, SchemaError, UsageError
from dcompute.report.checks import Broken, RowCheck, example_of
from dcompute.report.versions import File

#: The column in which a partition says what was written of it.
SAID = "said"
#: Types of pandas that a file would hold as bare numbers.
_BARE = {
    "pandas.period": "periods, of which only numbers would be stored: make times of them, as with frame.month.dt.to_timestamp()",
    "pandas.interval": "intervals, of which it would not be stored which ends they have: make columns of their ends, as with "
    "frame.bin.array.left",
}


@dataclass(frozen=True, slots=True)
class Written:
    """What was written of one partition."""

    file: File | None  #: None: it has no rows
    schema: str
    broken: tuple[Broken, ...]


@dataclass(frozen=True)
class Write:
    """Writes partitions, each to a file with a name of its own."""

    __name__: ClassVar[str] = "dcompute-report"  # what Dask calls its tasks

    report: str
    store: Store
    folder: str
    schema: pa.Schema | None  #: that is promised
    checks: tuple[RowCheck, ...]
    run: str  #: random

    def __call__(self, frame: Any) -> Any:
        """Write a dataframe; gives one with what was written, as JSON."""
        import pandas as pd

        written = self.table(arrow_of(self.report, frame))
        said = {
            "file": None if written.file is None else [written.file.name, written.file.size, written.file.rows],
            "schema": written.schema,
            "broken": [[one.check, one.rows, one.example] for one in written.broken],
        }
        return pd.DataFrame({SAID: [json.dumps(said)]})

    def table(self, table: pa.Table) -> Written:
        """Write a table."""
        table = marked(table) if self.schema is None else _promised(self.report, table, self.schema)
        schema = to_text(table.schema)
        if not table.num_rows:
            return Written(None, schema, ())
        broken = tuple(_broken(self.report, check, table) for check in self.checks)
        name = f"{self.folder}/{new_id()}.parquet"
        with tempfile.TemporaryDirectory(prefix="dcompute-") as folder:
            path = Path(folder) / "part.parquet"
            pq.write_table(table, path, compression="zstd")
            self.store.upload(path, name)
            size = path.stat().st_size
        return Written(File(name=name, size=size, rows=table.num_rows), schema, tuple(one for one in broken if one is not None))


def said(answers: Iterable[str]) -> list[Written]:
    """What partitions said."""
    found = []
    for text in answers:
        one = json.loads(text)
        file = None if one["file"] is None else File(name=one["file"][0], size=one["file"][1], rows=one["file"][2])
        found.append(Written(file, one["schema"], tuple(Broken(*each) for each in one["broken"])))
    return found


def common_schema(report: str, texts: Iterable[tuple[str, int]], promised: pa.Schema | None) -> pa.Schema:
    """The schema that holds the rows of all files.

    Parameters
    ----------
    report
        Its name.
    texts
        Schema and number of rows of each partition; those without rows count only where there is no other.
    promised
        The one that was declared.
    """
    if promised is not None:
        return promised
    known = list(texts)
    schema: pa.Schema | None = None
    for text in dict.fromkeys(text for text, rows in known if rows or not any(count for _, count in known)):
        try:
            schema = join_schemas(schema, from_text(text))
        except SchemaError as error:
            raise ReportError(
                f"report {report!r}: column {error.column!r} is {error.types[0]} in one partition of the result and {error.types[1]} in "
                "another; these two cannot meet. Have the function return one type, or declare schema="
            ) from error
    return pa.schema([]) if schema is None else schema


def promised_schema(given: Any) -> pa.Schema | None:
    """The schema that a user declares: one of Arrow, or names and types.

    Raises
    ------
    UsageError
        It is neither.
    """
    if given is None or isinstance(given, pa.Schema):
        return given
    try:
        pairs = given.items() if isinstance(given, Mapping) else given
        return pa.schema([(name, pa.type_for_alias(type_) if isinstance(type_, str) else type_) for name, type_ in pairs])
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise UsageError(f'schema={given!r}: give an Arrow schema, or names and types such as {{"station": "string"}} ({error})') from error


def arrow_of(report: str, frame: Any) -> pa.Table:
    """A dataframe or a table as Arrow has it; a named index becomes columns, any other is left out."""
    if isinstance(frame, pa.Table):
        return frame
    if not hasattr(frame, "columns"):
        frame = frame.to_frame()
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    strange = [name for name in frame.columns if not isinstance(name, str)]
    if strange:
        raise ReportError(
            f"report {report!r}: the result has a column named {strange[0]!r}, and names of columns are text: rename it, as with "
            'frame.columns = ["station", "mean"]'
        )
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    for field in table.schema:
        if isinstance(field.type, pa.BaseExtensionType) and field.type.extension_name in _BARE:
            raise ReportError(f"report {report!r}: column {field.name!r} has {_BARE[field.type.extension_name]}")
    return table


def _promised(report: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
    missing, more = _unlike(schema.names, table.column_names), _unlike(table.column_names, schema.names)
    if missing or more:
        words = [f"lacks {', '.join(missing)}" if missing else "", f"has {', '.join(more)} too" if more else ""]
        raise ReportError(f"report {report!r}: the result {' and '.join(filter(None, words))}, against what schema= promises")
    try:
        return cast(marked(table), schema)
    except SchemaError as error:
        value = f", and {error.value} does not fit" if error.value else ""
        raise ReportError(
            f"report {report!r}: column {error.column!r} of the result is {error.types[1]} where schema= promises {error.types[0]}{value}",
            example=error.value,
        ) from error


def _broken(report: str, check: RowCheck, table: pa.Table) -> Broken | None:
    try:
        bad = check.broken(table)
    except (pa.ArrowException, CheckError) as error:
        raise ReportError(
            f"report {report!r}: the check {check.name!r} cannot be asked of its result: {error}", check=check.name
        ) from error
    return Broken(check.name, bad.num_rows, example_of(bad)) if bad.num_rows else None


def _unlike(names: Sequence[str], others: Sequence[str]) -> list[str]:
    return [name for name in names if name not in others]
