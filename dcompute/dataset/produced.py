"""Files that items produced, as the dataset knows them: rows name them from the dataset on, so that it may be moved and copied.

A file counts as long as a part that stays names it, in a row that counts or not: so what was before can be read as it was, and rows of the
quarantine can be released.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from dcompute.dataset.ahead import prefetched
from dcompute.dataset.entries import names_files
from dcompute.dataset.listing import File, below
from dcompute.dataset.meeting import FILE, FILE_KINDS
from dcompute.dataset.names import FILES, execution_of, produced_batch
from dcompute.dataset.parts import explained, source_of
from dcompute.dataset.schema import file_columns
from dcompute.dataset.state import State
from dcompute.dataset.store import Store

_URL, _SIZE, _ = FILE_KINDS


def url_columns(schema: pa.Schema) -> tuple[str, ...]:
    """The columns that say where files of items are."""
    return file_columns(schema, _URL)


def without_marks(schema: pa.Schema) -> pa.Schema:
    """A schema as readers see it."""
    marked = set(file_columns(schema))
    return pa.schema([_without(field) if field.name in marked else field for field in schema]) if marked else schema


def with_marks(schema: pa.Schema, own: pa.Schema) -> pa.Schema:
    """A schema as readers see it, with the marks that a dataset's own has for columns that say where files are."""
    urls = url_columns(own)
    return pa.schema([field.with_metadata({FILE: _URL}) if field.name in urls else field for field in schema])


def absolute(table: pa.Table, columns: Collection[str], root: str) -> pa.Table:
    """A table as readers see it: some columns name files with path or URL of the dataset, and none is marked."""
    found = [_joined(root, values) if name in columns else values for name, values in zip(table.column_names, table.columns, strict=True)]
    return pa.table(found, schema=without_marks(table.schema)) if found else table


def _joined(root: str, names: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(pa.scalar(root, names.type), names, pa.scalar("/", names.type))


def has_files(state: State) -> bool:
    """Whether rows of a dataset name files."""
    return names_files(state.schema)


def listed(store: Store) -> dict[str, File]:
    """All files that items produced, whether they count or not."""
    return {name: file for name, file in below(store, FILES).items() if produced_batch(name) is not None}


def over(state: State, files: Mapping[str, File]) -> dict[str, File]:
    """Those of some files that no run may still add."""
    return {name: file for name, file in files.items() if _is_over(state, name)}


def named(store: Store, parts: Collection[str]) -> Iterator[dict[str, int | None]]:
    """Of each part the files that its rows name, with their sizes; only the columns that say so are read.

    Raises
    ------
    DatasetCorruptError
        A part is gone, or no Parquet file.
    """
    return prefetched(lambda name: _named_in(store, name), parts, store.is_local)


def unused(store: Store, state: State, files: Collection[str], parts: Collection[str]) -> set[str]:
    """Those of some files that no part names.

    Parameters
    ----------
    store
        The dataset's.
    state
        What its log says.
    files
        That were :func:`over` before the parts were listed: no part that is not among these names one that these do not.
    parts
        All parts of results and quarantine that stay, those that count as of the state among them.

    Raises
    ------
    DatasetError
        One of the parts is gone or damaged.
    """
    # a part's own files stay with it: only for others has anything to be read
    executions = {execution_of(part) for part in parts}
    found = {name for name in files if execution_of(name) not in executions}
    if found and has_files(state):
        for names in named(store, parts):
            found.difference_update(names)
    return found


def _named_in(store: Store, name: str) -> dict[str, int | None]:
    import pyarrow.parquet as pq

    with explained(store, name), source_of(store, name) as source, pq.ParquetFile(source) as file:
        # its own marks: what a column is called now it may not have been when the part was written
        own = file.schema_arrow
        urls = url_columns(own)
        sizes = {one: f"{one.removesuffix('_url')}_size" for one in urls}
        table = file.read(columns=[*urls, *(one for one in sizes.values() if one in own.names)])
    found: dict[str, int | None] = {}
    for url in urls:
        has_size = sizes[url] in table.column_names
        each = table.column(sizes[url]) if has_size else pa.nulls(table.num_rows)
        found |= {one: size for one, size in zip(table.column(url).to_pylist(), each.to_pylist(), strict=True) if one is not None}
    return found


def _is_over(state: State, name: str) -> bool:
    batch = produced_batch(name)
    return batch is not None and state.is_over(*batch[:2])


def _without(field: pa.Field) -> pa.Field:
    metadata = {key: value for key, value in field.metadata.items() if key != FILE}
    return field.with_metadata(metadata) if metadata else field.remove_metadata()
