"""A scheduler that cannot have the page /dcompute goes on without it."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
from distributed import Client, Scheduler, SpecCluster, Worker

from dcompute.dashboard import show
from dcompute.errors import ClusterError

WEB = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
INSIDE = {"protocol": "inproc://", **WEB}


def cluster(**scheduler: Any) -> SpecCluster:
    """A scheduler with one worker, threads of this process."""
    worker = {"cls": Worker, "options": {**INSIDE, "nthreads": 1, "memory_limit": 0}}
    return SpecCluster(scheduler={"cls": Scheduler, "options": {**INSIDE, **scheduler}}, workers={0: worker})


def test_what_a_version_of_dask_lacks_costs_the_page_only(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where a part of the page cannot be imported, the preload warns, and the scheduler starts and works."""
    monkeypatch.setitem(sys.modules, "dcompute.dashboard.page", None)
    caplog.set_level(logging.WARNING, "dcompute.dashboard")
    with cluster(preload=["dcompute.dashboard"]) as started, Client(started, set_as_default=False) as client:
        assert client.submit(sum, [1, 2]).result(20) == 3
    assert "no page /dcompute on the dashboard (ModuleNotFoundError" in caplog.text


def test_who_asks_for_the_page_hears_that_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """``show`` says why, each time that it is asked, and the scheduler works on."""
    monkeypatch.setitem(sys.modules, "dcompute.dashboard.page", None)
    with cluster() as started, Client(started, set_as_default=False) as client:
        for _ in range(2):
            with pytest.raises(ClusterError, match="the scheduler adds no page /dcompute"):
                show(client)
        assert client.submit(sum, [1, 2]).result(20) == 3
