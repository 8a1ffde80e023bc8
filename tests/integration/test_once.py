"""``idempotent=False``: whatever is killed, no item is executed a second time by itself."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

import dcompute as dc
from dcompute.dataset.entries import Sent
from dcompute.dataset.log import Log
from dcompute.dataset.names import NOBODY, started_name
from dcompute.dataset.store import Store
from dcompute.errors import InitializerError, RunCancelled
from dcompute.records import split_batch_id
from tests.processes import DaskProcesses, dask_processes, kill, until

PROGRAM = Path(__file__).parents[1] / "programs" / "at_most_once.py"
ITEMS = 12
#: The batch of three in which one item is at work when something is killed.
AT_WORK, STUCK_BATCH = 4, [3, 4, 5]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A scheduler and two workers with nannies."""
    with dask_processes(tmp_path_factory.mktemp("cluster")) as processes:
        yield processes


class Scene:
    """A run of which one item is stuck, and what came of it."""

    def __init__(self, folder: Path, address: str) -> None:
        self.dataset, self.trace, self._address = folder / "d", folder / "trace", address

    def start(self, *options: str) -> subprocess.Popen[str]:
        """The program under way."""
        words = [sys.executable, str(PROGRAM), str(self.dataset), str(self.trace), str(ITEMS), self._address, *options]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, process: subprocess.Popen[str]) -> None:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err

    def stuck_in(self) -> int:
        """The child in which the item is at work."""
        pids: list[int] = until(lambda: [pid for x, pid in self.lines() if x == AT_WORK], 60, "the item at work")
        return pids[0]

    def go(self) -> None:
        """Let the item end."""
        Path(f"{self.trace}.go").touch()

    def lines(self) -> list[tuple[int, int]]:
        """Item and process, of each beginning."""
        text = self.trace.read_text() if self.trace.exists() else ""
        return [(int(words[0]), int(words[1])) for words in map(str.split, text.splitlines()) if len(words) == 3]

    def executed(self) -> Counter[int]:
        return Counter(x for x, _ in self.lines())

    def claimed(self) -> set[int]:
        """Items of the first driver's batches that were claimed: how many there are when it is killed is a matter of luck."""
        store = Store.at(str(self.dataset))
        actions = (action for entry in Log(store).read_all() for action in entry.actions)
        sent = [action for action in actions if isinstance(action, Sent) and split_batch_id(action.batch)[1] == 1]
        claims = {action.batch: store.read_or_none(started_name(action.batch)) for action in sent}
        return {int(key.text) for action in sent if claims[action.batch] not in (None, NOBODY) for key in action.keys}

    def outcomes(self) -> dict[int, str]:
        """``succeeded`` or the kind of failure, of each item's last attempt."""
        try:
            frame: pd.DataFrame = dc.open(self.dataset).attempts().compute()
        except dc.errors.DatasetNotFoundError:
            return {}
        return {
            int(row.item_key): row.outcome if row.outcome == "succeeded" else row.kind for row in frame.itertuples()
        }  # rows come in the order of their commits


@pytest.fixture
def scene(tmp_path: Path, cluster: DaskProcesses) -> Scene:
    return Scene(tmp_path, cluster.address)


def lost(*items: int) -> dict[int, str]:
    """All succeeded but these, whose worker was lost."""
    return {x: "infrastructure" if x in items else "succeeded" for x in range(ITEMS)}


def test_a_killed_child_ends_its_item_and_no_other(scene: Scene) -> None:
    """The item at work failed, finally, although a crash is tried once more elsewhere; the rest of its batch goes on."""
    process = scene.start()
    kill(scene.stuck_in())
    scene.finish(process)
    assert scene.outcomes() == lost() | {AT_WORK: "crash"}
    assert scene.executed() == Counter(range(ITEMS))


def test_items_of_a_killed_worker_are_lost_until_they_are_asked_for_again(scene: Scene, cluster: DaskProcesses) -> None:
    """Those of its batch end as infrastructure, finally; the same line leaves them, retry_failed executes them, once more."""
    process = scene.start()
    child = scene.stuck_in()
    worker = next(parent for parent in psutil.Process(child).parents() if parent.pid in cluster.worker_pids())
    worker.kill()
    scene.finish(process)
    assert scene.outcomes() == lost(*STUCK_BATCH)
    assert max(scene.executed().values()) == 1
    scene.go()
    scene.finish(scene.start())
    assert scene.outcomes() == lost(*STUCK_BATCH)
    assert max(scene.executed().values()) == 1
    scene.finish(scene.start("--retry-failed"))
    assert scene.outcomes() == lost()
    assert {x for x, count in scene.executed().items() if count == 2} <= set(STUCK_BATCH)


def test_items_of_a_killed_client_are_not_executed_by_its_successor(scene: Scene) -> None:
    """What had begun and left no mark counts as lost; what nobody had begun is executed now."""
    process = scene.start()
    scene.stuck_in()
    process.kill()
    process.communicate()
    scene.finish(scene.start())
    executed, outcomes = scene.executed(), scene.outcomes()
    assert max(executed.values()) == 1
    assert set(outcomes) == set(range(ITEMS))
    assert outcomes[AT_WORK] == "infrastructure"
    assert {x for x, outcome in outcomes.items() if outcome == "infrastructure"} <= scene.claimed()
    assert {outcome for x, outcome in outcomes.items() if x not in executed} <= {"infrastructure"}


def test_a_set_up_that_fails_loses_no_item(cluster: DaskProcesses, tmp_path: Path) -> None:
    """The run ends with InitializerError, nothing was executed, and the corrected line executes all of them, once."""
    broken, trace = tmp_path / "broken", tmp_path / "trace"
    broken.touch()

    def prepare(broken: str) -> str:
        import os

        if os.path.exists(broken):
            raise OSError("no service")
        return "ready"

    def send(x: int, state: str, trace: str) -> int:
        with open(trace, "a") as file:
            file.write(f"{x}\n")
        return x

    work = dc.workload(initializer=prepare, idempotent=False)(send)
    params = {"broken": str(broken), "trace": str(trace)}
    with pytest.raises(InitializerError, match="no service"):
        dc.map(work, range(ITEMS), tmp_path / "d", params=params, client=cluster.address).wait(progress="quiet")
    assert not trace.exists()
    assert len(dc.open(tmp_path / "d").attempts().compute()) == 0
    broken.unlink()
    run = dc.map(work, range(ITEMS), tmp_path / "d", params=params, client=cluster.address)
    run.wait(progress="quiet")
    assert run.summary().succeeded == ITEMS
    assert Counter(trace.read_text().split()) == Counter(map(str, range(ITEMS)))


def test_a_set_up_that_fails_once_is_tried_again(tmp_path: Path) -> None:
    """The batch that had claimed its execution goes out again: none of its items had begun."""
    notes = tmp_path / "set-ups"

    def prepare(notes: str) -> str:
        with open(notes, "a") as file:
            file.write("x")
        with open(notes) as file:
            if len(file.read()) <= 2:
                raise OSError("not yet")
        return "ready"

    def send(x: int, state: str) -> int:
        return x

    work = dc.workload(initializer=prepare, idempotent=False)(send)
    run = dc.map(work, range(4), tmp_path / "d", params={"notes": str(notes)}, batch_size=4)
    run.wait(progress="quiet")
    assert run.summary().succeeded == 4


@pytest.mark.parametrize("batch_size", [1, 3])
def test_items_that_were_not_begun_when_the_run_was_cancelled_are_executed_later(tmp_path: Path, batch_size: int) -> None:
    """Those at work are lost, because they may have done half of it; all others run by the same line again, each once."""
    trace, go = tmp_path / "trace", tmp_path / "go"

    def send(x: int, trace: str, go: str) -> int:
        import os
        import time

        with open(trace, "a") as file:
            file.write(f"{x}\n")
        while not os.path.exists(go):
            time.sleep(0.01)
        return x

    work = dc.workload(idempotent=False)(send)
    params = {"trace": str(trace), "go": str(go)}
    run = dc.map(work, range(ITEMS), tmp_path / "d", params=params, batch_size=batch_size)
    until(trace.exists, 30, "the first item")
    began = time.monotonic()
    run.cancel()
    with pytest.raises(RunCancelled):
        run.wait(progress="quiet")
    assert time.monotonic() - began < 8
    begun = set(trace.read_text().split())
    go.touch()
    run = dc.map(work, range(ITEMS), tmp_path / "d", params=params, batch_size=batch_size)
    run.wait(progress="quiet")
    assert Counter(trace.read_text().split()) == Counter(map(str, range(ITEMS)))
    assert run.summary().succeeded == ITEMS - len(begun)
    assert set(run.failures().compute()["item_key"]) == begun
