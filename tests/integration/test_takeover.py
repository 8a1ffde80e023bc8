"""One driver at a time: a live one is respected or fenced off, a dead one is succeeded, and of two at once one wins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import dcompute as dc
from dcompute.dataset import lease
from dcompute.dataset.entries import Open
from dcompute.dataset.log import Log
from dcompute.dataset.names import heartbeat_name
from dcompute.dataset.requests import post_request
from dcompute.dataset.store import Store
from dcompute.dataset.writer import open_dataset
from dcompute.errors import DatasetBusy, DatasetTakenOver
from tests.processes import until

PROGRAM = Path(__file__).parents[1] / "programs" / "driver.py"
ITEMS = 20


def start(folder: Path, *options: str, items: int = ITEMS, seconds: float = 0.2) -> subprocess.Popen[str]:
    """A driver in a process of its own, under way."""
    words = [sys.executable, str(PROGRAM), str(folder / "d"), str(folder / "trace"), str(items), str(seconds), *options]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def at_work(folder: Path, items: int = 3) -> None:
    """Wait until that many items began."""
    until(lambda: (folder / "trace").exists() and len((folder / "trace").read_text().splitlines()) >= items, 60, "the first items")


def double(x: int) -> int:
    return 2 * x


def go_on(folder: Path, *, takeover: bool = False) -> dc.Run:
    """The same work from this process, quick."""
    return dc.map(double, range(ITEMS), folder / "d", takeover=takeover, on_change="keep")


def check(folder: Path, items: int = ITEMS) -> None:
    """Every item has its result, once, and was committed once."""
    dataset = dc.open(folder / "d")
    frame = dataset.results().compute()
    assert dict(zip(frame["item_key"], frame["value"], strict=True)) == {str(x): 2 * x for x in range(items)}
    attempts = dataset.attempts().compute()
    assert Counter(attempts.loc[attempts["outcome"] == "succeeded", "item_key"]) == Counter(str(x) for x in range(items))


def test_a_second_driver_that_meets_a_live_one_is_refused_at_once(tmp_path: Path) -> None:
    """dc.map itself raises DatasetBusy, which says who, where and since when; the first goes on and ends well."""
    began = time.time()
    first = start(tmp_path)
    at_work(tmp_path)
    asked = time.monotonic()
    with pytest.raises(DatasetBusy) as caught:
        go_on(tmp_path)
    assert time.monotonic() - asked < 2.0
    assert caught.value.host == os.uname().nodename
    assert caught.value.pid == first.pid
    assert began - 1 <= caught.value.since <= time.time()
    assert str(first.pid) in str(caught.value)
    assert "takeover=True" in str(caught.value)
    first.communicate(timeout=60)
    assert first.returncode == 0
    check(tmp_path)


def test_takeover_fences_the_first_driver_off(tmp_path: Path) -> None:
    """It ends with DatasetTakenOver and writes no more; what it had committed stays, and the results are right."""
    first = start(tmp_path)
    at_work(tmp_path, 6)
    until(lambda: len(dc.open(tmp_path / "d").results().compute()), 30, "a first commit")
    second = go_on(tmp_path, takeover=True)
    second.wait(progress="quiet")
    out, _ = first.communicate(timeout=30)
    assert first.returncode == 1
    assert DatasetTakenOver.__name__ in out
    assert second.summary().skipped > 0
    check(tmp_path)


def test_a_fenced_driver_whose_item_hangs_ends_within_seconds(tmp_path: Path) -> None:
    """It looks whether it was taken over although it has nothing to commit, and its items are killed."""
    first = start(tmp_path, seconds=100.0)
    at_work(tmp_path, 1)
    go_on(tmp_path, takeover=True).wait(progress="quiet")
    out, _ = first.communicate(timeout=20)
    assert DatasetTakenOver.__name__ in out
    check(tmp_path)


def test_a_driver_whose_process_is_gone_is_succeeded_at_once(tmp_path: Path) -> None:
    """On the same host nobody waits for a lease, and what the dead one's workers wrote is adopted."""
    first = start(tmp_path)
    at_work(tmp_path, 6)
    first.kill()
    first.communicate()
    asked = time.monotonic()
    run = go_on(tmp_path)
    run.wait(progress="quiet")
    assert time.monotonic() - asked < lease.LEASE - 2
    check(tmp_path)


class Elsewhere:
    """A driver on another host, as far as the dataset shows it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.at(folder / "d")
        _, state = open_dataset(self.store, create=True)
        self.driver = Open(
            epoch=1, run="other", workload="double", host="elsewhere", boot="another", pid=4711, started=1.0, at=time.time() - 60
        )
        Log(self.store).append(state.number + 1, [self.driver])
        self.beats = 0
        self.beat()

    def beat(self) -> None:
        """Write a heartbeat that differs from the last."""
        self.beats += 1
        what = {"host": "elsewhere", "pid": 4711, "state": "running", "beat": self.beats, "time": time.time(), "counts": {}}
        self.store.write(heartbeat_name("other"), json.dumps(what).encode())


def test_a_silent_driver_on_another_host_is_succeeded_when_its_lease_has_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dc.map does not wait; the run does, says for whom and how long, and then goes on."""
    monkeypatch.setattr(lease, "LEASE", 1.5)
    Elsewhere(tmp_path)
    asked = time.monotonic()
    run = go_on(tmp_path)
    assert time.monotonic() - asked < 1.0
    note = until(lambda: run.status().note, 5, "a line of progress")
    assert "elsewhere" in note
    assert "4711" in note
    assert "(1 s)" in note or "(2 s)" in note
    run.wait(progress="quiet")
    assert time.monotonic() - asked > 1.5
    check(tmp_path)


def test_a_driver_on_another_host_that_beats_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that waited for it ends with DatasetBusy, from wait(), once the heartbeat changes."""
    monkeypatch.setattr(lease, "LEASE", 20.0)
    other = Elsewhere(tmp_path)
    run = go_on(tmp_path)
    until(lambda: run.status().note, 5, "a line of progress")
    other.beat()
    with pytest.raises(DatasetBusy, match="elsewhere") as caught:
        run.wait(progress="quiet")
    assert (caught.value.host, caught.value.pid) == ("elsewhere", 4711)


@pytest.mark.parametrize("how", ["cancel()", "a request to it", "a request to whom it waits for"])
def test_a_run_that_waits_for_a_lease_can_be_cancelled(tmp_path: Path, how: str) -> None:
    """It ends within a second or two, and the dataset is as it was; what the silent driver was asked before does not count."""
    store = Elsewhere(tmp_path).store
    post_request(store, "other", {"do": "cancel"})
    run = go_on(tmp_path)
    until(lambda: run.status().note, 5, "a line of progress")
    if how == "cancel()":
        run.cancel()
    elif how == "a request to it":
        post_request(store, run.id, {"do": "cancel"})
    else:
        assert dc.open(tmp_path / "d").cancel() == "other"
    with pytest.raises(dc.errors.RunCancelled):
        run.wait(3, progress="quiet")
    assert open_dataset(Store.at(tmp_path / "d"))[1].epoch == 1


def test_of_two_drivers_at_the_same_instant_one_wins(tmp_path: Path) -> None:
    """In processes of their own: the other ends with DatasetBusy, and each item is done once."""
    moment = f"{time.time() + 4.0}"
    both = [start(tmp_path, "--at", moment, items=12, seconds=0.05) for _ in range(2)]
    outs = [process.communicate(timeout=60)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], outs
    loser = outs[[process.returncode for process in both].index(1)]
    assert DatasetBusy.__name__ in loser
    check(tmp_path, 12)
    trace = (tmp_path / "trace").read_text().splitlines()
    assert Counter(int(line.split()[0]) for line in trace) == Counter(range(12))


def test_of_two_runs_of_one_process_at_the_same_instant_one_wins(tmp_path: Path) -> None:
    """Also where both are threads of one process, again and again."""

    def identity(x: int) -> int:
        return x

    for round_ in range(3):
        ends = _at_once([lambda place=tmp_path / f"d{round_}": dc.map(identity, range(3), place).wait(progress="quiet")] * 2)
        errors = [end for end in ends if isinstance(end, BaseException)]
        # the second may come when the first is done already
        assert all(isinstance(error, DatasetBusy) for error in errors), errors
        assert len(errors) < 2
        assert len(dc.open(tmp_path / f"d{round_}").attempts().compute()) == 3


def _at_once(acts: list[Callable[[], object]]) -> list[object]:
    ends: list[object] = [None] * len(acts)
    barrier = threading.Barrier(len(acts))

    def one(place: int) -> None:
        barrier.wait()
        try:
            ends[place] = acts[place]()
        except BaseException as error:
            ends[place] = error

    threads = [threading.Thread(target=one, args=(place,)) for place in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def test_a_dataset_that_is_begun_anew_in_mid_run_belongs_to_the_second_run(tmp_path: Path) -> None:
    """The first ends with one error and writes no entry; the results of the second are complete and right."""
    first = start(tmp_path, seconds=0.5)
    at_work(tmp_path)
    (tmp_path / "d").rename(tmp_path / "old")
    second = start(tmp_path)
    out, _ = first.communicate(timeout=60)
    assert first.returncode == 1
    assert out.splitlines()[1].startswith(f"DatasetCorruptError: the dataset at {tmp_path / 'd'} is not ")
    assert second.communicate(timeout=60)[0] == "started\n"
    assert second.returncode == 0
    check(tmp_path)
    opened = [action for entry in Log(Store.at(tmp_path / "d")).read_all() for action in entry.actions if isinstance(action, Open)]
    assert [one.pid for one in opened] == [second.pid]


def test_a_dataset_that_is_removed_in_mid_run_ends_it(tmp_path: Path) -> None:
    """No commit brings it back: the same line begins anew there."""
    first = start(tmp_path, seconds=0.5)
    at_work(tmp_path)
    (tmp_path / "d").rename(tmp_path / "old")
    out, _ = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "not there any more: somebody removed or renamed it" in out
    assert not (tmp_path / "d" / "log").exists()
    assert not (tmp_path / "d" / "runs").exists()
    go_on(tmp_path).wait(progress="quiet")
    check(tmp_path)
