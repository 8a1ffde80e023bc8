"""Types of columns: what an item returns comes out of every reader equal, alone, beside a wider type, and after compaction."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import dcompute as dc
from dcompute.dataset.entries import Add, AddBatch, SetSchema
from dcompute.dataset.schema import declared as of_user
from dcompute.dataset.schema import join, to_text
from dcompute.dataset.store import Store
from dcompute.dataset.writer import Writer
from dcompute.errors import SchemaError, UsageError
from dcompute.records import ATTEMPT_COLUMNS, SUCCEEDED, BatchSpec, ItemKey, RunSpec, batch_id
from dcompute.testing import ManualClock
from dcompute.worker.rows import decode, encode, to_rows
from dcompute.worker.tables import Parts

UTC, BERLIN = dt.UTC, ZoneInfo("Europe/Berlin")
NOON = dt.datetime(2024, 7, 1, 12, 0, 0, 123456)
IN_UTC, IN_BERLIN = NOON.replace(tzinfo=UTC), NOON.replace(tzinfo=BERLIN)
AWAY = NOON.replace(tzinfo=dt.timezone(dt.timedelta(hours=-3)))
IN_MS = IN_BERLIN.replace(microsecond=123000)
AGES = dt.timedelta(days=2, microseconds=5)


def typed(value: Any, type_: pa.DataType) -> pa.Table:
    """A value that an item returns in a type of Arrow."""
    return pa.table({"v": pa.array([value], type_)})


#: What a first item returns, what a later one returns of a type that the first must be widened to, and what readers have of both.
TYPES: dict[str, tuple[Any, Any, list[Any]]] = {
    "integer": (typed(7, pa.int8()), typed(2**40, pa.int64()), [7, 2**40]),
    "unsigned": (typed(7, pa.uint8()), typed(2**64 - 1, pa.uint64()), [7, 2**64 - 1]),
    "integer and float": ({"v": 7}, {"v": 0.5}, [7.0, 0.5]),
    "half": (typed(0.5, pa.float16()), {"v": 0.1}, [0.5, 0.1]),
    "truth": ({"v": True}, {"v": None}, [True, None]),
    "nothing": ({"v": None}, {"v": [1]}, [None, [1]]),
    "text": ({"v": "ä\0\n"}, typed("long", pa.large_string()), ["ä\0\n", "long"]),
    "text view": (typed("view", pa.string_view()), {"v": ""}, ["view", ""]),
    "dictionary": (typed("one", pa.dictionary(pa.int8(), pa.string())), {"v": "two"}, ["one", "two"]),
    "categories": (pd.DataFrame({"v": pd.Categorical(["a"])}), {"v": "b"}, ["a", "b"]),
    "dictionary in a list": (typed(["one"], pa.list_(pa.dictionary(pa.int8(), pa.string()))), {"v": ["two"]}, [["one"], ["two"]]),
    "bytes": ({"v": b"\0\xff"}, typed(b"long", pa.large_binary()), [b"\0\xff", b"long"]),
    "bytes of one length": (typed(b"abc", pa.binary(3)), typed(b"abcd", pa.binary(4)), [b"abc", b"abcd"]),
    "decimal": ({"v": Decimal("1.25")}, {"v": Decimal("12345678901234567890.5")}, [Decimal("1.25"), Decimal("12345678901234567890.5")]),
    "decimal and integer": ({"v": Decimal("1.5")}, {"v": 7}, [Decimal("1.5"), Decimal(7)]),
    "decimal of thousands": (typed(Decimal("1E+3"), pa.decimal128(8, -2)), {"v": Decimal("1.5")}, [Decimal(1000), Decimal("1.5")]),
    "time": ({"v": NOON}, typed(NOON, pa.timestamp("ns")), [NOON, NOON]),
    "seconds": (typed(NOON.replace(microsecond=0), pa.timestamp("s")), {"v": NOON}, [NOON.replace(microsecond=0), NOON]),
    "time with a zone": ({"v": IN_UTC}, {"v": IN_BERLIN}, [IN_UTC, IN_BERLIN]),
    "time in one zone": (typed(IN_MS, pa.timestamp("ms", "Europe/Berlin")), {"v": None}, [IN_MS, None]),
    "time with an offset": ({"v": AWAY}, {"v": IN_UTC}, [AWAY, IN_UTC]),
    "date": ({"v": dt.date(2024, 2, 29)}, typed(dt.date(1960, 1, 1), pa.date64()), [dt.date(2024, 2, 29), dt.date(1960, 1, 1)]),
    "time of day": (typed(dt.time(1, 2, 3), pa.time32("s")), {"v": dt.time(4, 5, 6, 7)}, [dt.time(1, 2, 3), dt.time(4, 5, 6, 7)]),
    "duration": ({"v": AGES}, typed(dt.timedelta(seconds=1), pa.duration("ns")), [AGES, dt.timedelta(seconds=1)]),
    "list": ({"v": [[1, None], [], None]}, {"v": [[0.5]]}, [[[1.0, None], [], None], [[0.5]]]),
    "large list": (typed([1], pa.large_list(pa.int8())), {"v": [2]}, [[1], [2]]),
    "list view": (typed([1], pa.list_view(pa.int8())), {"v": [2]}, [[1], [2]]),
    "list of one length": (typed([1, 2], pa.list_(pa.int8(), 2)), typed([1, 2, 3], pa.list_(pa.int16(), 3)), [[1, 2], [1, 2, 3]]),
    "structure": (
        {"v": {"a": {"b": 1}, "t": NOON.replace(tzinfo=UTC)}}, {"v": {"a": {"b": 2.5, "c": "x"}}},
        [{"a": {"b": 1.0, "c": None}, "t": NOON.replace(tzinfo=UTC)}, {"a": {"b": 2.5, "c": "x"}, "t": None}],
    ),
    "list of structures": (
        {"v": [{"a": 1}, None]}, {"v": [{"a": 2, "b": [b"x"]}]}, [[{"a": 1, "b": None}, None], [{"a": 2, "b": [b"x"]}]],
    ),
    "structure of decimals": ({"v": {"d": Decimal("1.5")}}, {"v": {"d": Decimal("0.25")}}, [{"d": Decimal("1.5")}, {"d": Decimal("0.25")}]),
    "mapping": (
        typed([("k", 1)], pa.map_(pa.string(), pa.int8())), typed([("k", 0.5)], pa.map_(pa.string(), pa.float32())),
        [[("k", 1.0)], [("k", 0.5)]],
    ),
    "identifier": (typed(uuid.UUID(int=7).bytes, pa.uuid()), {"v": None}, [uuid.UUID(int=7).bytes, None]),
    "interval": (
        pd.DataFrame({"v": pd.arrays.IntervalArray.from_tuples([(0, 1)])}), {"v": {"left": 2, "right": 3}},
        [{"left": 0, "right": 1}, {"left": 2, "right": 3}],
    ),
}  # fmt: skip


def write(store: Store, results: Sequence[Any]) -> None:
    """A dataset of which each item has a batch of its own, as workers and a driver write it."""
    writer = Writer.acquire(store, workload="w", run="r", clock=ManualClock())
    run = RunSpec(run="r", dataset=store.url, workload="w", code=b"", code_digest="c", params_digest="p")
    for number, result in enumerate(results, 1):
        keys = (ItemKey(f"k{number - 1}", "str"),)
        batch = BatchSpec(id=batch_id("r", 1, number), keys=keys, attempts=(1,), fingerprints=("",), values=b"", schema=None)
        folder = Path(store.path(f"scratch{number}"))
        folder.mkdir(parents=True)
        parts = Parts(folder, run, batch, "e")
        rows = parts.add(0, decode(encode(to_rows(result))))
        about = {"item_key": keys[0].text, "key_kind": "str", "attempt": 1, "outcome": SUCCEEDED, "started": 1.0, "rows": rows}
        receipt = parts.finish([tuple(about.get(name) for name in ATTEMPT_COLUMNS)])
        for path, name in parts.files:
            store.upload(path, name)
        added = AddBatch(id=batch.id, holds=receipt.holds, results=receipt.results, succeeded=1, rows=rows)
        schema = join(writer.state.schema, receipt.schema)
        assert schema is not None
        writer.commit([SetSchema(schema=schema), Add(batches=(added,))])
    writer.close()


def readers(url: str) -> dict[str, pa.Table]:
    """What each of the readers has, as a table."""
    dataset = dc.open(url)
    return {
        "arrow": dataset.to_arrow(),
        "pandas": pa.Table.from_pandas(dataset.to_pandas(), preserve_index=False),
        "dask": pa.Table.from_pandas(dataset.results().compute(scheduler="sync"), preserve_index=False),
        "polars": dataset.to_polars().to_arrow(),
        "duckdb": dataset.to_duckdb().to_arrow_table(),
        "several": dc.open([url]).to_arrow(),
        "several in duckdb": dc.open([url]).to_duckdb().to_arrow_table(),
    }


def values(table: pa.Table) -> list[Any]:
    return [plain(value) for value in table.sort_by("item_key").column("v").to_pylist()]


def plain(value: Any) -> Any:
    """A value as Python compares it: with no zone of its own, a mapping as pairs, what pandas made of a time as a time."""
    if isinstance(value, pd.Timestamp | pd.Timedelta):
        value = value.to_pydatetime() if isinstance(value, pd.Timestamp) else value.to_pytimedelta()
    if isinstance(value, pa.MonthDayNano):  # what DuckDB makes of a duration
        value = dt.timedelta(days=value.days, microseconds=value.nanoseconds / 1000)
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return ("utc", value.astimezone(UTC).replace(tzinfo=None))
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        pairs = [tuple(one.values()) if isinstance(one, dict) and one.keys() == {"key", "value"} else one for one in value]
        return [plain(one) for one in pairs]
    return value


@pytest.mark.parametrize("name", TYPES)
def test_what_goes_in_comes_out_of_every_reader(tmp_path: Path, name: str) -> None:
    """Alone, beside a later item of a wider type, and after compaction, of which the files alone are the truth."""
    first, later, expected = TYPES[name]
    wanted = [plain(value) for value in expected]
    write(Store.at(tmp_path / "alone"), [first])
    for reader, table in readers(f"{tmp_path}/alone").items():
        assert values(table) == [without_later(wanted[0], name)], reader
    write(Store.at(tmp_path / "wider"), [first, later])
    for reader, table in readers(f"{tmp_path}/wider").items():
        assert values(table) == wanted, reader
    dataset = dc.open(tmp_path / "wider")
    dataset.compact(all=True)
    dataset.vacuum(0)
    for reader, table in readers(f"{tmp_path}/wider").items():
        assert values(table) == wanted, f"{reader} after compaction"
    assert values(pq.read_table(tmp_path / "wider" / "results")) == wanted
    assert not any(pa.types.is_dictionary(field.type) for field in pq.read_schema(next((tmp_path / "wider" / "results").iterdir())))


@pytest.mark.parametrize(
    ("type_", "low", "high"),
    [
        (pa.int8(), -1, 1),
        (pa.uint64(), 1, 2**64 - 1),
        (pa.bool_(), False, True),
        (pa.float16(), 0.5, 1.5),
        (pa.float32(), 0.1, 0.7),
        (pa.decimal128(20, 3), Decimal("1.500"), Decimal("7.125")),
        (pa.string(), "a", "ä\U0001f600"),
        (pa.binary(), b"", b"\xff"),
        (pa.binary(2), b"ab", b"cd"),
        (pa.date32(), 1, 20000),
        (pa.time32("s"), 1, 80000),
        (pa.time64("ns"), 1, 3723000000007),
        (pa.timestamp("ns", "UTC"), 1, 1719835200123456789),
        (pa.timestamp("us", "Europe/Berlin"), 1, 1719835200123456),
        (pa.duration("ns"), 1, 1719835200123456789),
    ],
    ids=str,
)
def test_the_bounds_of_a_renamed_column_hold_in_every_type(tmp_path: Path, type_: pa.DataType, low: Any, high: Any) -> None:
    """A filter for the least or the largest value finds it by statistics that are told under another name."""
    of_time = pa.types.is_temporal(type_)
    values = pa.array([low, high], pa.int32() if of_time and type_.bit_width == 32 else pa.int64() if of_time else type_).cast(type_)
    write(Store.at(tmp_path / "d"), [pa.table({"v": values})])
    dataset = dc.open(tmp_path / "d")
    dataset.rename({"v": "w"})
    assert dataset.to_arrow(filters=pc.field("w").is_valid()).num_rows == 2
    for value in values if not pa.types.is_float16(type_) else ():  # which Arrow cannot compare
        assert dataset.to_arrow(filters=pc.field("w") == value).column("w").to_pylist() == [value.as_py()]
        assert dataset.to_arrow(filters=(pc.field("w") >= value) & (pc.field("w") <= value)).num_rows == 1


def test_decimals_that_a_tool_cannot_hold_are_refused(tmp_path: Path) -> None:
    """Arrow and pandas have all digits; Polars, which would panic, and DuckDB, which would make floats of them, are refused by name."""
    long = Decimal("0.00000000001")
    short = typed(Decimal("1.5"), pa.decimal128(38, 1))
    write(Store.at(tmp_path / "d"), [short, typed([long], pa.list_(pa.decimal256(50, 11))).rename_columns(["w"])])
    write(Store.at(tmp_path / "e"), [short, typed(long, pa.decimal256(50, 11))])
    assert values(dc.open(tmp_path / "e").to_arrow()) == [Decimal("1.5"), long]
    for url, column in ((tmp_path / "d", "'w'"), (tmp_path / "e", "'v'")):
        dataset = dc.open(url)
        for read in (dataset.to_polars, dataset.to_duckdb, dc.open([url]).to_duckdb, dc.open([url]).labelled().to_duckdb):
            with pytest.raises(UsageError, match=f"column {column} .*38 digits"):
                read()
    assert dc.open(tmp_path / "d").to_polars(columns=["v"]).height == 2


@pytest.mark.parametrize("named", [False, True])
def test_periods_are_refused_with_what_to_do(named: bool) -> None:
    """A month would become the number 648: a column or an index of periods fails its item, and the advice names both ways out."""
    months = pd.period_range("2024-01", periods=2, freq="M", name="month")
    frame = pd.DataFrame({"v": [1, 2]}, index=months) if named else pd.DataFrame({"month": months})
    with pytest.raises(SchemaError, match=r"'month' has periods.*to_timestamp.*astype\(str\)"):
        to_rows(frame)
    table = to_rows(frame.reset_index().assign(month=months.to_timestamp())[["month"]])
    assert isinstance(table, pa.Table)
    assert table.column("month").to_pylist() == [dt.datetime(2024, 1, 1), dt.datetime(2024, 2, 1)]


@pytest.mark.parametrize(
    ("results", "declared"),
    [
        ([{"api_token": "s3cret-value"}], {"api_token": "int64"}),
        ([{"api_token": "s3cret-value"}], {"x": "int64"}),
        ([{"api_token": 7}, {"api_token": "s3cret-value"}], None),
        ([{"api_token": [7, "s3cret-value"]}], None),
        ([typed("s3cret-value", pa.string()).rename_columns(["api_token"])], {"api_token": "int64"}),
    ],
    ids=str,
)
def test_values_of_columns_named_as_secrets_are_in_no_message(tmp_path: Path, results: list[Any], declared: Any) -> None:
    """What does not fit is told by column and types."""
    schema = None if declared is None else to_text(of_user(declared))
    run = RunSpec(run="r", dataset="d", workload="w", code=b"", code_digest="c", params_digest="p", schema=schema)
    keys = tuple(ItemKey(f"k{number}", "str") for number in range(len(results)))
    batch = BatchSpec(id=batch_id("r", 1, 1), keys=keys, attempts=(1,) * len(keys), fingerprints=("",) * len(keys), values=b"")
    parts = Parts(tmp_path, run, batch, "e")
    for index, result in enumerate(results):
        parts.add(index, to_rows(result))
    about = [{"item_key": key.text, "key_kind": "str", "attempt": 1, "outcome": SUCCEEDED, "started": 1.0} for key in keys]
    (failure,) = parts.finish([tuple(one.get(name) for name in ATTEMPT_COLUMNS) for one in about]).failures
    assert "'api_token'" in failure.message
    assert "***" in failure.message
    assert "s3cret" not in failure.message


def without_later(value: Any, name: str) -> Any:
    """What the first item alone has: the fields that come with the later one are not there yet."""
    if name == "structure":
        return {"a": {"b": 1}, "t": value["t"]}
    if name == "list of structures":
        return [{"a": 1}, None]
    return value
