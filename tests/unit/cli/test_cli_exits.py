"""Every error and every end of a run has its exit code."""

from __future__ import annotations

import inspect

import pytest

from dcompute import errors
from dcompute.cli import exits
from dcompute.cli.exits import Exit
from dcompute.summary import Summary

ALL = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.DcomputeError)]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ItemError, 1),
        (errors.TooManyFailures, 1),
        (errors.ReportError, 1),
        (errors.ReportOvertaken, 1),
        (errors.UsageError, 2),
        (errors.SettingsError, 2),
        (errors.InitializerError, 2),
        (errors.DuplicateKeyError, 2),
        (errors.ResourceError, 2),
        (errors.DatasetNotFoundError, 2),
        (errors.DatasetMismatchError, 2),
        (errors.ChangedError, 2),
        (errors.ClusterError, 3),
        (errors.StoreError, 3),
        (errors.DatasetBusy, 3),
        (errors.DatasetTakenOver, 3),
        (errors.DatasetCorruptError, 3),
        (errors.InternalError, 3),
        (errors.RunCancelled, 130),
        (KeyboardInterrupt, 130),
        (ZeroDivisionError, 3),
    ],
)
def test_an_error_has_its_code(error, code):
    """As the help says."""
    assert exits.of_error(error()) == code


@pytest.mark.parametrize("error", ALL)
def test_no_error_is_taken_for_success(error):
    """Whatever is raised, a script that checks the exit code sees it."""
    assert exits.of_error(error()) in set(Exit) - {Exit.OK}


def summary(**fields: object) -> Summary:
    """The summary of a run that finished."""
    return Summary(**{"run": "r", "dataset": "/d", "workload": "w", "state": "finished", **fields})


class TestSummary:
    def test_all_succeeded(self):
        """Now or before."""
        assert exits.of_summary(summary(succeeded=3, skipped=4)) is Exit.OK
        assert exits.of_summary(summary()) is Exit.OK

    def test_failures_of_now_and_before_count(self):
        """An item that failed last week has still not succeeded."""
        assert exits.of_summary(summary(failed=1)) is Exit.FAILED_ITEMS
        assert exits.of_summary(summary(skipped_failed={"timeout": 1})) is Exit.FAILED_ITEMS

    def test_failures_can_be_ignored_and_what_is_left_cannot(self):
        """``--ignore-failures`` is about failed items, not about a run that ended early."""
        assert exits.of_summary(summary(failed=1), ignore_failures=True) is Exit.OK
        assert exits.of_summary(summary(left=1, state="failed"), ignore_failures=True) is Exit.FAILED_ITEMS

    def test_a_cancelled_run_was_interrupted(self):
        """Whoever cancelled it."""
        assert exits.of_summary(summary(state="cancelled", left=9), ignore_failures=True) is Exit.INTERRUPTED


def test_the_help_names_every_code():
    """The text and the table cannot drift apart."""
    for code in Exit:
        assert f"\n  {code.value} " in exits.HELP
