"""From a journal to attempt rows, column by column."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dcompute.dataset.parts import ATTEMPTS_SCHEMA
from dcompute.records import ATTEMPT_COLUMNS, BatchSpec, ItemKey, RunSpec
from dcompute.worker import rows
from dcompute.worker.attempt import describe, encode_failure
from dcompute.worker.attempts import Attempts
from dcompute.worker.finish import Surroundings
from dcompute.worker.harvest import Harvest
from dcompute.worker.journal import Figures, Journal, Measured, MemoryMeasured
from dcompute.worker.meter import bottleneck, bottlenecks
from dcompute.worker.tables import Parts

RUN = RunSpec(run="r", dataset="", workload="w", code=b"", code_digest="c", params_digest="p", version="1", seed=7)
SHARED = Figures(peak_memory=100, bytes_read=5, bytes_written=6, io_wait=0.0, memory_measured=MemoryMeasured.BATCH)
SHORT = Figures(0.5, 0.4, 0.05)


def _batch(count: int) -> BatchSpec:
    return BatchSpec(
        id="r-000001-00000001",
        keys=tuple(ItemKey(str(number), "int") for number in range(count)),
        attempts=(1,) * count,
        fingerprints=tuple(f"f{number}" for number in range(count)),
        values=b"",
    )


class _Case:
    """A journal that a test writes, and the rows made of it."""

    def __init__(self, folder: Path, count: int) -> None:
        self.batch = _batch(count)
        self.journal = Journal(str(folder / "journal"), create=True)
        self._parts = Parts(folder, RUN, self.batch, "e")

    def write(self, index: int, figures: Figures = SHORT, metrics: bytes = b"", error: BaseException | None = None) -> None:
        payload = rows.encode({"value": index}) if error is None else encode_failure(describe(error))
        self.journal.write(index, error is None, 1e9 + index, figures, metrics, payload)
        self.journal.end()

    def made(self, **around: Any) -> list[dict[str, Any]]:
        found = Harvest(self.journal, self.batch, self._parts).attempts(RUN, Surroundings(host="h", worker="v", shared=SHARED, **around))
        self.journal.close()
        table = found.table()
        assert table.schema == ATTEMPTS_SCHEMA
        return table.to_pylist()


def test_short_items_share_the_figures_of_the_batch(tmp_path: Path) -> None:
    """Each has its own duration and CPU, and what is the batch's is in every row."""
    case = _Case(tmp_path, 3)
    for index in range(3):
        case.write(index, SHORT._replace(duration=index + 1.0))

    made = case.made()

    assert [(row["item_key"], row["key_kind"], row["fingerprint"], row["rows"]) for row in made] == [
        ("0", "int", "f0", 1), ("1", "int", "f1", 1), ("2", "int", "f2", 1),
    ]  # fmt: skip
    assert [row["duration"] for row in made] == [1.0, 2.0, 3.0]
    assert {(row["peak_memory"], row["bytes_read"], row["measured"], row["memory_measured"]) for row in made} == {
        (100, 5, "batch", "batch")
    }
    assert {(row["outcome"], row["kind"], row["stdout"], row["metrics"]) for row in made} == {("succeeded", None, None, None)}
    assert [row["started"].timestamp() for row in made] == [1e9, 1e9 + 1, 1e9 + 2]


def test_an_item_with_figures_of_its_own_keeps_them_beside_short_ones(tmp_path: Path) -> None:
    """A long one, one whose tree was seen to be larger, and one that printed and recorded metrics."""
    case = _Case(tmp_path, 4)
    case.write(0)
    case.write(1, Figures(2.0, 0.1, 0.1, Measured.ITEM, 900, 1, 2, 1.5, 3, MemoryMeasured.RESIDENT), b'{"a":1}')
    case.write(2)
    case.write(3)

    made = case.made(peaks={2: 700, 3: 50}, stdout={3: "hello"})

    assert [row["peak_memory"] for row in made] == [100, 900, 700, 100]
    assert [row["memory_measured"] for row in made] == ["batch", "resident", "tree", "batch"]
    assert [row["measured"] for row in made] == ["batch", "item", "batch", "batch"]
    assert [row["bottleneck"] for row in made] == ["cpu", "io", "cpu", "cpu"]
    assert [row["leftovers"] for row in made] == [0, 3, 0, 0]
    assert [row["metrics"] for row in made] == [None, '{"a":1}', None, None]
    assert [row["stdout"] for row in made] == [None, None, None, "hello"]


def test_rows_are_in_the_order_of_the_batch_and_the_first_outcome_counts(tmp_path: Path) -> None:
    """A suspect goes first after a crash; what is written twice counts once; what never began has no row."""
    case = _Case(tmp_path, 5)
    case.write(3, error=ValueError("no"))
    case.write(0)
    case.write(1, SHORT._replace(duration=math.nan, cpu_user=math.nan, cpu_system=math.nan))
    case.write(3)

    made = case.made()

    assert [(row["item_key"], row["outcome"], row["kind"], row["error"], row["rows"]) for row in made] == [
        ("0", "succeeded", None, None, 1), ("1", "succeeded", None, None, 1), ("3", "failed", "permanent", "ValueError", 0),
    ]  # fmt: skip
    assert [row["cpu_user"] for row in made] == [0.4, None, 0.4]
    assert made[2]["started"].timestamp() == 1e9 + 3


def test_nothing_is_said_of_what_was_not_measured(tmp_path: Path) -> None:
    """With metrics off there are durations only."""
    case = _Case(tmp_path, 2)
    for index in range(2):
        case.write(index, Figures(0.5, 0.0, 0.0, Measured.NOTHING))

    made = case.made(peaks={1: 10**9})

    names = ("cpu_user", "cpu_system", "peak_memory", "bytes_read", "measured", "memory_measured", "bottleneck")
    assert {row[name] for row in made for name in names} == {None}
    assert [row["duration"] for row in made] == [0.5, 0.5]


_SECONDS = st.one_of(st.floats(0, 10), st.just(math.nan))


@given(
    st.lists(st.tuples(_SECONDS, _SECONDS), min_size=1, max_size=10),
    st.builds(
        Figures,
        io_wait=st.one_of(st.none(), st.floats(0, 10)),
        bytes_read=st.one_of(st.none(), st.integers(0, 10**10)),
        peak_memory=st.one_of(st.none(), st.integers(0, 10**9)),
    ),
    st.one_of(st.none(), st.integers(0, 10**9)),
)
def test_the_bottlenecks_of_many_are_those_of_each(taken: list[tuple[float, float]], shared: Figures, limit: int | None) -> None:
    """One rule, whether it is asked for one attempt or for all of a batch."""
    durations, cpu = np.array(taken).T
    each = [bottleneck(shared._replace(duration=duration, cpu_user=user, cpu_system=0.0), limit) for duration, user in taken]

    assert bottlenecks(durations, cpu, shared, limit).to_pylist() == each


def test_rows_given_as_tuples_make_the_same_table() -> None:
    """What the driver and rewrites write is no other form."""
    row = tuple({"item_key": "a", "duration": 2.0, "peak_memory": 5, "host": "h", "started": 1.0}.get(name) for name in ATTEMPT_COLUMNS)

    attempts = Attempts.of_rows([row, row])

    assert (attempts.total("duration"), attempts.largest("peak_memory"), attempts.first("host")) == (4.0, 5, "h")
    assert attempts.table().column("item_key").to_pylist() == ["a", "a"]
    assert len(Attempts.of_rows([])) == 0
