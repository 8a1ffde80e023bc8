"""Row groups that are left out by their statistics change no answer."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcompute.dataset import fetching, reading
from dcompute.dataset.filters import Filter

NAN = float("nan")
PLAIN = st.one_of(
    st.tuples(st.sampled_from(["x", "h"]), st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), st.sampled_from([0.0, 1.0, 2.0])),
    st.tuples(st.just("n"), st.sampled_from(["==", "!=", "<", ">="]), st.sampled_from([0, 1, 2])),
    st.tuples(st.just("s"), st.sampled_from(["==", "!=", "<"]), st.sampled_from(["a", "b"])),
    st.tuples(st.just("x"), st.sampled_from(["in", "not in"]), st.lists(st.sampled_from([NAN, 1.0, 2.0]), min_size=1, max_size=2)),
    st.tuples(st.just("n"), st.sampled_from(["in", "not in"]), st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=2)),
).map(lambda one: pq.filters_to_expression([one]))
EXPRESSIONS = st.recursive(
    st.one_of(
        PLAIN,
        st.sampled_from(["x", "h", "n", "s"]).map(lambda name: pc.field(name).is_null()),
        st.sampled_from([pc.field("x").is_nan(), pc.field("x").is_null(nan_is_null=True), pc.field("x") != pc.field("h")]),
    ),
    lambda inner: st.one_of(inner.map(lambda one: ~one), st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
                            st.tuples(inner, inner).map(lambda two: two[0] | two[1])),
    max_leaves=4,
)  # fmt: skip
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "x": st.sampled_from([NAN, 1.0, NAN, 2.0, None]),
            "h": st.sampled_from([NAN, 1.0, 2.0]),
            "n": st.sampled_from([None, 0, 1, 2]),
            "s": st.sampled_from([None, "a", "b"]),
        }
    ),
    min_size=1,
    max_size=12,
)
FOUR = pa.schema([("x", pa.float64()), ("h", pa.float32()), ("n", pa.int64()), ("s", pa.string())])


@pytest.mark.parametrize("then", ["as written", "renamed"])
@given(rows=ROWS, expression=EXPRESSIONS, size=st.integers(2, 4))
@settings(max_examples=200)
def test_row_groups_change_no_answer(tmp_path_factory: Any, then: str, rows: Any, expression: Any, size: int) -> None:
    """Any filter finds in row groups of any size what it finds in memory, NaN and nulls among them, under old names too."""
    table = pa.Table.from_pylist(rows, FOUR)
    stored = {name: f"old {name}" if then == "renamed" else name for name in FOUR.names}
    buffer = io.BytesIO()
    pq.write_table(table.rename_columns(list(stored.values())), buffer, row_group_size=size)
    opened = pq.ParquetFile(buffer)
    where = Filter.of(expression, FOUR)
    assert where is not None
    groups = fetching._that_may_match(buffer, opened, list(range(opened.num_row_groups)), FOUR, where=where, stored=stored)
    read = opened.read_row_groups(groups).rename_columns(FOUR.names) if groups else FOUR.empty_table()
    assert repr(where.apply(read).to_pylist()) == repr(where.apply(table).to_pylist())


def test_plain_comparisons_of_floats_leave_row_groups_out() -> None:
    """NaN meets none of them, so that files sorted by a float are read in part; others read what may hold NaN."""
    table = pa.table({"x": [float(value) for value in range(8)]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=2)
    opened = pq.ParquetFile(buffer)
    x = pc.field("x")
    expected = [([("x", ">", 5)], [3]), ((x >= 2) & (x < 4), [1]), (x == 7, [3]), (x.isin([1.0, 6.0]), [0, 3]), (~(x < 6), [0, 1, 2, 3])]
    for filters, groups in expected:
        where = Filter.of(filters, table.schema)
        assert where is not None
        assert fetching._that_may_match(buffer, opened, [0, 1, 2, 3], table.schema, where=where, stored={"x": "x"}) == groups


def test_nan_within_structures_is_found(scene: Any, did: Any) -> None:
    """What statistics say of the members of a structure knows no NaN either."""
    state = scene.add(did("a", rows=[{"p": {"x": 1.0}}, {"p": {"x": NAN}}])).state
    assert reading.results_arrow(scene.store, state, filters=pc.field("p", "x") != 1).num_rows == 1
