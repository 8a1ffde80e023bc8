"""The schedulers that we start, and who may not work beside them."""

from __future__ import annotations

import contextlib
import logging
import resource
from collections.abc import AsyncIterator
from typing import Any

from dcompute.dashboard import add_where_possible

log = logging.getLogger("dcompute.clusters")

#: What holds of them: tasks without workers wait, as dcompute says how long, and a scheduler without tasks stays.
CONFIGURATION = {"distributed.scheduler.no-workers-timeout": None, "distributed.scheduler.idle-timeout": None}
#: Seconds after which a worker on the scheduler's host is sent away: it hears first that it has been registered.
_AWAY_SECONDS = 0.5


@contextlib.asynccontextmanager
async def scheduler(
    *, host: str, port: int, security: Any, dashboard: str, beside: bool = True, encrypted: bool = False
) -> AsyncIterator[Any]:
    """A scheduler of this process, while the block lasts.

    Parameters
    ----------
    host, port
        Where it listens.
    security
        Certificates; None: none.
    dashboard
        Where its web pages are.
    beside
        Whether workers may be on its host.
    encrypted
        Whether certificates are those of Dask's own configuration.
    """
    import dask
    from distributed import Scheduler

    raise_open_files()
    with dask.config.set(CONFIGURATION):
        async with Scheduler(
            host=host,
            port=port,
            protocol="tls://" if encrypted or security is not None else "tcp://",
            security=security,
            dashboard_address=dashboard,
        ) as started:
            await add_where_possible(started)
            if not beside:
                started.add_plugin(_keeper())
            yield started


def raise_open_files() -> None:
    """Let this process have as many open files as it may: a scheduler has one for each worker and client, and one more for each message."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 1 << 20)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted // 2), hard))


def own_addresses() -> frozenset[str]:
    """The addresses of this host."""
    import psutil

    return frozenset(entry.address.partition("%")[0] for entries in psutil.net_if_addrs().values() for entry in entries)


def _keeper() -> Any:
    from distributed.comm import get_address_host
    from distributed.diagnostics.plugin import SchedulerPlugin

    class KeepApart(SchedulerPlugin):  # type: ignore[misc]
        """Sends workers away that are on the scheduler's host."""

        name = "dcompute-keep-apart"

        def add_worker(self, scheduler: Any, worker: str) -> None:
            if get_address_host(worker) in own_addresses():
                log.warning("worker %s is on the scheduler's host, and is sent away: see --scheduler-as-worker", worker)
                scheduler.loop.call_later(_AWAY_SECONDS, self._send_away, scheduler, worker)

        def _send_away(self, scheduler: Any, worker: str) -> None:
            if worker in scheduler.workers:
                scheduler.loop.add_callback(scheduler.remove_worker, worker, close=True, stimulus_id="dcompute-keep-apart")

    return KeepApart()
