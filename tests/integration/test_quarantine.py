"""Checks from end to end: real items in real processes, what they may do to a check, and what becomes of their records."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import dcompute as dc
from dcompute.errors import ItemError, WorkloadError

ROOT = Path(__file__).parents[2]
X = pc.field("x")


@pytest.fixture(scope="module", autouse=True)
def _client() -> Iterator[None]:
    """Two workers in this process, for all runs."""
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster, Client(cluster):
        yield


def pair(value: int) -> list[dict[str, Any]]:
    """A row that is positive where the value is, and one that is not."""
    return [{"x": value}, {"x": -value, "why": "negated"}]


#: Where no process matters: the checks are the same in threads, which start at once.
THREADED = dc.workload(pair).options(isolation="thread")


def run(workload: Any, inputs: Any, url: Path, **options: Any) -> dc.Run:
    """The run, after its end."""
    started = dc.map(workload, inputs, url, **options)
    assert started.wait(60, progress="quiet")
    return started


def rows(url: Path) -> list[tuple[str, int]]:
    return sorted((row["item_key"], row["x"]) for row in dc.open(url).to_arrow().to_pylist())


def records(url: Path) -> list[tuple[str, str, Any]]:
    found = dc.open(url).quarantine().compute().to_dict("records")
    return sorted((row["item_key"], row["check"], json.loads(row["record"])) for row in found)


def test_a_life_of_a_quarantine(tmp_path: Path) -> None:
    """Bad rows and inputs go there, the same line again changes nothing, a release counts, and a changed input ends it all."""
    url = tmp_path / "dataset"
    checked = dc.workload(pair).options(checks={"positive": X > 0})
    inputs = dc.grid(value=[1, 2, 9])

    first = run(checked, inputs, url, input_checks={"small": pc.field("value") < 5})
    summary = first.summary()
    assert (summary.succeeded, summary.failed, summary.rows, summary.quarantined) == (2, 1, 2, 3)
    assert "3 records did not pass a check and are in the quarantine" in str(summary)
    keys = ['{"value":1}', '{"value":2}', '{"value":9}']
    assert rows(url) == [(keys[0], 1), (keys[1], 2)]
    assert records(url) == [
        (keys[0], "positive", {"x": -1, "why": "negated"}), (keys[1], "positive", {"x": -2, "why": "negated"}),
        (keys[2], "small", {"value": 9}),
    ]  # fmt: skip

    before = rows(url), records(url)
    again = run(checked, inputs, url, input_checks={"small": pc.field("value") < 5})
    assert (again.summary().executed, again.summary().quarantined) == (0, 0)
    assert (rows(url), records(url)) == before

    dc.open(url).release([keys[0], keys[2]])
    assert rows(url) == [(keys[0], -1), (keys[0], 1), (keys[1], 2)]
    third = run(checked, inputs, url, input_checks={"small": pc.field("value") < 5})
    assert (third.summary().succeeded, third.summary().failed) == (1, 0)
    assert (keys[2], 9) in rows(url)

    changed = run(checked.options(version="2"), inputs, url, input_checks={"small": pc.field("value") < 5})
    assert changed.summary().redone == 3
    assert rows(url) == [(keys[0], 1), (keys[1], 2), (keys[2], 9)]
    assert [key for key, *_ in records(url)] == keys


def test_a_released_input_that_changed_is_checked_again(tmp_path: Path) -> None:
    """What was released is that input, and no later one under its key."""
    url = tmp_path / "dataset"
    options: dict[str, Any] = {"key": lambda value: "one", "input_checks": {"small": pc.field("value") < 5}}
    run(THREADED, [7], url, **options)
    dc.open(url).release(["one"])
    assert run(THREADED, [7], url, **options).summary().succeeded == 1
    assert run(THREADED, [8], url, **options).summary().failed == 1
    assert (rows(url), records(url)) == ([], [("one", "small", {"value": 8})])


def drawn(value: int) -> dict[str, int]:
    """A row, and a file with its number."""
    dc.current().output("map.txt").write_text(str(value))
    return {"x": value}


@pytest.mark.parametrize("policy", ["keep", "refuse"])
def test_records_of_the_quarantine_keep_their_files(tmp_path: Path, policy: Any) -> None:
    """Vacuum and copies leave a bad row its file until it is dropped, so that a release brings it back with what it names."""
    url, there = tmp_path / "dataset", tmp_path / "copy"
    run(dc.workload(drawn).options(isolation="thread", checks={"positive": X > 0}, on_invalid=policy), [1, -1, -2], url)
    dc.open(url).drop_quarantined(["-2"])
    dc.open(url).compact(all=True)
    assert len(dc.open(url).vacuum(retention=0).removed) >= 1
    dc.open(url).copy(there)
    for place in (url, there):
        dc.open(place).release(["-1"])
        released = dc.open(place).to_arrow(filters=[("item_key", "==", "-1")]).to_pylist()
        assert [(row["x"], Path(row["map_url"]).read_text()) for row in released] == [(-1, "-1")]
        assert all(Path(row["map_url"]).is_relative_to(place) for row in released)
        dc.open(place).compact(all=True)
        dc.open(place).vacuum(retention=0)
        assert sorted(file.read_text() for file in (place / "files").rglob("map.txt")) == ["-1", "1"]


def test_a_refused_item_is_an_error_where_errors_are_raised(tmp_path: Path) -> None:
    """It fails as any other item, with the name of the check."""
    refusing = THREADED.options(checks={"positive": X > 0}, on_invalid="refuse")
    started = dc.map(refusing, [1], tmp_path / "dataset", errors="raise")
    with pytest.raises(ItemError, match="1 of its 2 rows do not pass: positive"):
        started.wait(60, progress="quiet")
    failed = dc.open(tmp_path / "dataset").failures().compute()
    assert failed["error"].tolist() == ["dcompute.errors.CheckFailed"]
    assert failed["quarantined"].tolist() == [1]


def test_an_item_that_is_tried_again_is_listed_once(tmp_path: Path) -> None:
    """With attempts left its earlier records do not count."""
    refusing = THREADED.options(checks={"positive": X > 0}, on_invalid="refuse", retries=2)
    done = run(refusing, [1], tmp_path / "dataset")
    assert len(done.attempts()) == 3
    assert len(records(tmp_path / "dataset")) == 1


def ends_its_process(table: pa.Table) -> Any:
    """A check that no process survives."""
    if 3 in table["x"].to_pylist():
        os._exit(3)
    return pc.greater(table["x"], 0)


def test_a_check_that_ends_its_process_fails_items_and_not_the_run(tmp_path: Path) -> None:
    """Nobody can say which rows pass: the batch's items fail of the check, and other batches count."""
    checked = dc.workload(pair).options(checks={"deadly": ends_its_process})
    done = run(checked, [1, 3], tmp_path / "dataset", batch_size=1)
    assert (done.summary().succeeded, done.summary().failed) == (1, 1)
    failed = done.failures().compute()
    assert failed["error"].tolist() == ["dcompute.errors.CheckError"]
    assert "could not be judged" in failed["message"].tolist()[0]
    assert rows(tmp_path / "dataset") == [("1", 1)]


def stops_its_process(value: int) -> bool:
    """A check of inputs that does not come back from some."""
    while value == 2:
        time.sleep(0.01)
    if value == 3:
        os._exit(3)
    return value > 0


def test_a_check_of_inputs_that_hangs_or_crashes_is_billed_to_its_input(tmp_path: Path) -> None:
    """The timeout and the end of the process hit the item that was looked at, and nobody else; none of them is executed unchecked."""
    done = run(
        dc.workload(pair).options(timeout=0.5),
        [1, 5, 6, 7, 8, 3, 2, -4],
        tmp_path / "dataset",
        batch_size=2,
        input_checks=stops_its_process,
    )
    assert {row["item_key"]: row["kind"] for row in done.failures().compute().to_dict("records")} == {
        "2": "timeout", "3": "crash", "-4": "permanent",
    }  # fmt: skip
    assert {key for key, _ in rows(tmp_path / "dataset")} == {"1", "5", "6", "7", "8"}
    assert [key for key, *_ in records(tmp_path / "dataset")] == ["-4"]


SENT = """
import os
import pyarrow.compute as pc

def positive(table):
    if not os.path.exists({path!r}):
        open({path!r}, "w").close()
        os._exit(3)
    return pc.greater(table["x"], 0)
"""


def test_a_check_of_a_module_that_was_sent_judges_after_a_crash_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that writes rows in place of one that died was never shown the workload, and finds what checks import."""
    (tmp_path / "labchecks.py").write_text(SENT.format(path=str(tmp_path / "died")))
    monkeypatch.syspath_prepend(tmp_path)
    import labchecks

    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])

    def single(value: int) -> dict[str, int]:
        return {"x": value}

    done = run(dc.workload(single).options(checks=labchecks.positive), [1, -1], tmp_path / "dataset", modules=["labchecks"], batch_size=2)
    assert (tmp_path / "died").exists()
    assert "was lost" not in caplog.text
    assert (done.summary().succeeded, done.summary().failed) == (2, 0)
    assert (rows(tmp_path / "dataset"), records(tmp_path / "dataset")) == ([("1", 1)], [("-1", "positive", {"x": -1})])


def test_what_can_never_work_is_refused_early(tmp_path: Path) -> None:
    """A check of columns that schema= does not declare, what is no check, and what cannot travel."""
    with pytest.raises(WorkloadError, match="cannot be asked of the columns that schema= declares"):
        dc.workload(pair).options(schema={"y": "int64"}, checks=X > 0)
    with pytest.raises(WorkloadError, match="input_checks= has 3"):
        dc.map(pair, [1], tmp_path / "dataset", input_checks=3)
    import threading

    lock = threading.Lock()
    with pytest.raises(WorkloadError, match="checks: 'locked' cannot be sent"):
        dc.map(dc.workload(pair).options(checks={"locked": lambda table: lock}), [1], tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_killed_releases(tmp_path: Path, python: Any) -> None:
    """Whatever a release was at when it was killed: nothing of it counts or all of it, and the next one ends it with no file left over."""
    url = tmp_path / "dataset"
    run(THREADED.options(checks={"positive": X > 0}), [1, 2], url, batch_size=1, input_checks=lambda value: value > 1)
    (tmp_path / "folder").mkdir()
    done = python("-m", "tests.integration.killed_release", url, tmp_path / "folder", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) >= 3
    nothing, everything = told[0]["before"], told[-1]["before"]
    assert (nothing[1], everything[1]) == (2, 0)
    assert all(one["before"] in (nothing, everything) for one in told)
    assert all((one["after"], one["files"]) == (everything, 2) for one in told)
