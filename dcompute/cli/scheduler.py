"""The scheduler that a command is to use: its address, or the file that ``dask scheduler --scheduler-file`` writes."""

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


@contextlib.contextmanager
def connected(scheduler: str | None) -> Iterator[Any]:
    """A client while it lasts, the current one of Dask; None where no scheduler is named.

    Raises
    ------
    ClusterError
        Nobody answers there.
    """
    address = address_of(scheduler)
    if address is None:
        yield None
        return
    from dcompute.connection import open_client

    with open_client(address) as client, client.as_current():
        yield client
