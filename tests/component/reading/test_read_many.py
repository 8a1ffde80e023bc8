"""Several datasets read as one."""

from __future__ import annotations

import itertools
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

import dcompute as dc
from dcompute.dataset import Store, doubles
from dcompute.errors import DatasetNotFoundError, SchemaError, UsageError

_names = itertools.count()


def compute(frame: Any) -> Any:
    return frame.compute(scheduler="synchronous")


def pairs(datasets: Any, column: str = "n") -> list[tuple[str, Any]]:
    return sorted((row["item_key"], row[column]) for row in datasets.to_arrow(["item_key", column]).to_pylist())


@pytest.fixture(params=["disk", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder for datasets, on two kinds of storage."""
    return str(tmp_path) if request.param == "disk" else f"memory://many-{next(_names)}"


@pytest.fixture
def two(root: str, new_scene: Any, did: Any) -> str:
    """Two datasets: ``a`` has k1, and k2 that failed; ``b`` has k2 and k3, and k1 that failed."""
    first = new_scene(Store.at(f"{root}/a")).open(workload="w")
    first.add(did("k1", rows=[{"n": 1}, {"n": 2}]), did("k2", failed="permanent")).publish()
    second = new_scene(Store.at(f"{root}/b")).open(workload="w")
    second.add(did("k2", rows=[{"n": 0.5, "z": "t"}]), did("k3", rows=[{"n": 1.5}])).add(did("k1", failed="crash")).publish()
    return root


def test_a_pattern_opens_what_matches_by_name(two: str) -> None:
    """Folders that are no datasets are left out."""
    Store.at(two).write("c/notes.txt", b"")
    opened = dc.open(f"{two}/*")
    assert [url.rpartition("/")[2] for url in opened.urls] == ["a", "b"]  # type: ignore[attr-defined]


def test_of_a_key_found_twice_the_first_dataset_counts(two: str) -> None:
    """Its outcome there is its outcome, failed or not, in results, attempts and failures alike."""
    for opened, n, failed in (
        (dc.open([f"{two}/a", f"{two}/b"]), [("k1", 1.0), ("k1", 2.0), ("k3", 1.5)], [("k2", "permanent")]),
        (dc.open([f"{two}/b", f"{two}/a"]), [("k2", 0.5), ("k3", 1.5)], [("k1", "crash")]),
    ):
        assert pairs(opened) == n
        assert sorted(compute(opened.results())["n"]) == sorted(value for _, value in n)
        assert sorted(compute(opened.attempts(["item_key"]))["item_key"]) == ["k1", "k2", "k3"]
        rows = compute(opened.failures(columns=["item_key", "kind"]))
        assert list(rows.itertuples(index=False, name=None)) == failed
        assert opened.failures(by="kind")["kind"].tolist() == [failed[0][1]]


def test_status_of_several_counts_each_key_once(two: str) -> None:
    """Sums are of what is read; what is left out is named."""
    status = dc.open([f"{two}/a", f"{two}/b"]).status()
    assert (status.succeeded, status.failed, status.failed_by_kind, status.doubles) == (2, 1, {"permanent": 1}, 2)
    assert [(one.succeeded, one.failed) for one in status.each] == [(1, 1), (2, 1)]
    assert (status.stored_rows, status.attempts) == (4, 5)
    assert "2 succeeded, 1 failed (2 outcomes" in str(status)


def test_a_column_says_the_dataset(two: str) -> None:
    """On request, and rows can be chosen by it."""
    opened = dc.open([f"{two}/a", f"{two}/b"]).labelled()
    found = opened.to_arrow(["item_key", "dataset"]).to_pylist()
    assert sorted((row["item_key"], row["dataset"][-1]) for row in found) == [("k1", "a"), ("k1", "a"), ("k3", "b")]
    assert opened.to_pandas(["n"], [("dataset", "==", opened.urls[1])])["n"].tolist() == [1.5]
    assert compute(opened.results()[["dataset"]])["dataset"].nunique() == 2
    assert compute(opened.failures())["dataset"].tolist() == [opened.urls[0]]


def test_filters_on_a_column_that_only_some_have(two: str) -> None:
    """Where a dataset lacks the column, or has it in another type, its rows are judged in the joined types."""
    opened = dc.open([f"{two}/b", f"{two}/a"])
    assert opened.to_arrow(["item_key"], [("z", "==", "t")]).to_pylist() == [{"item_key": "k2"}]
    assert opened.to_arrow(["item_key"], [("n", ">", 1)]).to_pylist() == [{"item_key": "k3"}]
    assert len(opened.results(filters=[("n", "<", 1)])) == 1


def test_several_travel_with_their_doubles(two: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lazy frame knows in another process what to leave out, where there are too many such keys to send, too."""
    expected = [("k1", 1.0), ("k1", 2.0), ("k3", 1.5)]
    for carried in (10_000, 0):
        monkeypatch.setattr(doubles, "_CARRIED", carried)
        opened = dc.open([f"{two}/a", f"{two}/b"])
        frame = pickle.loads(pickle.dumps(opened.results()))
        assert sorted(compute(frame)[["item_key", "n"]].itertuples(index=False, name=None)) == expected


def test_doubles_are_those_of_the_datasets_that_are_there(
    tmp_path: Path, new_scene: Any, did: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Datasets that are made anew at their places have none of the doubles of those before them."""
    monkeypatch.setattr(doubles, "_CARRIED", 0)
    for both, other in (("k1", "k2"), ("k2", "k1")):
        for name in ("a", "b"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            new = new_scene(Store.at(tmp_path / name), name=f"{name}{both}").add(did(both, rows=[{"n": 1}]))
            new.add(did(other if name == "b" else "k3", rows=[{"n": 2}])).publish()
        assert pairs(dc.open([tmp_path / "a", tmp_path / "b"])) == sorted([(both, 1), (other, 2), ("k3", 2)])


def test_refresh_sees_what_was_committed_since(two: str, new_scene: Any, did: Any) -> None:
    """Keys that come later are looked for again."""
    third = new_scene(Store.at(f"{two}/c")).open().publish()
    opened = dc.open([f"{two}/a", f"{two}/c"])
    assert opened.status().doubles == 0
    third.add(did("k1", rows=[{"n": 7}]), did("k9", rows=[{"n": 9}])).publish()
    assert pairs(opened.refresh()) == [("k1", 1), ("k1", 2), ("k9", 9)]


def test_types_that_cannot_meet_are_named(root: str, new_scene: Any, did: Any) -> None:
    """The error has the column, both types, the dataset and the workloads; other columns are read all the same."""
    new_scene(Store.at(f"{root}/a")).open(workload="one").add(did("a", rows=[{"n": 1, "x": 1}])).publish()
    new_scene(Store.at(f"{root}/b")).open(workload="two").add(did("b", rows=[{"n": 2, "x": "text"}])).publish()
    opened = dc.open(f"{root}/*")
    with pytest.raises(SchemaError, match=r"'x' is string in .*/b and int64 .* \(workloads: one, two\)"):
        opened.results()
    assert opened.to_arrow(["n"])["n"].to_pylist() == [1, 2]


def test_columns_that_nobody_asks_for_need_not_meet(root: str, new_scene: Any, did: Any) -> None:
    """Neither as columns nor in filters; with a filter on one of them it is said that they cannot."""
    for name, value in (("a", 1), ("b", "t")):
        new_scene(Store.at(f"{root}/{name}")).open(workload="w").add(did(name, rows=[{"x": value, "n": 5}, {"x": value, "n": 7}])).publish()
    opened = dc.open(f"{root}/*")
    assert opened.to_arrow(["item_key"], filters=[("n", ">", 5)])["item_key"].to_pylist() == ["a", "b"]
    with pytest.raises(SchemaError, match="'x' is string"):
        opened.to_arrow(["item_key"], filters=[("x", "==", 1)])


def test_a_list_is_of_datasets_that_are_there(two: str) -> None:
    """What is not there is said at once; one that is named twice is opened once."""
    with pytest.raises(DatasetNotFoundError):
        dc.open([f"{two}/a", f"{two}/nowhere"])
    with pytest.raises(DatasetNotFoundError, match="no dataset matches"):
        dc.open(f"{two}/x*")
    with pytest.raises(UsageError, match="empty list"):
        dc.open([])
    with pytest.raises(UsageError, match="say a time"):
        dc.open([f"{two}/a"], at=1)
    assert len(dc.open([f"{two}/a", dc.open(f"{two}/a"), f"{two}/*"])) == 2


def test_a_folder_may_have_a_name_like_a_pattern(tmp_path: Path, new_scene: Any, did: Any) -> None:
    """A dataset of just that name is opened as itself."""
    new_scene(Store.at(tmp_path / "flux[1]")).add(did("a", rows=[{"n": 1}])).publish()
    assert dc.open(tmp_path / "flux[1]").to_arrow(["n"]).num_rows == 1


def test_a_column_called_dataset_is_not_overwritten(root: str, new_scene: Any, did: Any) -> None:
    """The results' own column of that name stays readable, without the other."""
    new_scene(Store.at(f"{root}/a")).add(did("a", rows=[{"dataset": 1}])).publish()
    assert dc.open([f"{root}/a"]).to_arrow(["dataset"])["dataset"].to_pylist() == [1]
    with pytest.raises(UsageError, match="a column 'dataset' of their own"):
        dc.open([f"{root}/a"]).labelled().results()


def test_a_key_run_again_in_a_later_dataset_stays_left_out(two: str, new_scene: Any, did: Any) -> None:
    """That it was hidden there, and came again, makes no difference: the first dataset has it."""
    again = new_scene(Store.at(f"{two}/c")).open().add(did("k1", rows=[{"n": 8}]))
    again.hide("k1").add(did("k1", 2, rows=[{"n": 9}])).publish()
    assert pairs(dc.open([f"{two}/a", f"{two}/c"])) == [("k1", 1), ("k1", 2)]
