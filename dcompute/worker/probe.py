"""What a worker shows before its first batch: that it has the same dcompute, sees the dataset and can open the workload."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import platform
import secrets
import sys
import time
from importlib import import_module
from importlib.metadata import version
from typing import Any

from dcompute.dataset.names import new_id
from dcompute.dataset.store import Store
from dcompute.errors import DcomputeError
from dcompute.records import BatchSpec, RunSpec
from dcompute.worker import code_cache
from dcompute.worker.slot import Slot
from dcompute.worker.supervisor import supervisor
from dcompute.worker.work import SetupFailure, Work

#: A set-up that takes longer than this (seconds) is left to the first batch: the probe has seen that the workload can be opened.
PATIENCE = 15.0
#: Other packages that driver and workers must have in the same version.
SAME = ("dask", "distributed")


def versions() -> dict[str, str]:
    """What must be alike on driver and workers: Python's minor version, and packages."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, "dcompute": import_module("dcompute").__version__, **{name: version(name) for name in SAME}}


def probe(run: bytes | str, token: str) -> dict[str, Any]:
    """What this worker has to say for itself; the function of a Dask task, which never raises.

    Parameters
    ----------
    run
        The pickled ``RunSpec``, or the digest under which the scheduler keeps it.
    token
        The run's id, which names the probe's file.

    Returns
    -------
    dict
        ``ok``; where it is False, ``problem`` and whose ``fault`` it is (``workload``, ``store`` or ``cluster``). In any case ``host``,
        ``pid``, ``worker``, ``versions``, ``memory`` (bytes for all slots, None: no limit), ``cpus`` (threads) and ``file``, the name in
        the dataset of what it wrote there, for the driver to find and remove (None where nothing was written).
    """
    slot = Slot.here()
    answer = _answer(run, token, slot)
    # whoever asked may not be able to reach this worker, which can reach its scheduler
    slot.tell(token, {"event": "probe", "answer": answer})
    return answer


def _answer(run: bytes | str, token: str, slot: Slot) -> dict[str, Any]:
    answer: dict[str, Any] = {"ok": True, "problem": None, "fault": None, "file": None, **_about(slot)}
    try:
        spec = code_cache.run_spec(run, slot.worker)
        answer["fault"] = "store"
        answer["file"] = _write(spec, token, answer)
        answer["fault"] = "cluster"
        problem = _open_workload(spec, slot)
    except DcomputeError as error:
        return {**answer, "ok": False, "problem": str(error), "fault": answer["fault"] or "cluster"}
    except Exception as error:  # noqa: BLE001  told to the driver, which names the worker
        return {**answer, "ok": False, "problem": f"{type(error).__name__}: {error}", "fault": answer["fault"] or "cluster"}
    if problem is not None:
        return {**answer, "ok": False, "problem": problem, "fault": "workload"}
    return {**answer, "fault": None}


def _about(slot: Slot) -> dict[str, Any]:
    worker = slot.worker
    return {
        "host": slot.host,
        "pid": os.getpid(),
        "worker": slot.address,
        "versions": versions(),
        "executable": sys.executable,
        "memory": None if worker is None else worker.memory_manager.memory_limit or None,
        "cpus": os.cpu_count() if worker is None else worker.state.nthreads,
    }


def _write(spec: RunSpec, token: str, answer: dict[str, Any]) -> str | None:
    store = Store.at(spec.dataset, dict(spec.storage_options))
    name = f"runs/{token}.probe-{secrets.token_hex(8)}.json"
    # nobody else has this name: one that is there was made by a request whose answer was lost
    with contextlib.suppress(FileExistsError):
        store.create(name, json.dumps({"host": answer["host"], "pid": answer["pid"], "worker": answer["worker"]}).encode())
    return name


def _open_workload(spec: RunSpec, slot: Slot) -> str | None:
    """Have a child open the workload and make it ready, which it then is for the first batch; what speaks against it, or None."""
    if spec.isolation == "thread":
        from dcompute.worker.thread import set_up

        failure = set_up(spec)
    else:
        failure = _child_set_up(spec, slot)
    if failure is None or failure.stage != "code":
        return None  # a set-up that fails is tried again with the first batches, and counted there
    return "\n".join(text for text in (failure.text, failure.traceback, failure.log) if text)


def _child_set_up(spec: RunSpec, slot: Slot) -> SetupFailure | None:
    if not slot.may_have(spec.gpus):
        return None  # it gets no batches of this run
    nothing = BatchSpec(
        id=f"probe-{spec.run}", keys=(), attempts=(), fingerprints=(), values=pickle.dumps([]), cpus=spec.cpus, gpus=spec.gpus
    )
    until = time.monotonic() + PATIENCE

    def stopped() -> str | None:
        return slot.stopped() or ("cancelled" if time.monotonic() > until else None)

    limit = slot.memory_limit(nothing)
    work = Work(run=spec, batch=nothing, execution=new_id(), scratch=slot.scratch, memory_limit=limit, worker=slot.address, device_wait=0.0)
    done = supervisor().execute(work, stopped=stopped, ticked=lambda _: None)
    done.discard()
    return done.setup_error
