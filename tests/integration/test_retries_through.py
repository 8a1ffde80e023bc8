"""Who is tried again, how often and how, through ``dc.map`` on real workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from distributed import Client, Worker
from distributed.deploy.spec import SpecCluster
from distributed.scheduler import Scheduler

import dcompute as dc
from dcompute import retry
from dcompute.records import Failure, Kind
from tests.processes import dask_processes

MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two in-process workers; each may give 1 GiB to one call."""
    web = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    options = {"protocol": "inproc://", "nthreads": 1, "memory_limit": 0, "resources": {"MEMORY": 1024 * MIB}, **web}
    scheduler = {"cls": Scheduler, "options": {"protocol": "inproc://", **web}}
    with SpecCluster(scheduler=scheduler, workers={n: {"cls": Worker, "options": options} for n in range(2)}) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def client(cluster: Any) -> Iterator[Client]:
    """The Client that runs find."""
    with Client(cluster) as client:
        yield client


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default table with waits of a hundredth: how many attempts and which way is what counts here."""
    from dataclasses import replace

    short = {kind: replace(rule, delay=rule.delay / 100, longest=rule.longest / 100) for kind, rule in retry.TABLE.items()}
    monkeypatch.setattr(retry, "TABLE", short)


def fail(value: str) -> str:
    """Fail as the value says, until the attempt that it names: ``ConnectionError 3`` succeeds at the third."""
    way, _, good = value.partition(" ")
    if good and dc.current().attempt >= int(good):
        return way
    if way.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[way])
        time.sleep(60)
    if way.startswith("exit"):
        os._exit(int(way[4:]))
    raise {"ConnectionError": ConnectionError, "FileNotFoundError": FileNotFoundError, "ValueError": ValueError, "KeyError": KeyError}[way](
        way
    )


def table(run: dc.Run) -> pd.DataFrame:
    """All attempts by item and number."""
    assert run.wait(90, progress="quiet"), run.status()
    return run.attempts().compute().sort_values(["item_key", "attempt"]).reset_index(drop=True)


def tried(frame: pd.DataFrame) -> dict[str, int]:
    """How many attempts each item had; their numbers count up without a gap."""
    numbers = {key: list(mine["attempt"]) for key, mine in frame.groupby("item_key")}
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values()), numbers
    return {key: len(found) for key, found in numbers.items()}


def test_a_workload_that_says_nothing_retries_by_kind(tmp_path: Path, short_waits: None) -> None:
    """Transient five attempts, recoverable three, permanent one, a crash two; what succeeds in time has succeeded."""
    values = ["ConnectionError", "ConnectionError 3", "FileNotFoundError", "FileNotFoundError 3", "ValueError", "SIGSEGV", "exit7 2"]
    run = dc.map(fail, values, tmp_path / "d")
    assert tried(table(run)) == {
        "ConnectionError": 5, "ConnectionError 3": 3, "FileNotFoundError": 3, "FileNotFoundError 3": 3, "ValueError": 1, "SIGSEGV": 2,
        "exit7 2": 2,
    }  # fmt: skip
    assert run.summary().failed_by_kind == {"transient": 1, "recoverable": 1, "permanent": 1, "crash": 1}
    assert run.summary().succeeded == 3


def test_retries_n_is_n_more_attempts_for_any_failure_of_the_item(tmp_path: Path, short_waits: None) -> None:
    """Exceptions of every kind and crashes alike; 0 is none."""
    values = ["ConnectionError", "ValueError", "SIGSEGV", "ValueError 3"]
    flaky = dc.workload(fail)
    assert tried(table(dc.map(flaky.options(retries=2), values, tmp_path / "two"))) == dict.fromkeys(values, 3)
    run = dc.map(flaky.options(retries=0), values, tmp_path / "none")
    assert tried(table(run)) == dict.fromkeys(values, 1)
    assert run.summary().failed == 4


def test_a_retry_policy_by_class_exit_code_signal_and_predicate(tmp_path: Path) -> None:
    """Each rule is for its own failures: a base class for its subclasses, and the predicate before all of them."""

    def patient(failure: Failure) -> bool | None:
        return False if failure.error == "KeyError" else None

    policy = dc.Retry(exceptions={LookupError: 4, ValueError: 1}, exit_codes={75: 3}, signals={"SIGBUS": 2}, predicate=patient)
    values = ["ValueError", "KeyError", "exit75", "SIGBUS", "exit9"]
    run = dc.map(dc.workload(fail).options(retries=policy), values, tmp_path / "d")
    assert tried(table(run)) == {"ValueError": 2, "KeyError": 1, "exit75": 4, "SIGBUS": 3, "exit9": 2}


def test_a_predicate_can_ask_for_more(tmp_path: Path) -> None:
    """True tries again what no rule would; one that raises is left out of account and ends nothing."""

    def more(failure: Failure) -> bool | None:
        if failure.error == "KeyError":
            raise RuntimeError("a broken predicate")
        return failure.message == "ValueError"

    run = dc.map(dc.workload(fail).options(retries=dc.Retry(predicate=more)), ["ValueError 2", "KeyError"], tmp_path / "d")
    assert tried(table(run)) == {"ValueError 2": 2, "KeyError": 1}
    assert run.summary().succeeded == 1


def hoard(size: int) -> int:
    """Take so many MiB, held for a moment."""
    held = bytearray(size * MIB)
    for place in range(0, len(held), 4096):
        held[place] = 1
    time.sleep(0.2)
    return size


def test_memory_is_doubled_up_to_the_largest_worker(tmp_path: Path) -> None:
    """Killed at its limit an item gets twice as much, until the largest worker has no more; then the failure is final."""
    run = dc.map(dc.workload(hoard).options(memory="200 MiB"), [1, 300, 2000], tmp_path / "d", batch_size=1)
    frame = table(run)
    assert tried(frame) == {"1": 1, "300": 2, "2000": 4}  # 200, 400, 800, 1024
    failed = frame[frame["outcome"] == "failed"]
    assert set(failed["kind"]) == {"memory"}
    assert set(run.failures().compute()["item_key"]) == {"2000"}
    assert run.summary().failed_by_kind == {"memory": 1}


def test_a_memory_error_counts_as_memory(tmp_path: Path) -> None:
    """An item that raises it is tried again with more."""

    def proud(x: int) -> int:
        if dc.current().attempt < 3:
            raise MemoryError("too large for me")
        return x

    assert tried(table(dc.map(dc.workload(proud).options(memory="200 MiB"), [1], tmp_path / "d"))) == {"1": 3}


def test_a_crash_runs_once_more_alone_on_its_worker(tmp_path: Path) -> None:
    """In a fresh child, and with nothing else of the run at work beside it."""
    folder = tmp_path / "log"
    folder.mkdir()

    def noted(x: int, folder: str) -> int:
        with (Path(folder) / f"{x}-{dc.current().attempt}").open("w") as file:
            file.write(f"{os.getpid()} {time.time()} ")
            file.flush()
            if x == 3 and dc.current().attempt == 1:
                os._exit(11)
            time.sleep(0.1)
            file.write(f"{time.time()}")
        return x

    run = dc.map(noted, range(8), tmp_path / "d", params={"folder": str(folder)}, batch_size=2)
    frame = table(run)
    assert tried(frame) == {str(x): 1 + (x == 3) for x in range(8)}
    again = frame[(frame["item_key"] == "3") & (frame["attempt"] == 2)].iloc[0]
    assert again["outcome"] == "succeeded"
    others = frame[frame["attempt"] == 1]
    assert again["pid"] not in set(others["pid"])
    pid, began, ended = (folder / "3-2").read_text().split()
    assert int(pid) == again["pid"]
    same_worker = others[(others["worker"] == again["worker"]) & (others["item_key"] != "3")]["item_key"]
    for key in same_worker:
        _, start, stop = (folder / f"{key}-1").read_text().split()
        assert float(stop) <= float(began) or float(start) >= float(ended)


def test_what_is_final_stays_and_what_may_heal_is_tried_again_by_the_same_line(tmp_path: Path, short_waits: None) -> None:
    """Run again: a permanent failure is skipped and named, a transient one gets a fresh budget, retry_failed runs the other too."""
    healed = tmp_path / "healed"

    def ill(kind: str, healed: str) -> str:
        if not Path(healed).exists():
            raise {"transient": ConnectionError, "permanent": ValueError}[kind](kind)
        return kind

    def line(**options: Any) -> dc.Run:
        return dc.map(ill, ["transient", "permanent"], tmp_path / "d", params={"healed": str(healed)}, **options)

    assert tried(table(line())) == {"transient": 5, "permanent": 1}
    healed.touch()
    never = line(retry_failed="never")
    table(never)
    assert never.summary().executed == 0
    second = line()
    table(second)
    assert (second.summary().succeeded, dict(second.summary().skipped_failed)) == (1, {"permanent": 1})
    third = line(retry_failed="permanent")
    table(third)
    assert third.summary().succeeded == 1
    assert len(third.failures()) == 0


def test_a_lost_worker_is_never_billed_to_the_item(tmp_path: Path) -> None:
    """With ``retries=0`` an item that lost its worker three times succeeds in the end; its first failure of its own is final."""
    trace = tmp_path / "trace"

    def deadly(x: int, trace: str) -> int:
        with Path(trace).open("a") as file:
            file.write(f"{x}\n")
        if x == 1 and Path(trace).read_text().split().count("1") <= 3:
            worker = psutil.Process().parent().parent()  # the guardian's
            assert "guardian" not in " ".join(worker.cmdline())
            worker.kill()
            time.sleep(30)
        if x == 2:
            raise ConnectionError("its own")
        return x

    with dask_processes(tmp_path / "cluster", workers=2) as processes:
        run = dc.map(
            dc.workload(deadly).options(retries=0),
            range(4),
            tmp_path / "d",
            params={"trace": str(trace)},
            client=processes.address,
            batch_size=1,
        )
        frame = table(run)
    assert run.summary().failed_by_kind == {"transient": 1}
    assert run.summary().succeeded == 3
    lost = frame[frame["outcome"] == "failed"]
    assert set(lost[lost["item_key"] == "1"]["kind"]) <= {Kind.INFRASTRUCTURE}
    assert trace.read_text().split().count("2") <= 4
