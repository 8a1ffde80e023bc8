"""Results, attempts and failures hold exactly the rows that count."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import dask
import pyarrow as pa
import pytest
from dask.base import tokenize
from hypothesis import given
from hypothesis import strategies as st

import dcompute as dc
from dcompute.dataset import reading
from dcompute.dataset.entries import Add, Hide, Replace
from dcompute.dataset.parts import write_results
from dcompute.dataset.store import Store
from dcompute.errors import DatasetError, UsageError
from dcompute.records import PartRef

_names = itertools.count()

KEYS = "abcd"
ATTEMPT = st.tuples(st.sampled_from(KEYS), st.sampled_from([None, "permanent", "crash"]), st.integers(0, 2))
BATCH = st.tuples(st.lists(ATTEMPT, max_size=3, unique_by=lambda one: one[0]), st.sets(st.sampled_from(KEYS), max_size=1))
HIDE = st.tuples(st.sampled_from(["results", "all"]), st.sets(st.sampled_from(KEYS), min_size=1, max_size=2))
LOG = st.lists(st.lists(st.one_of(BATCH, HIDE), min_size=1, max_size=3), max_size=6)


class Model:
    """The rule for rows, said once more and slowly: one list of attempts, in the order of the log."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.attempts: dict[str, int] = {}

    def did(self, entry: int, key: str, failed: str | None, results: int, left_out: bool) -> tuple[int, list[dict[str, int]]]:
        self.attempts[key] = self.attempts.get(key, 0) + 1
        mark = len(self.rows)
        result = [{"x": mark * 10 + n} for n in range(0 if failed else results)]
        one = {"entry": entry, "key": key, "attempt": self.attempts[key], "failed": failed, "result": result}
        self.rows.append({**one, "left_out": left_out, "hidden": None})
        return self.attempts[key], result

    def hide(self, keys: set[str], scope: str) -> None:
        for row in self.rows:
            if row["key"] in keys:
                row["hidden"] = "all" if "all" in (scope, row["hidden"]) else "results"

    @property
    def results(self) -> list[tuple[str, int]]:
        return sorted((row["key"], r["x"]) for row in self.rows if not row["left_out"] and not row["hidden"] for r in row["result"])

    @property
    def history(self) -> list[tuple[str, int]]:
        return sorted((row["key"], row["attempt"]) for row in self.rows if not row["left_out"] and row["hidden"] != "all")

    @property
    def failed(self) -> list[tuple[str, str]]:
        newest = {}
        for row in sorted(self.rows, key=lambda row: (row["entry"], row["attempt"])):
            if not row["left_out"] and not row["hidden"]:
                newest[row["key"]] = row
        return sorted((key, row["failed"]) for key, row in newest.items() if row["failed"])


def write(scene: Any, did: Any, log: list[list[Any]]) -> Model:
    model = Model()
    for number, entry in enumerate(log):
        actions: list[Any] = []
        for first, second in entry:
            if isinstance(first, str):
                model.hide(second, first)
                actions.append(Hide(keys=tuple((key, "str") for key in second), scope=first))
            else:
                made = []
                for key, failed, results in first:
                    attempt, rows = model.did(number, key, failed, results, key in second)
                    made.append(did(key, attempt, failed, rows))
                batch = scene.batch(*made, left_out=sorted(second))
                actions.append(Add(batches=(batch,)))
        scene.commit(*scene.schema_action(None), *actions)
    return model


@given(log=LOG)
def test_rows_that_count_are_read_and_no_others(new_scene: Any, did: Any, log: list[list[Any]]) -> None:
    """For any log, results, attempts, failures and outcomes are those of the row rule."""
    scene = new_scene(Store.at(f"memory://rows-{next(_names)}"))
    model = write(scene, did, log)
    state = scene.state
    found = reading.results_arrow(scene.store, state).to_pylist()
    assert sorted((row["item_key"], row["x"]) for row in found) == model.results
    history = reading.attempts_arrow(scene.store, state, ["item_key", "attempt"]).to_pylist()
    assert sorted((row["item_key"], row["attempt"]) for row in history) == model.history
    failed = reading.failures_arrow(scene.store, state, ["item_key", "kind"]).to_pylist()
    assert sorted((row["item_key"], row["kind"]) for row in failed) == model.failed


def compute(frame: Any) -> Any:
    return frame.compute(scheduler="synchronous")


def test_an_empty_dataset_reads_as_one_without_rows(scene: Any) -> None:
    """Before anything was committed there are columns and no rows."""
    state = scene.open().state
    assert list(compute(reading.results(scene.store, state)).columns) == ["item_key", "key_kind"]
    assert len(compute(reading.attempts(scene.store, state))) == 0
    assert len(reading.failures(scene.store, state)) == 0
    assert list(reading.failures_by(scene.store, state, "kind").columns) == ["kind", "items", "item_key", "key_kind", "error", "message"]


def test_parts_with_other_columns_read_as_one_table(scene: Any, did: Any) -> None:
    """Columns that came later are null before, integers that met floats are floats, and integers with nulls stay integers."""
    scene.add(did("a", rows=[{"n": 1, "x": 1, "s": {"p": 1}}])).add(did("b", rows=[{"x": 0.5, "s": {"q": "t"}}])).add(
        did("c", rows=[{"x": None}])
    )
    frame = compute(reading.results(scene.store, scene.state))
    assert frame.to_dict("list")["x"][:2] == [1.0, 0.5]
    assert str(frame.dtypes["n"]) == "int64[pyarrow]"
    assert str(frame.dtypes["x"]) == "double[pyarrow]"
    rows = reading.results_arrow(scene.store, scene.state).to_pylist()
    assert [row["s"] for row in rows] == [{"p": 1, "q": None}, {"p": None, "q": "t"}, None]
    assert [row["n"] for row in rows] == [1, None, None]


def test_a_lazy_frame_is_what_it_says_it_is(scene: Any, did: Any) -> None:
    """Types before and after computing are the same, also with the columns chosen, with none, and with strings left alone."""
    scene.add(did("a", rows=[{"t": "x", "n": 1}])).add(did("b", rows=[{"t": None, "n": None}]))
    lazy = reading.results(scene.store, scene.state)
    for frame in (lazy, lazy[["n"]], lazy[["n", "item_key"]], lazy[lazy.n > 0]):
        assert dict(compute(frame).dtypes) == dict(frame.dtypes)
    assert len(lazy) == 2
    assert compute(lazy["n"].sum()) == 1
    assert reading.results(scene.store, scene.state, ["n", "item_key"]).columns.tolist() == ["n", "item_key"]


def test_hidden_rows_stay_hidden_when_their_key_is_not_asked_for(scene: Any, did: Any) -> None:
    """Keys are read where they decide, and do not show."""
    scene.add(did("a", rows=[{"n": 1}]), did("b", rows=[{"n": 2}])).hide("a").add(
        did("c", rows=[{"n": 3}]), did("d", rows=[{"n": 4}]), left_out=["c"]
    )
    frame = reading.results(scene.store, scene.state)[["n"]]
    assert compute(frame).to_dict("list") == {"n": [2, 4]}
    assert len(reading.results(scene.store, scene.state)) == 2


def test_many_hidden_keys_are_read_where_they_are_needed(scene: Any, did: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden keys that are too many to travel are taken from the log, as of the entry that the frame was made at."""
    monkeypatch.setattr(reading, "_CARRIED_HIDES", 0)
    scene.add(did("a", rows=[{"n": 1}]), did("b", rows=[{"n": 2}])).hide("a").publish()
    frame = reading.results(scene.store, scene.state)
    scene.hide("b").publish()
    assert compute(frame)["n"].tolist() == [2]


@pytest.fixture
def at_once_two(tmp_path: Path, new_scene: Any, did: Any) -> Any:
    """Puts two datasets at one place, one after the other; the hidden keys of both are too many to travel."""

    def put(kept: str, hidden: str) -> Store:
        shutil.rmtree(tmp_path / "place", ignore_errors=True)
        new = new_scene(Store.at(tmp_path / "place"), name=hidden)
        new.add(did(kept, rows=[{"n": 1}]), did(hidden, rows=[{"n": 2}])).hide(hidden, scope="all").publish()
        return new.store  # type: ignore[no-any-return]

    return put


def test_hidden_keys_are_those_of_the_dataset_that_is_there(at_once_two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset that is removed and made anew at its place hides none of the keys of the one before it."""
    monkeypatch.setattr(reading, "_CARRIED_HIDES", 0)
    for kept, hidden in (("a", "b"), ("b", "a")):
        opened = dc.open(at_once_two(kept, hidden).url)
        assert opened.to_arrow()["item_key"].to_pylist() == [kept]
        assert compute(opened.attempts(["item_key"]))["item_key"].tolist() == [kept]


def test_a_frame_of_a_dataset_that_was_replaced_says_so(at_once_two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, and Dask takes no frame of the one for a frame of the other."""
    monkeypatch.setattr(reading, "_CARRIED_HIDES", 0)
    first = dc.open(at_once_two("a", "b").url)
    before, rows = tokenize(reading.reading_results(first._store, first.state).rows), first.results()
    second = dc.open(at_once_two("b", "a").url)
    assert tokenize(reading.reading_results(second._store, second.state).rows) != before
    with pytest.raises(DatasetError, match="another one is in its place"):
        compute(rows)


def test_refresh_shows_the_dataset_that_is_there(at_once_two: Any) -> None:
    """What is in the place of the one that was opened is read from its beginning."""
    opened = dc.open(at_once_two("a", "b").url)
    assert opened.to_arrow()["item_key"].to_pylist() == ["a"]
    at_once_two("b", "a")
    assert opened.refresh().to_arrow()["item_key"].to_pylist() == ["b"]


def test_partitions_are_bounded(scene: Any, did: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition reads so many files or bytes at most, and no file twice."""
    monkeypatch.setattr(reading, "PARTITION_FILES", 2)
    for number in range(5):
        scene.add(did(str(number), rows=[{"n": number}]))
    frame = reading.results(scene.store, scene.state)
    assert frame.npartitions == 3
    assert compute(frame)["n"].tolist() == [0, 1, 2, 3, 4]
    monkeypatch.setattr(reading, "PARTITION_BYTES", 1)
    assert reading.results(scene.store, scene.state).npartitions == 5


def test_a_compacted_part_stands_at_the_position_it_was_read_at(scene: Any, did: Any) -> None:
    """Rows of a compacted part are hit by a hide that came between, and read once."""
    scene.add(did("a", rows=[{"n": 1}]), did("b", rows=[{"n": 2}]))
    (old,) = scene.state.counted_parts()
    write_results(
        scene.store.path("results/compacted.parquet"), pa.table({"item_key": ["a", "b"], "key_kind": ["str", "str"], "n": [1, 2]})
    )
    read_at = len(scene.entries)
    scene.hide("b")
    by = (PartRef(name="results/compacted.parquet", size=1, rows=2),)
    scene.commit(Replace(parts=(old.name,), by=by, read_at=read_at))
    assert reading.results_arrow(scene.store, scene.state, ["n"]).to_pylist() == [{"n": 1}]


def test_an_unknown_column_is_named_with_the_nearest(scene: Any, did: Any) -> None:
    """A mistyped column is an error at once, with the right name."""
    scene.add(did("a", rows=[{"mean": 1}]))
    with pytest.raises(UsageError, match="did you mean 'mean'"):
        reading.results(scene.store, scene.state, ["maen"])


def test_failures_are_grouped_with_an_example(scene: Any, did: Any) -> None:
    """Groups are counted in items at their newest attempt, most first, with a key and a message of one."""
    error = {"error": "ValueError", "message": "bad", "host": "h1"}
    scene.add(did("a", failed="permanent", extra=error), did("b", failed="permanent", extra=error), did("c", failed="timeout"))
    scene.add(did("c", 2, failed="timeout"), did("d", failed="crash")).add(did("d", 2))
    by_kind = reading.failures_by(scene.store, scene.state, "kind").to_dict("records")
    assert [(one["kind"], one["items"], one["item_key"], one["message"]) for one in by_kind] == [
        ("permanent", 2, "a", "bad"),
        ("timeout", 1, "c", None),
    ]
    by_error = reading.failures_by(scene.store, scene.state, "error")
    assert by_error["items"].tolist() == [2, 1]
    assert reading.failures_by(scene.store, scene.state, "host")["items"].tolist() == [2, 1]
    with pytest.raises(UsageError, match="'kind', 'error' or 'host'"):
        reading.failures_by(scene.store, scene.state, "day")  # type: ignore[arg-type]


def test_a_frame_has_the_same_name_for_the_same_log(scene: Any, did: Any) -> None:
    """Dask recognizes the same reading, and tells it from one of a later log."""
    state = scene.add(did("a", rows=[{"n": 1}])).state
    with dask.config.set({"tokenize.ensure-deterministic": True}):
        first, again = reading.results(scene.store, state), reading.results(scene.store, scene.state)
        later = reading.results(scene.store, scene.hide("a").state)
    assert first._name == again._name != later._name
