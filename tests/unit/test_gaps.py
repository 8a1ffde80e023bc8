"""How long a class waits for a worker that is not there."""

from __future__ import annotations

import pytest

from dcompute.errors import ResourceError
from dcompute.gaps import Gaps
from dcompute.records import Request

GPU, PLAIN = Request(gpus=2), Request()
WHY = "needs GPU=2; the largest worker has GPU=1"


def gap(request: Request) -> str:
    return WHY if request.gpus else ""


def test_without_patience_the_start_is_refused_and_a_run_at_work_waits() -> None:
    """A worker that left may come again: it is said for what is waited, without end."""
    gaps = Gaps(None, "run it again")
    with pytest.raises(ResourceError, match="needs GPU=2"):
        gaps.must_wait(GPU, WHY, 0.0)
    assert gaps.note({GPU: 1, PLAIN: 3}, gap, 0.0) == f"waiting for a worker: {WHY}"
    assert gaps.note({GPU: 1}, gap, 1e6) != ""
    assert gaps.note({GPU: 0, PLAIN: 3}, gap, 1e6) == ""


def test_a_bounded_wait_ends_with_what_was_waited_for() -> None:
    """The time begins anew when a worker was there in between."""
    gaps = Gaps(60.0, "run it again")
    assert "(1 min 00 s left)" in gaps.must_wait(GPU, WHY, 0.0)
    assert "(10 s left)" in gaps.must_wait(GPU, WHY, 50.0)
    assert gaps.note({GPU: 1}, lambda _: "", 55.0) == ""
    assert "(1 min 00 s left)" in gaps.note({GPU: 1}, gap, 59.0)
    with pytest.raises(ResourceError, match=r"needs GPU=2.*waited 1 min 00 s for such a worker; run it again"):
        gaps.note({GPU: 1}, gap, 119.0)
