"""``dask worker --preload dcompute.worker``: a worker finds out what it has, and says so before it registers.

Dask's preloads run before a worker registers, so that tasks which wait for a resource are sent to it. What its operator said with
``--resources`` stays, name by name. What goes wrong here is told in the worker's log, and the worker comes without it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from dataclasses import asdict, dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from dcompute.config import settings
from dcompute.errors import ClusterError
from dcompute.resources import CPU, DISK, GPU, MEMORY, format_bytes
from dcompute.worker import declaring, hardware, walltime
from dcompute.worker.device import Device
from dcompute.worker.hardware import Machine
from dcompute.worker.holdings import Holdings, holdings

logger = logging.getLogger("dcompute.worker")

#: Name under which a worker tells the scheduler what Dask has no place for.
INFORMATION = "dcompute"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a worker says of itself."""

    resources: dict[str, float]
    devices: tuple[Device, ...] = ()
    cores: tuple[int, ...] = ()  #: its own; none where its items use any
    labels: dict[str, str]
    until: float | None = None

    def information(self) -> dict[str, Any]:
        """What travels to the scheduler: built-in types only."""
        devices = [asdict(device) for device in self.devices]
        return {"labels": self.labels, "until": self.until, "devices": devices, "cores": list(self.cores)}


_mine: WeakKeyDictionary[Any, tuple[Holdings, Declared]] = WeakKeyDictionary()


async def set_up(worker: Any) -> None:
    """Find out what a Dask worker has, and let it say so when it registers."""
    if not hasattr(worker, "state") or not hasattr(worker.state, "total_resources"):
        logger.warning("dcompute.worker is a preload of workers: %s does not need it", type(worker).__name__)
        return
    words, warnings = declaring.given(worker.state.total_resources)
    for warning in warnings:
        logger.warning("%s", warning, extra={"action": "resources_renamed"})
    held = holdings()
    # a driver that is slow, or a batch system, must not keep the worker's loop
    declared = await asyncio.to_thread(declare, worker, words, held)
    for resources in (worker.state.total_resources, worker.state.available_resources):
        resources.update({name: amount for name, amount in declared.resources.items() if name not in resources})
    worker.startup_information[INFORMATION] = lambda _: declared.information()
    _mine[worker] = held, declared
    logger.info("this worker declares %s", shown(declared.resources), extra={"action": "declared"})


async def tear_down(worker: Any) -> None:
    """Leave to others what a worker that closes has claimed."""
    held, declared = _mine.pop(worker, (None, None))
    if held is not None and declared is not None:
        held.release(declared.devices, declared.cores)


def declare(worker: Any, words: dict[str, float], held: Holdings) -> Declared:
    """What a worker declares beside its operator's words; claims its devices and cores."""
    chosen = settings().worker
    machine = hardware.read(chosen.scratch or worker.local_directory, held.visible())
    nthreads = worker.state.nthreads
    devices, cores = _claimed(held, machine, words, nthreads)
    if len(devices) < words.get(GPU, 0):
        text = "this worker was told GPU=%g, and %d devices are free here"
        logger.warning(text, words[GPU], len(devices), extra={"action": "devices_few"})
    found = declaring.found(machine, nthreads, worker.memory_manager.memory_limit, len(devices))
    return Declared(
        resources={**found, **words},
        devices=devices,
        cores=cores,
        labels={**labels(replace(machine, devices=devices)), **chosen.labels},
        until=walltime.end(os.environ, started=_started(worker), walltime=chosen.walltime, lifetime=worker.lifetime),
    )


def _claimed(held: Holdings, machine: Machine, words: dict[str, float], nthreads: int) -> tuple[tuple[Device, ...], tuple[int, ...]]:
    """The devices and the cores that this worker has for itself; none where nothing can be claimed, which harms nothing else."""
    told = words.get(GPU, 0.0)
    wanted = int(told) if GPU in words and 0 <= told < math.inf else declaring.devices_of(machine, nthreads)
    try:
        devices = tuple(held.claim_devices(wanted))
        if settings().worker.affinity == "auto" and machine.has_own_cores:
            return devices, held.claim_cores(min(nthreads, len(machine.cores)), machine.cores)
    except ClusterError as error:
        logger.warning("this worker declares no devices and has no cores of its own: %s", error, extra={"action": "claims_failed"})
        return (), ()
    return devices, ()


def labels(machine: Machine) -> dict[str, str]:
    """What a machine says of itself."""
    names = sorted({device.name for device in machine.devices if device.name})
    found = {"host": machine.host, "cpu": machine.cpu_model, "gpu": ", ".join(names)}
    return {name: text for name, text in found.items() if text}


def shown(resources: dict[str, float]) -> str:
    """Resources for a person."""
    order = [name for name in (CPU, MEMORY, GPU, DISK) if name in resources] + sorted(resources.keys() - set(declaring.NAMES))
    return " ".join(f"{name}={format_bytes(resources[name]) if name in (MEMORY, DISK) else f'{resources[name]:g}'}" for name in order)


def _started(worker: Any) -> float:
    """When the first process of a worker started: a nanny lives on where the worker is started again."""
    import psutil

    return float(psutil.Process(os.getppid() if worker.nanny else os.getpid()).create_time())
