"""A row of a dataset as an example: what an error about a column shows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from dcompute.dataset.reading import reading_results
from dcompute.dataset.schema import RESERVED
from dcompute.dataset.state import State
from dcompute.dataset.store import Store
from dcompute.errors import DcomputeError
from dcompute.secrecy import shown_value

# parts that are read for an error, which nobody shall wait for
_MOST_PARTS = 20


def example_of(store: Store, state: State, column: str) -> str:
    """An item and what it has in a column, for people; "" where that cannot be told quickly.

    Parameters
    ----------
    store
        The dataset's.
    state
        What its log says.
    column
        By its name of now.
    """
    # an example is not worth an error of its own
    with contextlib.suppress(DcomputeError, pa.ArrowException, ValueError, OverflowError):
        for table in _tables(store, state, column):
            if table.num_rows:
                return f"item {table['item_key'][0].as_py()!r} has {shown_value(column, table[column][0].as_py())}"
    return ""


def _tables(store: Store, state: State, column: str) -> Iterator[pa.Table]:
    names = [RESERVED[0], column]
    found = reading_results(store, state, names, pc.field(column).is_valid())
    files = [(piece, file) for piece in found.pieces for file in piece.files][:_MOST_PARTS]
    for piece, file in files:
        yield found.rows.table(replace(piece, files=(file,)), names)
