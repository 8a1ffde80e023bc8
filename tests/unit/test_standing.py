"""What the end of a window means for who waits: which error, and what it says."""

from __future__ import annotations

import pytest

from dcompute.errors import ClusterError, InitializerError, RunCancelled, TooManyFailures
from dcompute.records import Request
from dcompute.standing import error_of
from dcompute.window import End, WindowConfig
from dcompute.window.limits import too_many


def test_the_end_of_the_work_is_no_error() -> None:
    """Nothing is raised where all is done."""
    assert error_of(End("done"), again="run it again") is None


@pytest.mark.parametrize(
    ("code", "error"),
    [("cancelled", RunCancelled), ("failures", TooManyFailures), ("initializer", InitializerError), ("scratch", ClusterError)],
)
def test_each_end_has_its_error(code: str, error: type[Exception]) -> None:
    """It says why, and where the user's own code is not to blame, how to go on."""
    found = error_of(End(code, "the disk of host a is full"), again="run it again")
    assert type(found) is error
    assert "the disk of host a is full" in str(found)
    assert ("run it again" in str(found)) == (code != "initializer")


def test_a_full_scratch_folder_is_not_called_a_set_up() -> None:
    """The workload is not at fault."""
    assert "set-up" not in str(error_of(End("scratch", "full"), again="go on"))


@pytest.mark.parametrize(("failed", "text"), [(0, ""), (1, "1 item failed, more than max_failures=0"), (2, "2 items failed, more than")])
def test_too_many_failures_are_counted_in_words(failed: int, text: str) -> None:
    """One item is one item."""
    said = too_many(WindowConfig(request=Request(), max_failures=0), failed, failed)
    assert said.startswith(text)
    assert bool(said) == bool(text)
