"""``dcompute doctor``: what its arguments mean."""

from __future__ import annotations

import dask
import pytest

from dcompute.cli.doctor import failed, names_cluster
from dcompute.doctor.findings import Finding


@pytest.mark.parametrize("text", ["tls://head:8786", "head:8786", "tcp://127.0.0.1:1", "lab"])
def test_a_single_argument_that_is_a_cluster(text: str) -> None:
    """An address, or a name of the settings."""
    with dask.config.set({"dcompute.clusters": {"lab": {"kind": "local"}}}):
        assert names_cluster(text)


@pytest.mark.parametrize("text", ["out/flux", "s3://lab/flux", "/data/x", "lab2"])
def test_a_single_argument_that_is_a_dataset(text: str) -> None:
    """All else."""
    assert not names_cluster(text)


def test_warnings_are_no_failures() -> None:
    """The exit code is for what will not work."""
    assert not failed([Finding("ok", "a", "b", "c"), Finding("warning", "a", "b", "c")])
    assert failed([Finding("failure", "a", "b", "c")])
