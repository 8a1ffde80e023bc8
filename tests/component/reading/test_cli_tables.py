"""Rows as text: for people and for programs."""

from __future__ import annotations

import base64
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pytest

from dcompute.cli.tables import print_json, print_table, rows, to_json
from dcompute.errors import UsageError


def frame() -> pd.DataFrame:
    """Three rows of most types."""
    return pd.DataFrame(
        {
            "item_key": ["a", "b", "c"],
            "count": pd.array([1, None, 3000], dtype="int64[pyarrow]"),
            "mean": [0.1, float("nan"), 1e9],
            "words": pd.Series([["x"], [], None], dtype=object),
        }
    )


def test_rows_have_plain_values():
    """Integers with nulls stay integers, nulls are None, lists are lists."""
    found = list(rows(frame()))
    assert found[0] == {"item_key": "a", "count": 1, "mean": 0.1, "words": ["x"]}
    assert found[1]["count"] is None
    assert type(found[2]["count"]) is int


def test_columns_are_chosen_in_the_order_given():
    """And no others are read."""
    assert list(next(rows(frame(), ["mean", "item_key"]))) == ["mean", "item_key"]


def test_an_unknown_column_is_told_with_the_nearest():
    """Misspelt columns are an error, with the right name."""
    with pytest.raises(UsageError, match="'maen'; is 'mean' meant"):
        next(rows(frame(), ["maen"]))


def test_a_dask_dataframe_is_read_a_partition_at_a_time():
    """A table that shows twenty rows does not read the last partition."""
    import dask.dataframe as dd

    seen = []

    def part(number: int) -> pd.DataFrame:
        seen.append(number)
        return pd.DataFrame({"n": [number]})

    found = rows(dd.from_map(part, [1, 2, 3], meta=pd.DataFrame({"n": [1]})))
    assert next(found) == {"n": 1}
    assert seen == [1]
    assert [row["n"] for row in found] == [2, 3]


def test_json_is_read_by_every_reader():
    """Neither NaN nor infinity, times in ISO 8601, decimals as text; letters of all alphabets stay readable."""
    value = {
        "nan": float("nan"),
        "inf": [float("inf")],
        "at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "day": date(2026, 1, 2),
        "took": timedelta(seconds=1.5),
        "moment": pd.Timestamp(1, tz="UTC"),
        "price": Decimal("1.10"),
        "name": "Łódź",
        "deep": {"ok": True, "none": None},
    }
    text = to_json(value)
    assert "Łódź" in text
    assert json.loads(text) == {
        "nan": None,
        "inf": [None],
        "at": "2026-01-02T03:04:00+00:00",
        "day": "2026-01-02",
        "took": 1.5,
        "moment": "1970-01-01T00:00:00.000000001+00:00",
        "price": "1.10",
        "name": "Łódź",
        "deep": {"ok": True, "none": None},
    }


def test_bytes_in_json_lose_nothing():
    """Base64 at any depth, whether or not the bytes happen to be text: what reads a column knows how to read all of it."""
    found = json.loads(to_json({"raw": b"\xff\x00", "text": b"abc", "deep": [{"in": [b"\xfe", None]}]}))
    assert base64.b64decode(found["raw"]) == b"\xff\x00"
    assert base64.b64decode(found["text"]) == b"abc"
    assert base64.b64decode(found["deep"][0]["in"][0]) == b"\xfe"


def test_rows_of_a_results_table_become_json():
    """Nested lists, structs, decimals and times of an Arrow column come out as what a JSON reader expects."""
    column = pa.array([{"days": [date(2026, 1, 2)], "sums": [[Decimal("1.10"), None]], "raw": b"\xff"}])
    table = pa.table({"found": column, "at": pa.array([1], pa.timestamp("ns")), "took": pa.array([1500], pa.duration("ms"))})
    (row,) = rows(table.to_pandas(types_mapper=pd.ArrowDtype))
    assert json.loads(to_json(row)) == {
        "found": {"days": ["2026-01-02"], "sums": [["1.10", None]], "raw": "/w=="},
        "at": "1970-01-01T00:00:00.000000001",
        "took": 1.5,
    }


def test_json_lines_keep_to_the_limit():
    """One object a line, as many as asked for."""
    lines: list[str] = []
    print_json(rows(frame()), 2, lines.append)
    assert [json.loads(line)["item_key"] for line in lines] == ["a", "b"]


class TestTable:
    def shown(self, table: pd.DataFrame, limit: int = 9) -> list[str]:
        """The lines that a person sees."""
        lines: list[str] = []
        print_table(rows(table), limit, lines.append)
        return lines

    def test_columns_are_aligned(self):
        """Text to the left, numbers to the right, nulls as a dash."""
        assert self.shown(frame()[["item_key", "count", "mean"]]) == [
            "item_key  count   mean",
            "a             1    0.1",
            "b             -      -",
            "c          3000  1e+09",
        ]

    def test_a_long_or_broken_cell_is_one_short_line(self):
        """A traceback does not fill the screen."""
        line = self.shown(pd.DataFrame({"message": ["line one\n  line two" + "x" * 500]}))[1]
        assert line.startswith("line one line two")
        assert line.endswith("...")
        assert len(line) == 60

    def test_bytes_are_shown_as_python_writes_them(self):
        """What is no text is not shown as if it were."""
        assert self.shown(pd.DataFrame({"raw": [b"\xff\x00a"]}))[1] == r"b'\xff\x00a'"

    def test_the_limit_leaves_the_rest(self):
        """What was not shown can still be taken, so that the caller knows there is more."""
        found = rows(frame())
        assert print_table(found, 2, lambda _: None) == 2
        assert next(found)["item_key"] == "c"

    def test_no_rows_are_no_lines(self):
        """Not even a heading."""
        assert self.shown(frame().iloc[:0]) == []
