"""One call of a workload inside a user's own graph: executed in a supervised child, its plain result handed back."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle

from dcompute.code import load, pack
from dcompute.dataset.names import new_id
from dcompute.errors import ClusterError, InitializerError, ItemError, RunCancelled, WorkloadError
from dcompute.records import BatchSpec, ItemKey, RunSpec
from dcompute.worker import code_cache, context
from dcompute.worker.attempt import one_of_group
from dcompute.worker.slot import Slot
from dcompute.worker.supervisor import supervisor
from dcompute.worker.work import Execution, Work
from dcompute.workload import workload


def run_delayed(run: bytes | str, value: Any, *, memory: int | None = None, cpus: float = 1.0, gpus: float = 0.0) -> Any:
    """What the workload returns for one value; the function of a task of ``Workload.delayed``.

    Parameters
    ----------
    run
        The pickled ``RunSpec``, or the digest under which the scheduler keeps it; its dataset is not used.
    value
        What the workload is called with.
    memory
        Bytes that the call may take; None: the slot's share of its worker's.
    cpus, gpus
        Cores and devices that it asked for.

    Raises
    ------
    ItemError
        The call failed; has kind and remote traceback.
    WorkloadError
        The workload could not be opened or made ready.
    RunCancelled
        Nobody wants the result any more.
    """
    slot = Slot.here()
    spec = code_cache.run_spec(run, slot.worker)
    target = Path(slot.scratch) / f"result-{new_id()}"
    try:
        done = _executed(spec, slot, _batch(spec, (str(target), value), memory, cpus, gpus))
        done.discard()
        _raise(done, spec.workload)
        return pickle.loads(target.read_bytes())  # noqa: S301  the task's own result, opened as Dask would
    finally:
        target.unlink(missing_ok=True)


def _batch(spec: RunSpec, value: Any, memory: int | None, cpus: float, gpus: float) -> BatchSpec:
    return BatchSpec(
        id=f"delayed-{spec.run}",
        keys=(ItemKey(spec.workload, "str"),),
        attempts=(1,),
        fingerprints=("",),
        values=cloudpickle.dumps([value]),
        memory=memory,
        cpus=cpus,
        gpus=gpus,
    )


def _executed(spec: RunSpec, slot: Slot, batch: BatchSpec) -> Execution:
    wrapped = replace(spec, code=_wrapped(spec.code), code_digest=f"delayed-{spec.code_digest}", group=None, schema=None, keywords=False)
    work = Work(
        run=wrapped, batch=batch, execution=new_id(), scratch=slot.scratch, memory_limit=slot.memory_limit(batch), worker=slot.address
    )
    return supervisor().execute(work, stopped=slot.stopped, ticked=lambda _: None)


@functools.lru_cache(maxsize=code_cache.MOST)
def _wrapped(code: bytes) -> bytes:
    """The code of a workload that opens another one, whose result it leaves in a file."""
    return pack(workload(initializer=_start)(_call), {"code": code}).code


def _start(code: bytes) -> tuple[Callable[[Any], Any], Mapping[str, Any]]:
    """In the child: the workload, made ready, and its params."""
    loaded = load(code)
    function = loaded.start()
    return (one_of_group(function) if loaded.group is not None else function), loaded.params


def _call(value: tuple[str, Any], state: tuple[Callable[[Any], Any], Mapping[str, Any]]) -> None:
    """In the child: call, and leave the result where the worker looks for it."""
    path, argument = value
    function, params = state
    context.current().params = params
    Path(path).write_bytes(cloudpickle.dumps(function(argument)))


def _raise(done: Execution, name: str) -> None:
    problem = done.setup_error
    if problem is not None:
        text = f"workload {name!r} cannot be used on this worker: {problem.text}\n{problem.log}".strip()
        if problem.stage == "setup":
            raise InitializerError(text, traceback=problem.traceback)
        if problem.stage in ("scratch", "devices"):
            raise ClusterError(text)
        raise WorkloadError(f"{text}\n{problem.traceback}")
    if done.receipt is None:
        if done.cut_short == "cancelled":
            raise RunCancelled(f"the call of {name!r} was cancelled")
        raise ClusterError(f"the call of {name!r} was not finished: {done.cut_short or 'its child was lost'}")
    for failure in done.receipt.failures:
        message = f"{name!r} failed with {failure.error}: {failure.message}\n{failure.traceback}".rstrip()
        raise ItemError(message, key=name, attempt=1, kind=failure.kind, traceback=failure.traceback)
