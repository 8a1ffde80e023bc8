"""What a run says of itself at its end."""

from __future__ import annotations

from typing import Any

import pytest

from dcompute.summary import Summary, counted


def summary(**changes: Any) -> Summary:
    return Summary(**{"run": "r", "dataset": "/d", "workload": "flux", "state": "finished", **changes})


def test_nothing_to_do_is_up_to_date() -> None:
    """Not a rate of nothing in no time."""
    assert str(summary(skipped=1200, seconds=0.5)) == "flux -> /d: up to date, 1,200 items done before"


def test_figures_of_a_run() -> None:
    """What succeeded, its rows, and how fast."""
    text = str(summary(succeeded=8, failed=2, failed_by_kind={"timeout": 2}, rows=80, seconds=5.0, skipped=3))
    assert "8 succeeded, 80 rows, 3 done before, in 5.0 s (2.0 items/s)" in text
    assert "2 failed: 2 timeout" in text


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("skipped_failed", {"crash": 4}, "retry_failed=True"),
        ("kept_changed", 7, 'version="code"'),
        ("unsettled", 4, "4 inputs changed a moment ago and are left for the next run"),
        ("dropped", 5, "5 items are no inputs any more and were dropped"),
        ("doubled", 5, "counted once"),
        ("left", 9, "the same line again goes on"),
        ("adopted", 2, "adopted"),
        ("redone", 3, "done again"),
        ("requests", 120, "120 requests to storage"),
    ],
)
def test_what_needs_a_word_has_its_line(field: str, value: Any, told: str) -> None:
    """Each says what to do where there is something to do."""
    assert told in str(summary(succeeded=1, seconds=1.0, **{field: value}))


def test_one_is_one() -> None:
    """Words agree with their numbers."""
    ones = dict.fromkeys(("kept_changed", "unsettled", "dropped", "doubled", "left", "adopted", "redone", "rows", "succeeded"), 1)
    text = str(summary(state="cancelled", skipped_failed={"crash": 1}, kept={"seed": 1}, seconds=1.0, **ones))
    for words in (
        "1 row,",
        "1 failed before and stays so: 1 crash; retry_failed=True runs it again",
        "1 finished item was made by an older form of the function and is kept; redo it",
        "1 finished item is kept although its seed changed",
        "1 was done again because its input",
        "1 input changed a moment ago and is left",
        "1 item is no input any more and was dropped",
        "1 input was given more than once",
        "1 batch of an earlier run was",
        "1 item is left",
    ):
        assert words in text
    assert str(summary(skipped=1)).endswith("up to date, 1 item done before")
    assert [counted(number, "item") for number in (0, 1, 1200)] == ["0 items", "1 item", "1,200 items"]
    assert counted(2, "batch", "batches") == "2 batches"


def test_no_inputs_is_said_with_what_to_look_at() -> None:
    """A pattern that matches nothing is a mistake more often than not."""
    assert str(summary(why_none="no file matches raw/*.cvs")) == "flux -> /d: there were no inputs: no file matches raw/*.cvs"
    assert str(summary()).endswith("there were no inputs")


def test_all_succeeded_means_now_and_before() -> None:
    """What failed before and stays, or is left, is no success."""
    assert summary(succeeded=3).all_succeeded
    assert not summary(succeeded=3, failed=1).all_succeeded
    assert not summary(skipped_failed={"crash": 1}).all_succeeded
    assert not summary(succeeded=3, state="cancelled").all_succeeded
