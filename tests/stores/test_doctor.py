"""The doctor at storages: one that honours conditional writes, and those that ignore them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import dask
import pytest

from dcompute.dataset.store import Store
from dcompute.doctor.examining import examine
from tests import servers
from tests.servers import Server

Start = Callable[[Path], contextlib.AbstractContextManager[Server]]


@pytest.mark.parametrize("start", [servers.rclone, servers.s3rver], ids=["rclone", "s3rver"])
def test_a_storage_that_ignores_conditional_writes_is_named(start: Start, scratch: Path) -> None:
    """Before a run puts anything there; no worker is sent to it."""
    with start(scratch) as server, dask.config.set({"dcompute.storage": {f"{server.url}/": server.options}}):
        found = [finding for finding in examine(None, f"{server.url}/data", seconds=20) if finding.check == "storage"]
    assert [(finding.status, finding.where) for finding in found] == [("failure", "here")]
    assert "takes exclusive creation and ignores it" in found[0].text


def test_a_storage_that_will_do_is_tried_from_workers_too(scratch: Path) -> None:
    """And nothing is left there."""
    with servers.moto(scratch) as server, dask.config.set({"dcompute.storage": {f"{server.url}/": server.options}}):
        found = [finding for finding in examine(None, f"{server.url}/data", seconds=30) if finding.check == "storage"]
        assert [finding.status for finding in found] == ["ok", "ok"]
        assert Store.at(f"{server.url}/data").names("") == []
