"""What this machine has, as far as this process may use it."""

from __future__ import annotations

import math
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dcompute.worker import system
from dcompute.worker.device import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine, as one process may use it."""

    host: str
    cpu_model: str = ""
    cores: tuple[int, ...]  #: numbers of those it may use
    quota: float | None = None  #: cores that its cgroups allow; None: as many as there are
    memory: int  #: bytes that machine and cgroups allow
    is_limited: bool = False  #: whether that is a limit of a cgroup
    disk: int = 0  #: free bytes where items leave what they scratch
    devices: tuple[Device, ...] = ()

    @property
    def cpus(self) -> float:
        """Cores that may be busy at once; a part of one counts as one, since a task is there or not."""
        most = float(len(self.cores))
        return most if self.quota is None else max(1.0, min(most, round(self.quota, 2)))

    @property
    def threads(self) -> int:
        """How many threads Dask gives a worker here when nobody says."""
        return math.ceil(self.cpus)

    @property
    def has_own_cores(self) -> bool:
        """Whether its cores are its own: where a quota is smaller than what may be used, others use them too."""
        return self.quota is None or self.quota >= len(self.cores)


def read(folder: str, devices: Sequence[Device]) -> Machine:
    """This machine.

    Parameters
    ----------
    folder
        On whose file system items leave what they scratch.
    devices
        That this process may use.
    """
    limit, there = system.cgroup_memory_limit(), system.machine_memory()
    return Machine(
        host=socket.gethostname(),
        cpu_model=system.cpu_model(),
        cores=system.own_cores(),
        quota=system.cpu_quota(),
        memory=min(there, limit or there),
        is_limited=limit is not None and limit < there,
        disk=shutil.disk_usage(_existing(Path(folder))).free,
        devices=tuple(devices),
    )


def _existing(folder: Path) -> Path:
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())
