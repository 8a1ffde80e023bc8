"""The file of a checkpoint: all that the log says up to a number, as Parquet.

Each table in it has row groups of its own, under names of its own; the columns of the other tables are null there. What is no table is
JSON in the file's metadata.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dcompute.dataset.batches import Batches
from dcompute.dataset.columns import BATCHES_SCHEMA, POSITIONS_SCHEMA, batch_ids, packed
from dcompute.dataset.entries import Open, RunInfo, decode_action, encode_action, names_files
from dcompute.dataset.growing import Names, Positions
from dcompute.dataset.renames import Renames
from dcompute.dataset.state import CountedPart, State
from dcompute.dataset.tally import LastFailure, Tally
from dcompute.records import ItemKey

#: The version of the format; a checkpoint of any other is not used. Later ones are for what older versions of dcompute would not keep, and
#: must find in the log that they do not know: columns that were renamed; rows that name files, and records in a quarantine.
VERSION, WITH_RENAMES, WITH_MORE = 1, 2, 3

_DRIVERS = pa.schema([(field.name, {"int": pa.int64(), "float": pa.float64()}.get(str(field.type), pa.string())) for field in fields(Open)])
_SENT = pa.schema([("text", pa.string()), ("kind", pa.string()), ("batch", pa.string())])
_SENT_BATCHES = pa.schema([("batch", pa.string()), BATCHES_SCHEMA.field("left_out").with_name("keys")])
_FAILED = pa.schema([("text", pa.string()), ("kind", pa.string()), ("why", pa.string()), ("location", pa.int64()), ("final", pa.bool_())])
_NAMES = pa.schema([("name", pa.string())])
_PARTS = pa.schema(
    [
        ("position", pa.int64()),
        ("name", pa.string()),
        ("size", pa.int64()),
        ("rows", pa.int64()),
        BATCHES_SCHEMA.field("left_out"),
    ]
)
_TABLES: dict[str, pa.Schema] = {
    "batch": BATCHES_SCHEMA,
    "driver": _DRIVERS,
    "hide": POSITIONS_SCHEMA,
    "hide_all": POSITIONS_SCHEMA,
    "sent": _SENT,
    "sent_batch": _SENT_BATCHES,
    "replaced": _NAMES,
    "compacted": _PARTS,
    "failed": _FAILED,
    "ended": pa.schema([("name", pa.string()), ("ranges", BATCHES_SCHEMA.field("holds").type)]),
    "admitted": pa.schema([("text", pa.string()), ("kind", pa.string()), ("fingerprint", pa.string())]),
    "gone": pa.schema([("text", pa.string()), ("kind", pa.string())]),
}
_SCHEMA = pa.schema([pa.field(f"{table}.{field.name}", field.type) for table, schema in _TABLES.items() for field in schema])
_ABOUT = b"dcompute"
_MARK = "batch.quarantined"
_GROUP_ROWS = 1 << 19


def to_bytes(state: State) -> bytes:
    """A state as the content of a checkpoint."""
    tables = _tables(state)
    groups: dict[str, tuple[int, int]] = {}
    at = 0
    for name, table in tables.items():
        count = -(-table.num_rows // _GROUP_ROWS)
        groups[name] = at, at + count
        at += count
    about = {"checkpoint": _version(state), "groups": groups, **_about(state)}
    buffer = io.BytesIO()
    schema = _SCHEMA.with_metadata({_ABOUT: json.dumps(about).encode()})
    with pq.ParquetWriter(buffer, schema, compression="zstd", write_page_checksum=True) as writer:
        for name, table in tables.items():
            for start in range(0, table.num_rows, _GROUP_ROWS):
                writer.write_table(_widened(name, table.slice(start, _GROUP_ROWS), schema), row_group_size=_GROUP_ROWS)
    return buffer.getvalue()


def from_bytes(data: bytes) -> State | None:
    """The state of a checkpoint's content; None where its version is another one. It raises what Arrow and JSON raise for any damage."""
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    about = json.loads(file.metadata.metadata[_ABOUT])
    if about["checkpoint"] not in (VERSION, WITH_RENAMES, WITH_MORE):
        return None
    if _MARK not in file.schema_arrow.names:
        # of a dcompute that knows no quarantine: what there is of one is in the log
        return None
    tables = {name: _table(file, name, *about["groups"][name]) for name in _TABLES}
    return _state(about, tables)


def _version(state: State) -> int:
    if names_files(state.schema) or state.ended or state.admitted or any(state.quarantine_parts()):
        return WITH_MORE
    return WITH_RENAMES if state.renames else VERSION


def _tables(state: State) -> dict[str, pa.Table]:
    # one that stands elsewhere would need hides that no checkpoint has
    tally = state.tally if state.tally is not None and state.tally.number == state.number else Tally()
    drivers = [astuple(driver) for driver in state.opened.values()]
    parts = [(part.position, part.name, part.size, part.rows, part.left_out) for part in state.compacted]
    return {
        "batch": state.batches.columns(),
        "driver": _of_rows(drivers, _DRIVERS),
        "hide": state.positions["results"].table(),
        "hide_all": state.positions["all"].table(),
        "sent": _of_rows([(*key, batch) for key, batch in state.sent.items()], _SENT),
        "sent_batch": _of_rows(list(state.sent_batches.items()), _SENT_BATCHES),
        "replaced": pa.table([state.replaced.array()], _NAMES),
        "compacted": _of_rows(parts, _PARTS),
        "failed": _of_rows([(*key, *failure) for key, failure in tally.failed.items()], _FAILED),
        "ended": _of_rows(list(state.ended.items()), _TABLES["ended"]),
        "admitted": _of_rows([(*key, fingerprint) for key, fingerprint in state.admitted.items()], _TABLES["admitted"]),
        "gone": _of_rows([tuple(key) for key in tally.gone], _TABLES["gone"]),
    }


def _about(state: State) -> dict[str, Any]:
    return {
        "number": state.number,
        "entry": state.entry_id,
        "at": state.at,
        "epoch": state.epoch,
        "workload": state.workload,
        "run": None if state.run_info is None else encode_action(state.run_info),
        "schema": state.schema,
        "renames": state.renames.steps,
        "hidden_at": state.hidden_at,
        "vacuumed": state.vacuumed,
        "released_at": state.released_at,
        "succeeded": state.tally.succeeded if state.tally is not None and state.tally.number == state.number else None,
        "settled": _ranges(state.settled),
        "closed": _ranges(state.closed),
        "outcome": state.outcome,
    }


def _state(about: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> State:
    state = State()
    state.number, state.entry_id, state.at = about["number"], about["entry"], about["at"]
    state.epoch, state.workload, state.schema = about["epoch"], about["workload"], about["schema"]
    state.renames = Renames(tuple((at, tuple((old, new) for old, new in columns)) for at, columns in about.get("renames", ())))
    state.hidden_at, state.vacuumed, state.released_at = about["hidden_at"], about["vacuumed"], about["released_at"]
    state.opened = {driver.epoch: driver for driver in (Open(**row) for row in tables["driver"].to_pylist())}
    state.driver = state.opened.get(state.epoch)
    state.run_info, state.outcome = _run_info(about["run"]), about.get("outcome", "")
    state.settled, state.closed = _numbers(about["settled"]), _numbers(about["closed"])
    state.batches = Batches(tables["batch"])
    state.positions = {"results": Positions(tables["hide"]), "all": Positions(tables["hide_all"])}
    state.sent = {ItemKey(row["text"], row["kind"]): row["batch"] for row in tables["sent"].to_pylist()}
    state.sent_batches = {row["batch"]: _keys(row["keys"]) for row in tables["sent_batch"].to_pylist()}
    state.replaced = Names(tables["replaced"].column("name"))
    state.compacted = [_part(row) for row in tables["compacted"].to_pylist()]
    state.ended = {row["name"]: tuple((one["start"], one["stop"]) for one in row["ranges"]) for row in tables["ended"].to_pylist()}
    state.admitted = {ItemKey(row["text"], row["kind"]): row["fingerprint"] for row in tables["admitted"].to_pylist()}
    state.added = Names(batch_ids(tables["batch"]))
    state.tally = _tally(about, tables)
    return state


def _tally(about: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> Tally | None:
    if about["succeeded"] is None:
        return None
    failed = {
        ItemKey(text, kind): LastFailure(*failure)
        for text, kind, *failure in zip(*(column.to_pylist() for column in tables["failed"].columns), strict=True)
    }
    gone = set(_keys(tables["gone"].to_pylist()))
    return Tally(about["number"], tables["batch"].num_rows, about["succeeded"], failed, gone)


def _run_info(data: dict[str, Any] | None) -> RunInfo | None:
    found = None if data is None else decode_action(data)
    return found if isinstance(found, RunInfo) else None


def _part(row: Mapping[str, Any]) -> CountedPart:
    return CountedPart(row["position"], row["name"], row["size"], row["rows"], _keys(row["left_out"]))


def _keys(rows: Iterable[Mapping[str, str]]) -> tuple[ItemKey, ...]:
    return tuple(ItemKey(row["text"], row["kind"]) for row in rows)


def _of_rows(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    return pa.table([packed(list(values), field.type) for values, field in zip(columns, schema, strict=True)], schema)


def _widened(name: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table under its names in the file, and nulls for all others."""
    prefix = f"{name}."
    columns = [
        table.column(field.name.removeprefix(prefix)) if field.name.startswith(prefix) else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _table(file: pq.ParquetFile, name: str, start: int, stop: int) -> pa.Table:
    schema = _TABLES[name]
    if start == stop:
        return schema.empty_table()
    found = file.read_row_groups(range(start, stop), columns=[f"{name}.{column}" for column in schema.names], use_threads=False)
    return found.rename_columns(schema.names).cast(schema)


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Numbers as half-open ranges."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number:
            found[-1] = found[-1][0], number + 1
        else:
            found.append((number, number + 1))
    return found


def _numbers(ranges: Iterable[tuple[int, int]]) -> set[int]:
    return {number for start, stop in ranges for number in range(start, stop)}
