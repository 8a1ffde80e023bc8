"""What a worker declares: its part of the machine, beside what its operator said. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dcompute.resources import CPU, DISK, GPU, MEMORY, SHARE_OF_MACHINE
from dcompute.worker.hardware import Machine

NAMES = (CPU, MEMORY, GPU, DISK)


def part(machine: Machine, nthreads: int) -> float:
    """Which part of the machine a worker with so many threads has, as Dask counts it for memory: its threads of all."""
    return min(1.0, nthreads / machine.threads)


def devices_of(machine: Machine, nthreads: int) -> int:
    """How many devices a worker takes of those that it sees: its part, rounded up: of small workers the first ones have one each."""
    return math.ceil(len(machine.devices) * part(machine, nthreads) - 1e-9)


def found(machine: Machine, nthreads: int, memory_limit: int | None, devices: int) -> dict[str, float]:
    """What a worker declares where its operator said nothing.

    Parameters
    ----------
    nthreads
        Of the worker.
    memory_limit
        Its limit in bytes; None or 0: its part of 80 % of the machine's.
    devices
        How many it has claimed.
    """
    share = part(machine, nthreads)
    declared = {
        CPU: min(float(nthreads), machine.cpus),
        MEMORY: float(memory_limit or int(SHARE_OF_MACHINE * machine.memory * share)),
        DISK: float(int(machine.disk * share)),
    }
    return declared | ({GPU: float(devices)} if devices else {})


def given(resources: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
    """What the operator said of our names, and what is to be said about it: an environment variable makes names lower-case."""
    words: dict[str, float] = {}
    warnings: list[str] = []
    for name, amount in resources.items():
        if name not in NAMES and name.upper() in NAMES and name.upper() not in resources:
            warnings.append(
                f"this worker was told {name}={amount:g}, which is taken as {name.upper()}: names are compared letter by letter, and "
                f'environment variables make them lower-case. Say --resources "{name.upper()}={amount:g}", or use a file'
            )
            words[name.upper()] = amount
        elif name in NAMES:
            words[name] = amount
    return words, warnings
