"""What a worker answered to its probe: good answers pass, others say whose fault it is and what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dcompute.answer import check_answer
from dcompute.dataset.store import Store
from dcompute.errors import ClusterError, DcomputeError, StoreError, WorkloadError
from dcompute.worker.probe import versions

ADDRESS = "tcp://10.0.0.7:4000"


def answer(**more: Any) -> dict[str, Any]:
    """A good answer of this process, but for what is said here."""
    about = {"host": os.uname().nodename, "pid": os.getpid(), "executable": "/opt/python", "versions": versions()}
    return {"ok": True, "problem": None, "fault": None, "file": None, **about, **more}


def test_a_good_answer_passes_and_its_file_is_removed(tmp_path: Path) -> None:
    """The probe leaves nothing in the dataset."""
    store = Store.at(tmp_path)
    store.create("runs/probe.json", b"{}")
    check_answer(ADDRESS, answer(file="runs/probe.json"), store)
    assert not store.exists("runs/probe.json")


@pytest.mark.parametrize("name", ["python", "dcompute", "distributed"])
def test_another_version_is_refused_with_both(name: str, tmp_path: Path) -> None:
    """Worker, package, its version there and here, and which Python to install it into."""
    with pytest.raises(ClusterError) as caught:
        check_answer(ADDRESS, answer(versions={**versions(), name: "0.0.1"}), Store.at(tmp_path))
    words = (ADDRESS, f"{name} 0.0.1 (here {versions()[name]})", "/opt/python")
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(("fault", "kind"), [("workload", WorkloadError), ("store", StoreError), ("cluster", ClusterError)])
def test_a_problem_is_the_fault_of_whom_the_worker_says(fault: str, kind: type[DcomputeError], tmp_path: Path) -> None:
    """The class of the error says whose; its text which worker, and what it said."""
    with pytest.raises(kind, match=rf"{ADDRESS} .*no module named abc"):
        check_answer(ADDRESS, answer(ok=False, fault=fault, problem="no module named abc"), Store.at(tmp_path))


def test_a_file_that_the_driver_does_not_find_is_refused(tmp_path: Path) -> None:
    """That worker sees other storage."""
    with pytest.raises(StoreError, match="different storage"):
        check_answer(ADDRESS, answer(file="runs/probe.json"), Store.at(tmp_path))


def test_memory_of_another_process_is_refused() -> None:
    """Nobody but its own process sees it."""
    store = Store.at("memory://test-answer/d")
    check_answer(ADDRESS, answer(), store)
    with pytest.raises(StoreError, match="another"):
        check_answer(ADDRESS, answer(pid=1), store)
