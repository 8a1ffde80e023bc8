"""What the tests on a real Slurm share: one of two nodes for each file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm import controller
from tests.slurm.controller import Slurm


@pytest.fixture(scope="module")
def started() -> Iterator[Slurm]:
    """A Slurm for a file of tests."""
    with controller.running() as slurm:
        yield slurm


@pytest.fixture
def slurm(started: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """That Slurm, as its commands find it."""
    monkeypatch.setenv("SLURM_CONF", str(started.conf))
    return started
