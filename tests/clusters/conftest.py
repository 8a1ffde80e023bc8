"""What tests of clusters share: fake devices, which no machine needs to have, and a folder of claims that is the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

DEVICES = ("a", "b")
WEB = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}


@contextmanager
def fake_devices(folder: Path) -> Iterator[Path]:
    """A machine with two devices, for this process and all that it starts; the folder of the memory that is used of them."""
    import dask

    used = folder / "used"
    used.mkdir(parents=True)
    settings: dict[str, Any] = {"devices": ["dcompute.testing:FakeDevices"], "claims": str(folder / "claims"), "device-memory": 100}
    variables = {f"DASK_DCOMPUTE__WORKER__{name.upper().replace('-', '_')}": str(value) for name, value in settings.items()}
    with pytest.MonkeyPatch.context() as patch, dask.config.set({f"dcompute.worker.{name}": value for name, value in settings.items()}):
        for name, value in {"FAKE_DEVICES": ",".join(DEVICES), "FAKE_DEVICES_USED": str(used), **variables}.items():
            patch.setenv(name, value)
        yield used


@pytest.fixture(autouse=True)
def machine(tmp_path: Path) -> Iterator[Path]:
    """One such machine a test."""
    with fake_devices(tmp_path / "machine") as used:
        yield used


@contextmanager
def in_process(*workers: dict[str, Any]) -> Iterator[Any]:
    """A client of a cluster with these workers, each with the preload, in this process."""
    from distributed import Client, Scheduler, SpecCluster, Worker

    def options(given: dict[str, Any]) -> dict[str, Any]:
        usual = {"protocol": "inproc://", "nthreads": 1, "memory_limit": 1 << 30, "preload": ["dcompute.worker"]}
        return {"cls": Worker, "options": {**usual, **WEB, **given}}

    scheduler = {"cls": Scheduler, "options": {"protocol": "inproc://", **WEB}}
    spec = dict(enumerate(map(options, workers)))
    with SpecCluster(scheduler=scheduler, workers=spec) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


def information(client: Any) -> dict[str, dict[str, Any]]:
    """What the scheduler knows of each worker, by address."""
    return dict(client.scheduler_info(n_workers=-1)["workers"])
