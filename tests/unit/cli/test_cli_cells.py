"""Cells of a CSV file as values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcompute.cli.cells import exact, misread

WRITTEN = st.integers().map(str) | st.floats().map(repr) | st.booleans().map(str)
LIKE = st.sampled_from(
    ["", "0", "-0", "007", "0.10", "1e3", "1e-05", "+1", " 1", "1_0", "NA", "nan", "inf", "true", "True", "\u0661", "9" * 5000]
)
CELLS = st.lists(st.integers().map(str)) | st.lists(WRITTEN) | st.lists(LIKE) | st.lists(WRITTEN | LIKE | st.text(max_size=3))


@given(CELLS)
def test_every_cell_comes_back_from_its_value(cells: list[str]) -> None:
    """Whatever a column becomes, nothing of its text is lost."""
    assert ["" if value is None else str(value) for value in exact(cells)] == cells


@given(CELLS)
def test_a_column_is_of_one_sort(cells: list[str]) -> None:
    """Numbers, truth values or text: never numbers beside text."""
    sorts = {"number" if type(value) in (int, float) else type(value).__name__ for value in exact(cells) if value is not None}
    assert len(sorts) <= 1


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "", "-3"], [1, None, -3]),
        (["0", "0.5", "1e-05"], [0, 0.5, 1e-05]),
        (["True", "False"], [True, False]),
        (["1", "True"], ["1", "True"]),
        (["1", "x"], ["1", "x"]),
        (["007", "8"], ["007", "8"]),
        (["1.5", "inf"], ["1.5", "inf"]),
        (["", ""], [None, None]),
        ([], []),
    ],
)
def test_what_cells_become(cells: list[str], values: list[Any]) -> None:
    """Numbers where all are what Python writes, None where nothing stands."""
    assert repr(exact(cells)) == repr(values)


@pytest.mark.parametrize(
    ("cells", "bad"),
    [(["1", "0.10"], "0.10"), (["1", "NA"], "NA"), (["1", "", "nan"], "nan"), (["TRUE"], "TRUE"), (["x", "007"], ""), (["NA"], "")],
)
def test_what_looks_like_numbers_and_is_text(cells: list[str], bad: str) -> None:
    """The first cell that a number or a truth value would not give back; none in a column of words."""
    assert misread(cells) == bad
