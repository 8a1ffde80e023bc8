"""What a worker decides about the work that it was given."""

from __future__ import annotations

import pytest

from dcompute.worker.work import finish_seconds


@pytest.mark.parametrize(("timeout", "count", "seconds"), [(None, 5, 600.0), (3.0, 5, 60.0), (3.0, 100, 300.0), (3.0, 1000, 600.0)])
def test_checks_that_hang_hold_a_worker_no_longer_than_their_items_might(timeout: float | None, count: int, seconds: float) -> None:
    """At least a minute, at most ten; bytes that have to be read get time of their own."""
    assert finish_seconds(timeout, count, 0) == seconds
    assert finish_seconds(timeout, count, 200_000_000) == seconds + 10
