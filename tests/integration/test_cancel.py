"""Runs that are ended early: by their owner, by a request, by a limit on failures; what is finished is kept, the rest goes on later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client, LocalCluster

import dcompute as dc
from dcompute.dataset.requests import post_request
from dcompute.dataset.store import Store
from dcompute.errors import ItemError, RunCancelled, TooManyFailures
from tests.processes import until

#: A run must have ended so soon after it was told to (seconds); the grace for workers that do not answer is longer.
SOON = 6.0


class Stuck:
    """A workload of which some items hang until a file is there; each notes the process in which it began."""

    def __init__(self, folder: Path) -> None:
        self.dataset, self.trace, self.go = folder / "d", folder / "trace", folder / "go"

    def map(self, items: int = 12, **options: object) -> dc.Run:
        """Every third item hangs."""

        def work(x: int, trace: str, go: str) -> int:
            import os
            import time

            with open(trace, "a") as file:
                file.write(f"{x} {os.getpid()}\n")
            while x % 3 == 2 and not os.path.exists(go):
                time.sleep(0.01)
            return x

        params = {"trace": str(self.trace), "go": str(self.go)}
        return dc.map(work, range(items), self.dataset, params=params, batch_size=3, **options)

    def begun(self) -> dict[int, int]:
        """Items that began, and the process of each."""
        text = self.trace.read_text() if self.trace.exists() else ""
        return {int(x): int(pid) for x, pid in map(str.split, text.splitlines())}

    def at_work(self) -> dict[int, int]:
        """Hanging items, once there is one."""
        return until(lambda: {x: pid for x, pid in self.begun().items() if x % 3 == 2}, 60, "an item that hangs")

    def ended_early(self, run: dc.Run, end: Callable[[], object]) -> None:
        """Have it ended while items hang, and look at what became of it."""
        children = self.at_work()
        began = time.monotonic()
        end()
        with pytest.raises(RunCancelled, match="run the same line again"):
            run.wait(progress="quiet")
        assert time.monotonic() - began < SOON
        assert not [pid for pid in children.values() if psutil.pid_exists(pid)]
        assert run.summary().state == run.dataset.status().state == "cancelled"
        # what was finished beside the hanging ones is there
        done = set(dc.open(self.dataset).results().compute()["value"])
        assert {x for x in self.begun() if x % 3 != 2} == done
        assert len(run.failures().compute()) == 0

    def goes_on(self, items: int = 12) -> None:
        """The same line executes the rest, and what was finished stays as it is."""
        before = len(dc.open(self.dataset).results().compute())
        self.go.touch()
        run = self.map(items)
        run.wait(progress="quiet")
        assert run.summary().skipped == before
        assert run.summary().succeeded == items - before
        assert sorted(dc.open(self.dataset).results().compute()["value"]) == list(range(items))


@pytest.fixture
def stuck(tmp_path: Path) -> Stuck:
    return Stuck(tmp_path)


def test_cancel_kills_what_hangs_and_keeps_what_is_done(stuck: Stuck) -> None:
    """The run ends within seconds, and cancelled items run again by themselves."""
    run = stuck.map()
    stuck.ended_early(run, run.cancel)
    stuck.goes_on()


def test_a_request_in_the_dataset_cancels_the_run(stuck: Stuck) -> None:
    """Anybody who can write to the dataset can leave one; the reason is in the error."""
    run = stuck.map()
    stuck.ended_early(run, lambda: post_request(Store.at(stuck.dataset), run.id, {"do": "cancel", "reason": "the night is over"}))
    with pytest.raises(RunCancelled, match="the night is over"):
        run.wait(progress="quiet")


def test_a_with_block_that_raises_cancels_its_run(stuck: Stuck) -> None:
    """The error of the block is what comes out, after the run has ended."""
    run = stuck.map()

    def block() -> None:
        with run:
            stuck.at_work()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        block()
    assert run.summary().state == "cancelled"


def by_request(run: dc.Run) -> None:
    """As ``dcompute cancel`` does it."""
    assert dc.open(run.url).cancel() == run.id


def ended_soon(run: dc.Run, cancel: Callable[[dc.Run], object]) -> None:
    began = time.monotonic()
    cancel(run)
    with pytest.raises(RunCancelled):
        run.wait(20, progress="quiet")
    assert time.monotonic() - began < SOON


@pytest.mark.parametrize("cancel", [dc.Run.cancel, by_request])
def test_cancel_ends_a_run_whose_inputs_are_slow_to_come(tmp_path: Path, cancel: Callable[[dc.Run], object]) -> None:
    """Also before the first of them: nobody waits for an input that is not wanted any more."""
    asked, release = threading.Event(), threading.Event()

    def slow() -> Iterator[int]:
        asked.set()
        release.wait(60)
        yield 1

    run = dc.map(double, slow(), tmp_path / "d")
    assert asked.wait(10)
    try:
        ended_soon(run, cancel)
    finally:
        release.set()


@pytest.mark.parametrize("cancel", [dc.Run.cancel, by_request])
def test_cancel_ends_a_run_that_waits_for_busy_workers(tmp_path: Path, cancel: Callable[[dc.Run], object]) -> None:
    """Also before they have shown that they can do the work."""
    release = tmp_path / "release"
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", worker_dashboard_address=":0", memory_limit=0
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        busy = client.submit(until, release.exists, 60, "the end of the test")
        run = dc.map(double, range(3), tmp_path / "d", client=client)
        try:
            until(lambda: run.status().note == "checking workers", 20, "the probes")
            ended_soon(run, cancel)
        finally:
            release.touch()
            busy.result(20)


def test_errors_raise_stops_a_run_at_the_first_final_failure(stuck: Stuck) -> None:
    """An item that hangs is killed, and runs again by itself; what was finished is kept."""

    def work(x: int) -> int:
        import time

        if x == 5:
            raise ValueError("five")
        # one thread hangs: Dask may begin what came later before the item that fails, and the other thread is left for that
        time.sleep(60 if x == 6 else 0)
        return x

    began = time.monotonic()
    run = dc.map(work, range(8), stuck.dataset, batch_size=1, errors="raise")
    with pytest.raises(ItemError, match="five") as caught:
        run.wait(progress="quiet")
    assert time.monotonic() - began < SOON + 10
    assert (caught.value.key, caught.value.kind) == ("5", "permanent")
    assert "ValueError: five" in caught.value.traceback
    assert set(run.results().compute()["value"]) - {7} == {0, 1, 2, 3, 4}
    assert list(run.failures().compute()["item_key"]) == ["5"]


def double(x: int) -> int:
    return 2 * x


def fails_from_100_on(x: int) -> int:
    if x >= 100:
        raise ValueError("too high")
    return x


@pytest.mark.parametrize(("limit", "items", "failures"), [(3, range(95, 400), 4), (0.2, range(400), 26)])
def test_max_failures_is_a_number_or_a_share(limit: float, items: range, failures: int, tmp_path: Path) -> None:
    """A share counts from a hundred ended items on; one failure more than allowed ends the run, and what is done is kept."""
    # a batch beside the one that ends the run would be cut off
    with dask.config.set({"dcompute.local.threads": 1}):
        run = dc.map(fails_from_100_on, items, tmp_path / "d", max_failures=limit, batch_size=4)
        with pytest.raises(TooManyFailures, match="max_failures"):
            run.wait(progress="quiet")
    failed = len(run.failures().compute())
    assert failures <= failed < failures + 32  # what was in flight still counts
    assert sorted(run.results().compute()["value"]) == [x for x in items if x < 100]


def test_as_many_failures_as_allowed_do_not_end_a_run(tmp_path: Path) -> None:
    """Also where fewer than a hundred items ended and most of them failed."""

    def work(x: int) -> int:
        if x < 30:
            raise ValueError("too low")
        return x

    for number, limit in enumerate((30, 0.4)):
        run = dc.map(work, range(60), tmp_path / f"d{number}", max_failures=limit)
        assert run.wait(progress="quiet")
        assert run.summary().failed == 30
