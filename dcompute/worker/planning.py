"""How many workers suit a machine, and with how many threads and bytes. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dcompute.resources import SHARE_OF_MACHINE
from dcompute.worker import declaring
from dcompute.worker.hardware import Machine

#: One worker's supervisor watches so many children with ease.
MOST_THREADS = 32
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Workers for one machine."""

    workers: int
    threads: int  #: of each
    memory: int  #: bytes of each
    declares: dict[str, float]  #: what each of them does, the first one where they differ
    reasons: tuple[str, ...]

    @property
    def command(self) -> str:
        """The line that starts them."""
        size = f"{self.memory // _MIB}MiB"
        return f"dask worker ADDRESS --nworkers {self.workers} --nthreads {self.threads} --memory-limit {size} --preload dcompute.worker"


def plan(machine: Machine) -> Plan:
    """The workers that suit a machine: as few as can be, since items have processes of their own."""
    workers = math.ceil(machine.threads / MOST_THREADS)
    threads = math.ceil(machine.threads / workers)
    memory = int(SHARE_OF_MACHINE * machine.memory / workers) // _MIB * _MIB
    return Plan(
        workers=workers,
        threads=threads,
        memory=memory,
        declares=declaring.found(machine, threads, memory, declaring.devices_of(machine, threads)),
        reasons=tuple(_reasons(machine, workers, threads)),
    )


def _reasons(machine: Machine, workers: int, threads: int) -> list[str]:
    quota = "" if machine.has_own_cores else f", of which a quota lets {machine.cpus:g} be busy at once"
    reasons = [
        f"{threads} threads each: {machine.threads} for the {len(machine.cores)} cores that this process may use{quota}",
        "one worker, as items have processes of their own"
        if workers == 1
        else f"{workers} workers, as one watches up to {MOST_THREADS} items at once with ease",
        f"{SHARE_OF_MACHINE:.0%} of the memory that {'a cgroup allows' if machine.is_limited else 'the machine has'}: the rest is for the "
        "system, the workers themselves and the page cache",
    ]
    if machine.devices:
        reasons.append(f"{len(machine.devices)} devices, each for one item at a time, or for shares such as gpus=0.5")
    return reasons
