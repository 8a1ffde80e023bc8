"""Every annotation arrives at the scheduler, on every path that tasks take: asked of the scheduler itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

import dcompute as dc
from tests.clusters.conftest import fake_devices, in_process
from tests.processes import until

MIB = 1 << 20
ASKED = {"CPU": 1.0, "MEMORY": 200.0 * MIB, "GPU": 0.5, "LICENCE": 2.0}


class Seen(SchedulerPlugin):  # type: ignore[misc]
    """Notes what the scheduler knows of each task when it first moves."""

    name = "seen"

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}

    async def start(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        task = self.scheduler.tasks.get(key)
        if task is not None and str(key) not in self.tasks:
            self.tasks[str(key)] = {
                "resources": dict(task.resource_restrictions or {}),
                "priority": -task.priority[0],
                "workers": len(task.worker_restrictions or ()),
                "strict": not task.loose_restrictions,
                "note": dict((task.annotations or {}).get("dcompute") or {}),
            }


def trouble(x: int, trace: str = os.devnull) -> int:
    """The first item ends its process, the second one freezes it, once each."""
    if x > 1:
        return x
    with open(f"{trace}-{x}", "a+") as file:
        file.seek(0)
        is_first = not file.read()
        file.write("here\n")
    if x == 0 and is_first:
        os._exit(3)
    if x == 1 and is_first:
        os.kill(os.getpid(), signal.SIGSTOP)
    return x


def counted(frame: Any) -> Any:
    return frame.groupby("value").size().to_frame("n").reset_index()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All tasks of a run with a crash and a straggler, of one with a rewrite, of a delayed call and of a report."""
    folder = tmp_path_factory.mktemp("annotations")
    asked = dc.workload(trouble).options(cpus=1, gpus=0.5, memory="200 MiB", resources={"LICENCE": 2}, priority=7)
    worker = {"resources": {"LICENCE": 9, "GPU": 1}}
    with fake_devices(folder / "machine"), in_process(worker, worker) as client:
        client.register_plugin(Seen())
        run = dc.map(asked, range(6), folder / "d", params={"trace": str(folder / "trace")}, batch_size=1, client=client)
        assert run.wait(90, progress="quiet")
        assert run.summary().succeeded == 6
        disagreement(client, folder)
        assert client.compute(asked.options(cpus=0.5).delayed(5)).result(timeout=60) == 5
        dc.Report("counted", {"frame": folder / "d"}, counted).run(client)
        tasks: dict[str, dict[str, Any]] = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.plugins["seen"].tasks)
    return tasks


def disagreement(client: Any, folder: Path) -> None:
    """A run with a batch that is rewritten."""
    gate = folder / "gate"

    def disagree(x: int) -> dict[str, object]:
        folder.joinpath(f"begun-{x}").touch()
        while not gate.exists():
            time.sleep(0.01)
        return {"value": x if x % 2 else "text"}

    run = dc.map(disagree, range(2), folder / "e", batch_size=1, client=client)
    until(lambda: len(list(folder.glob("begun-*"))) == 2, 60, "both items at work")
    gate.touch()
    assert run.wait(60, progress="quiet")


#: Path -> part of its tasks' names, what of these is its own, and what must have arrived.
PATHS: dict[str, tuple[str, Callable[[dict[str, Any]], bool], dict[str, Any]]] = {
    "batch": (
        "trouble-",
        lambda task: not task["workers"] and "batch" in task["note"],
        {"resources": ASKED, "priority": 7, "notes": {"batch"}},
    ),
    "alone or twin": ("trouble-", lambda task: task["workers"] > 0, {"resources": ASKED, "priority": 7, "notes": {"batch"}}),
    "probe": ("probe-", lambda _: True, {"resources": {}, "priority": 1_000_000, "notes": {"probe"}, "workers": 1}),
    "rewrite": ("disagree-rewrite-", lambda _: True, {"resources": {}, "priority": 1_000_000, "notes": {"batch"}}),
    "delayed": (
        "trouble-",
        lambda task: "workload" in task["note"],
        {"resources": {**ASKED, "CPU": 0.5}, "priority": 7, "notes": {"workload"}},
    ),
}


@pytest.mark.parametrize("path", PATHS)
def test_what_was_asked_for_arrived(seen: dict[str, dict[str, Any]], path: str) -> None:
    """Resources, priority, workers and the note of dcompute, as each path has them; and nothing besides."""
    name, is_own, expected = PATHS[path]
    tasks = {key: task for key, task in seen.items() if key.startswith(name) and is_own(task)}
    assert tasks, sorted(seen)
    for key, task in tasks.items():
        assert task["resources"] == pytest.approx(expected["resources"], rel=1e-5), key
        assert task["priority"] == expected["priority"], key
        assert set(task["note"]) >= expected["notes"], key
        assert task["strict"] or not task["workers"], key
        assert task["workers"] == expected.get("workers", task["workers"]), key


def test_a_batch_that_goes_to_one_worker_goes_to_no_other(seen: dict[str, dict[str, Any]]) -> None:
    """One item ended its process and is executed alone, one froze and has a twin: both name their worker, and both were seen."""
    assert sum(key.startswith("trouble-") and task["workers"] == 1 for key, task in seen.items()) >= 2


def test_a_report_asks_for_nothing(seen: dict[str, dict[str, Any]]) -> None:
    """Its tasks wait for no resource, on workers that declare some too."""
    others = {key: task for key, task in seen.items() if not key.startswith(("trouble-", "probe-", "disagree-"))}
    assert others
    assert not any(task["resources"] or task["workers"] for task in others.values())
