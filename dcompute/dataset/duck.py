"""The results as a relation of DuckDB: its own reader on the files that count, joined with what of them does not."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa

from dcompute.dataset.files import Alike, alike, is_hit
from dcompute.dataset.foreign import refuse_wide_decimals, without_halves
from dcompute.dataset.produced import url_columns
from dcompute.dataset.reading import reading_results, results_schema
from dcompute.dataset.renames import Renames
from dcompute.dataset.schema import cast as brought
from dcompute.dataset.state import CountedPart, State
from dcompute.dataset.store import Store
from dcompute.errors import UsageError

# of more kinds of columns than this DuckDB makes the union itself, which reads each footer twice more
_MOST_KINDS = 32
_READS_FSSPEC = 2
# names that no column of a result is likely to have
_FILE, _PART, _POSITION, _HIDDEN = "dcompute file", "dcompute part", "dcompute position", "dcompute hidden"
_TEXT, _KIND = "dcompute text", "dcompute kind"
_FLOATS = re.compile(r"\b(FLOAT|DOUBLE)\b")
_NUMBERS = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE"})


def relation(connection: Any, store: Store, state: State) -> Any:
    """The results that count, in the columns and types of the dataset.

    DuckDB reads the files itself, unless it takes a column for another type than Arrow does (durations) or for another column (a file with
    names that differ in case only), or cannot read from this storage; then all rows are read here, into memory.

    Parameters
    ----------
    connection
        Of DuckDB.
    store
        The dataset's.
    state
        What its log says.
    """
    schema = results_schema(state)
    parts = [part for part in state.counted_parts() if part.rows]
    types = types_of(connection, schema)
    touched = is_hit(state, parts)
    found = _of_files(connection, store, parts, types, with_file=touched, renames=state.renames) if parts else None
    if found is None:
        return in_memory(connection, reading_results(store, state).to_arrow())
    urls = url_columns(schema)
    if touched:
        found = _counting(connection, state, parts, found)
    elif not urls:
        return found
    return found.project(
        ", ".join(f"{_text(store.url)} || '/' || {_quoted(name)} AS {_quoted(name)}" if name in urls else _quoted(name) for name in types)
    )


def types_of(connection: Any, schema: pa.Schema) -> dict[str, str]:
    """DuckDB's names of the types of columns.

    Raises
    ------
    UsageError
        It has no form for one, or gives one another name.
    """
    refuse_wide_decimals(schema, "DuckDB")
    found = in_memory(connection, schema.empty_table())
    other = {name.casefold() for name, its in zip(schema.names, found.columns, strict=True) if name != its}
    if other:
        named = ", ".join(repr(name) for name in schema.names if name.casefold() in other)
        raise UsageError(
            f"DuckDB would give other names to some of the columns {named}: its names are not empty, and differ in more than case. Rename "
            "columns, with rename(), or read those that you need with to_arrow(columns=...), which DuckDB takes too"
        )
    return dict(zip(schema.names, map(str, found.types), strict=True))


def in_memory(connection: Any, table: pa.Table) -> Any:
    """A relation of rows that are in memory."""
    return connection.from_arrow(brought(table, without_halves(table.schema)))


def cast(found: Any, types: Mapping[str, str]) -> Any:
    """A relation in just these columns and types; absent ones are null."""
    columns = [f"CAST({_quoted(name) if name in found.columns else 'NULL'} AS {type_}) AS {_quoted(name)}" for name, type_ in types.items()]
    return found.project(", ".join(columns))


def _of_files(
    connection: Any, store: Store, parts: Sequence[CountedPart], types: dict[str, str], *, with_file: bool, renames: Renames
) -> Any:
    """All rows of the parts in these types; None where DuckDB reads a column as something else."""
    import duckdb

    if not store.is_local:
        # DuckDB 1.4 and 1.5 hold the interpreter while threads of theirs wait for it to read through fsspec, for ever
        if int(duckdb.__version__.partition(".")[0]) < _READS_FSSPEC:
            return None
        # raises where this connection has one for the protocol already
        with contextlib.suppress(duckdb.Error):
            connection.register_filesystem(store.fs)
    kinds = alike(store, parts, renames)
    if len(kinds) > _MOST_KINDS:
        if renames:  # in one union a name would stand for columns of several names
            return None
        kinds = [Alike(pa.schema([]), {}, list(parts))]
    if not all(_can_be_told(kind.columns.names) for kind in kinds):
        return None
    try:
        read = [_of_alike(connection, store, kind, types, with_file, len(kind.columns) == 0) for kind in kinds]
    except duckdb.Error:  # types that DuckDB does not know, or does not bring together
        return None
    found = [one for one in read if one is not None]
    return reduce(lambda a, b: a.union(b), found) if len(found) == len(read) else None


def _can_be_told(names: Collection[str]) -> bool:
    # to DuckDB "n" and "N" are one name, and it has no empty one
    return len({name.casefold() for name in names}) == len(names) and all(names)


def _of_alike(connection: Any, store: Store, kind: Alike, types: dict[str, str], with_file: bool, by_name: bool) -> Any:
    paths = [_address(store, part) for part in kind.parts]
    # of parts that are alike one tells the types of all, and what is asked of ten thousand is asked once
    found = connection.sql(f"SELECT * FROM {_reader(paths if by_name else paths[:1], by_name, with_file)}")  # noqa: S608  all text is quoted
    has = {name: str(type_) for name, type_ in zip(found.columns, found.types, strict=True)}
    nulls = {field.name for field in kind.columns if pa.types.is_null(field.type)}
    stored = {name: name for name in has} if by_name else kind.stored
    columns = [_selected(name, type_, stored.get(name, ""), has=has, nulls=nulls) for name, type_ in types.items()]
    if not all(columns):
        return None
    if with_file:
        # on a storage that is not local DuckDB may spell the rest of a path in another way
        columns.append(f"split_part({_quoted(_FILE)}, '/', -1) AS {_quoted(_FILE)}")
    return connection.sql(f"SELECT {', '.join(columns)} FROM {_reader(paths, by_name, with_file)}")  # noqa: S608


def _reader(paths: Sequence[str], by_name: bool, with_file: bool) -> str:
    options = f"hive_partitioning = false, union_by_name = {by_name}, filename = {_text(_FILE) if with_file else False}"
    return f"read_parquet([{', '.join(map(_text, paths))}], {options})"


def _selected(name: str, type_: str, stored: str, *, has: Mapping[str, str], nulls: Collection[str]) -> str:
    """A column in the type of the dataset; "" where DuckDB has it as something else."""
    if stored not in has or stored in nulls:
        return f"CAST(NULL AS {type_}) AS {_quoted(name)}"
    # DuckDB too takes the least and the greatest value of a file for all that is in it, and these know no NaN; TRY has no bounds
    value = f"TRY({_quoted(stored)})" if _FLOATS.search(has[stored]) else _quoted(stored)
    if has[stored] == type_:
        return f"{value} AS {_quoted(name)}"
    return f"CAST({value} AS {type_}) AS {_quoted(name)}" if _may_cast(has[stored], type_) else ""


def _may_cast(has: str, type_: str) -> bool:
    return {has, type_} <= _NUMBERS or (has.startswith("TIMESTAMP") and type_.startswith("TIMESTAMP"))


def _counting(connection: Any, state: State, parts: Sequence[CountedPart], found: Any) -> Any:
    """The rows that count: no later hide has their key, and it is not left out of their part."""
    placed = pa.table({_PART: [_base(part) for part in parts], _POSITION: [part.position for part in parts]})
    hidden = pa.table(
        {
            _TEXT: pa.array([key.text for key in state.hides], pa.string()),
            _KIND: pa.array([key.kind for key in state.hides], pa.string()),
            _HIDDEN: pa.array(list(state.hides.values()), pa.int64()),
        }
    )
    keys = [(_base(part), *key) for part in parts for key in part.left_out]
    left_out = pa.table({name: pa.array([key[place] for key in keys], pa.string()) for place, name in enumerate((_FILE, _TEXT, _KIND))})
    same_key = f'r.item_key = h."{_TEXT}" AND r.key_kind = h."{_KIND}"'
    read = found.set_alias("f").join(connection.from_arrow(placed).set_alias("p"), f'f."{_FILE}" = p."{_PART}"').set_alias("r")
    hides = connection.from_arrow(hidden).set_alias("h")
    counting = read.join(hides, f'{same_key} AND r."{_POSITION}" < h."{_HIDDEN}"', how="anti").set_alias("r")
    return counting.join(connection.from_arrow(left_out).set_alias("h"), f'{same_key} AND r."{_PART}" = h."{_FILE}"', how="anti")


def _address(store: Store, part: CountedPart) -> str:
    path = store.path(part.name) if store.is_local else f"{store.url}/{part.name}"
    # each would be a pattern
    return re.sub(r"[*?\[]", r"[\g<0>]", path)


def _base(part: CountedPart) -> str:
    return part.name.rpartition("/")[2]


def _text(value: str) -> str:
    doubled = value.replace("'", "''")
    return f"'{doubled}'"


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
