"""What tasks are made of: it is unpickled by schedulers and workers that may lack dcompute, or have another Python."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest

import dcompute as dc
from dcompute.graph import Packed, Placement, batch_task, probe_task, rewrite_task
from dcompute.records import BatchSpec

PACKED = Packed(payload=b"run", digest="d", data=b"run")
BATCH = BatchSpec(id="r-1-1", keys=(), attempts=(), fingerprints=(), values=b"")
TASKS = {
    "batch": batch_task(PACKED, BATCH, Placement(resources={}), key="batch"),
    "probe": probe_task(PACKED, "token", worker="tcp://w:1", key="probe"),
    "rewrite": rewrite_task(PACKED, "r-1-1", "r-1-2", None, workers=("tcp://w:1",), key="rewrite"),
    "delayed": dc.workload(abs).delayed(-1),
}


class Opener(pickle.Unpickler):
    """Notes from where names are imported."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.packages: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.packages.add(module.partition(".")[0])
        return super().find_class(module, name)


@pytest.mark.parametrize("kind", TASKS)
def test_a_task_is_built_in_whoever_hands_it_on(kind: str) -> None:
    """The standard pickle does for each hop: none falls back to one that sends bytecode."""
    task = dict(TASKS[kind].dask)
    for _hop in ("client to scheduler", "scheduler to worker", "and on"):
        opener = Opener(pickle.dumps(task))
        task = opener.load()
        assert opener.packages <= {"builtins", "dask"}


def test_a_call_leaves_no_trace_in_its_task() -> None:
    """Where it is executed in the process that has it, it can be sent elsewhere afterwards."""
    before = pickle.dumps(dict(TASKS["probe"].dask))
    assert TASKS["probe"].compute(scheduler="sync")["ok"] is False
    assert pickle.dumps(dict(TASKS["probe"].dask)) == before
