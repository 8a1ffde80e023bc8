"""A cluster of this machine, for this program: worker processes, or threads of this one."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from pydantic import Field

from dcompute.clusters.members import Members, started
from dcompute.clusters.profiles import Opened, Profile
from dcompute.clusters.tls import Credentials, as_text, of_nodes
from dcompute.config import Count
from dcompute.connection import hush
from dcompute.errors import SettingsError


class Settings(Profile):
    """``kind: local``."""

    kind: str = "local"
    workers: Count = 1  #: worker processes
    threads: Count | None = None  #: slots of each; the cores that this process may use, shared by them, where None
    memory: str | int = "auto"  #: of each; Dask's share of the machine's
    processes: bool = True  #: False: threads of this process
    scratch: str | None = None  #: folder for what workers leave on disk
    dashboard: str = Field(default="127.0.0.1:0")  #: where Dask's dashboard listens


def open_cluster(profile: Settings) -> Opened:
    """Start it, reachable from this machine only; it ends with this process, however that ends.

    Raises
    ------
    ClusterError
        It did not start.
    """
    if not profile.processes:
        return _in_this_process(profile)
    credentials = of_nodes(profile.tls) if profile.tls is not None else None
    members = Members()
    own = _about_this_process()
    common = {**own, "host": "127.0.0.1", "tls": told(credentials)}
    scheduler = {**common, "role": "scheduler", "dashboard": profile.dashboard}
    workers = {
        **common,
        "role": "worker",
        "count": profile.workers,
        "threads": profile.threads or max(1, _cores() // profile.workers),
        "memory": profile.memory,
        "scratch": profile.scratch,
    }
    address = started(members, ("scheduler", command(), scheduler), [("workers", command(), workers)], timeout=profile.timeout)
    return Opened(address=address, security=credentials.security() if credentials is not None else None, close=members.close)


def command() -> list[str]:
    """What starts a member on this machine."""
    return [sys.executable, "-m", "dcompute.clusters.member"]


def told(credentials: Credentials | None) -> dict[str, Any] | None:
    """Certificates as a member is told them."""
    if credentials is None:
        return None
    text = as_text(credentials)
    return {"ca": text.ca, "node": text.node}


def _about_this_process() -> dict[str, Any]:
    """What workers in processes of their own have from this one, as if they were below it."""
    import dask

    return {"path": [entry for entry in sys.path if entry], "configuration": dask.config.serialize(dask.config.config)}


def _cores() -> int:
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)


def _in_this_process(profile: Settings) -> Opened:
    if profile.tls is not None:
        raise SettingsError("tls: is for worker processes; threads of this process (processes: false) talk to nobody outside of it")
    from distributed import Scheduler, SpecCluster, Worker

    threads = profile.threads or max(1, _cores() // profile.workers)
    web = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    hush.hold()
    try:
        cluster = SpecCluster(
            scheduler={"cls": Scheduler, "options": {"protocol": "inproc://", **web, "dashboard_address": profile.dashboard}},
            workers={
                number: {"cls": Worker, "options": {"protocol": "inproc://", "nthreads": threads, "memory_limit": 0, **web}}
                for number in range(profile.workers)
            },
            name="dcompute-threads",
        )
    except BaseException:
        hush.release()
        raise

    def close() -> None:
        with contextlib.suppress(Exception):
            cluster.close(timeout=3)
        hush.release()

    return Opened(address=cluster.scheduler_address, cluster=cluster, close=close)
