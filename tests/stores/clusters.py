"""Workers in processes of their own that reach a storage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import dask

from tests.servers import Server


@contextlib.contextmanager
def workers(server: Server, processes: int = 2, threads: int = 1) -> Iterator[object]:
    """Worker processes that know from their settings how to reach a server, and a client."""
    from distributed import Client, LocalCluster

    with (
        dask.config.set({"dcompute.storage": {f"{server.url}/": server.options}}),
        LocalCluster(n_workers=processes, threads_per_worker=threads, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
