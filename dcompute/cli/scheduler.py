"""The scheduler that a command is to use: its address, the file that it wrote (``--scheduler-file``), or a cluster of the settings."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click


def address_of(scheduler: str | None) -> str | None:
    """The address, read from the scheduler's file where it is one."""
    if scheduler is None or "://" in scheduler or not Path(scheduler).is_file():
        return scheduler
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(Path(scheduler).read_text(encoding="utf-8"))["address"])
    raise click.BadParameter(f"{scheduler} is no scheduler file", param_hint="--scheduler")


def client_of(scheduler: str | None) -> Any:
    """As ``client=`` takes it: an address, or the cluster of a profile, which ends with the command."""
    return click.get_current_context().with_resource(_cluster(scheduler)) if _is_profile(scheduler) else address_of(scheduler)


@contextlib.contextmanager
def connected(scheduler: str | None) -> Iterator[Any]:
    """A client while it lasts, the current one of Dask; None where no scheduler is named.

    Raises
    ------
    ClusterError
        Nobody answers there.
    """
    if _is_profile(scheduler):
        with _cluster(scheduler) as cluster:
            yield cluster.client
        return
    address = address_of(scheduler)
    if address is None:
        yield None
        return
    from dcompute.connection import open_client

    with open_client(address) as client, client.as_current():
        yield client


def _is_profile(scheduler: str | None) -> bool:
    if scheduler is None or "://" in scheduler:
        return False
    from dcompute.clusters.profiles import names

    return scheduler in names()


def _cluster(name: str | None) -> Any:
    from dcompute.clusters import cluster

    return cluster(name)
