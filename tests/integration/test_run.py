"""Runs from end to end on a real local cluster: what comes out, what is skipped, what an error looks like."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import dcompute as dc
from dcompute.errors import DatasetMismatchError, ItemError, StoreError, TooManyFailures


def double(x: int) -> int:
    return 2 * x


def results(url: object) -> dict[str, object]:
    """The value of each item, by key."""
    frame = dc.open(url).results().compute()
    return dict(zip(frame["item_key"], frame["value"], strict=True)) if len(frame) else {}


def test_a_plain_function_over_a_list_gives_a_row_an_item(tmp_path: Path) -> None:
    """Every input has its result, under its own key."""
    run = dc.map(double, range(100), tmp_path / "d")
    assert run.wait(progress="quiet")
    assert results(tmp_path / "d") == {str(x): 2 * x for x in range(100)}
    assert run.summary().succeeded == 100
    assert str(run.summary().state) == "finished"


def test_the_same_line_again_executes_nothing(tmp_path: Path) -> None:
    """Succeeded items are skipped, and no cluster is needed to find that out."""
    trace = tmp_path / "trace"

    def traced(x: int) -> int:
        with trace.open("a") as file:
            file.write(f"{x}\n")
        return x

    dc.map(traced, range(20), tmp_path / "d").wait(progress="quiet")
    again = dc.map(traced, range(25), tmp_path / "d")
    again.wait(progress="quiet")
    assert sorted(int(line) for line in trace.read_text().split()) == list(range(25))
    assert again.summary().skipped == 20
    assert again.summary().succeeded == 5


def test_a_failed_item_is_recorded_and_harms_no_other(tmp_path: Path) -> None:
    """One row a failed item, with its kind; wait() does not raise."""

    def picky(x: int) -> int:
        if x == 3:
            raise ValueError("not three")
        return x

    run = dc.map(picky, range(6), tmp_path / "d")
    run.wait(progress="quiet")
    failed = run.failures().compute()
    assert list(failed["item_key"]) == ["3"]
    assert list(failed["kind"]) == ["permanent"]
    assert "not three" in failed["message"].iloc[0]
    assert sorted(results(tmp_path / "d")) == ["0", "1", "2", "4", "5"]


def test_errors_raise_stops_at_the_first_final_failure(tmp_path: Path) -> None:
    """ItemError has the key, the attempt and the remote traceback."""

    def bad(x: int) -> int:
        raise RuntimeError(f"no {x}")

    run = dc.map(bad, [7], tmp_path / "d", errors="raise")
    with pytest.raises(ItemError) as caught:
        run.wait(progress="quiet")
    assert caught.value.key == "7"
    assert caught.value.attempt == 1
    assert "RuntimeError: no 7" in caught.value.traceback
    assert run.status().state == dc.open(tmp_path / "d").status().state == "failed"


def test_max_failures_ends_the_run(tmp_path: Path) -> None:
    """More failures than allowed end it; what is done is committed."""

    def bad(x: int) -> int:
        raise RuntimeError("no")

    run = dc.map(bad, range(50), tmp_path / "d", max_failures=3, batch_size=1)
    with pytest.raises(TooManyFailures):
        run.wait(progress="quiet")
    assert len(run.failures().compute()) > 3
    assert run.status().state == dc.open(tmp_path / "d").status().state == "failed"


def test_another_workload_on_the_dataset_is_refused_at_once(tmp_path: Path) -> None:
    """dc.map itself raises, and names both."""
    dc.map(double, [1], tmp_path / "d").wait(progress="quiet")

    def triple(x: int) -> int:
        return 3 * x

    with pytest.raises(DatasetMismatchError, match=r"double.*triple|triple.*double"):
        dc.map(triple, [1], tmp_path / "d")


def test_a_crash_names_the_item_and_the_batch_goes_on(tmp_path: Path) -> None:
    """A segfault is the item's own failure."""

    def crash(x: int) -> int:
        if x == 2:
            os.kill(os.getpid(), 11)
        return x

    run = dc.map(crash, range(6), tmp_path / "d")
    run.wait(progress="quiet")
    assert list(run.failures().compute()["kind"]) == ["crash"]
    assert len(results(tmp_path / "d")) == 5


def test_outcomes_come_as_they_are_committed(tmp_path: Path) -> None:
    """as_completed() gives every item once."""
    run = dc.map(double, range(30), tmp_path / "d")
    seen = [outcome.key.text for outcome in run.as_completed()]
    assert sorted(seen) == sorted(str(x) for x in range(30))


def test_a_cancelled_run_keeps_what_is_done(tmp_path: Path) -> None:
    """cancel() ends the run within seconds; the same line goes on."""

    def slow(x: int) -> int:
        time.sleep(0.2)
        return x

    with dc.map(slow, range(200), tmp_path / "d", batch_size=4) as run:
        for _ in run.as_completed():
            break
        run.cancel()
    done = len(results(tmp_path / "d"))
    assert 0 < done < 200
    assert run.summary().state == "cancelled"


def _open_badly(name: str) -> object:
    raise OSError(f"{name} cannot be opened here")


class Unopenable:
    """A value whose pickle cannot be opened."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[object, ...]:
        return _open_badly, (self.name,)


def test_a_value_that_cannot_be_opened_fails_its_own_item(tmp_path: Path) -> None:
    """Its neighbours in the batch succeed, and no set-up is blamed."""

    def kind(value: object) -> str:
        return type(value).__name__

    run = dc.map(kind, [1, Unopenable("this"), "text"], tmp_path / "d", key=lambda value: getattr(value, "name", str(value)))
    run.wait(progress="quiet")
    failed = run.failures().compute()
    assert list(failed["item_key"]) == ["this"]
    assert "cannot be opened here" in failed["message"].iloc[0]
    assert run.summary().succeeded == 2


def test_storage_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    """dc.map itself raises, and nothing is started."""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="file"):
        dc.map(double, [1], tmp_path / "file" / "d")
