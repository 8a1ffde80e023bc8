"""Exit codes of the command line: all of them, in one place."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from dcompute import errors

if TYPE_CHECKING:
    from dcompute.summary import Summary


class Exit(enum.IntEnum):
    """What a command's exit code says."""

    OK = 0  #: all items succeeded, or the question was answered
    FAILED_ITEMS = 1  #: some items failed, or a report
    BAD_USE = 2  #: the command cannot work as it was given
    BROKEN = 3  #: cluster or storage failed
    INTERRUPTED = 130  #: by Ctrl-C, SIGTERM or ``dcompute cancel``, or a question was answered with no


#: For each error the most special class of its own that is named here decides.
_BY_ERROR: dict[type[BaseException], Exit] = {
    KeyboardInterrupt: Exit.INTERRUPTED,
    errors.RunCancelled: Exit.INTERRUPTED,
    errors.ItemError: Exit.FAILED_ITEMS,
    errors.TooManyFailures: Exit.FAILED_ITEMS,
    errors.ReportError: Exit.FAILED_ITEMS,
    errors.UsageError: Exit.BAD_USE,
    errors.SettingsError: Exit.BAD_USE,
    errors.WorkloadError: Exit.BAD_USE,
    errors.InputError: Exit.BAD_USE,
    errors.ResourceError: Exit.BAD_USE,
    errors.SchemaError: Exit.BAD_USE,
    errors.MissingExtraError: Exit.BAD_USE,
    errors.DatasetNotFoundError: Exit.BAD_USE,
    errors.DatasetMismatchError: Exit.BAD_USE,
    errors.ChangedError: Exit.BAD_USE,
    errors.ClusterError: Exit.BROKEN,
    errors.StoreError: Exit.BROKEN,
    errors.DatasetError: Exit.BROKEN,  # busy, taken over, corrupt
}

#: The table as the help of the commands shows it.
HELP = """\b
Exit codes:
  0    all items succeeded (or --ignore-failures)
  1    some items failed, or a report
  2    bad use: the command cannot work as it was given
  3    cluster or storage failed
  130  interrupted: Ctrl-C, SIGTERM or `dcompute cancel`
"""


def of_error(error: BaseException) -> Exit:
    """The exit code for an error; one that nobody expected is ours, and no item's."""
    return next((_BY_ERROR[cls] for cls in type(error).__mro__ if cls in _BY_ERROR), Exit.BROKEN)


def of_summary(summary: Summary, *, ignore_failures: bool = False) -> Exit:
    """The exit code for a run that ended by itself."""
    if summary.state == "cancelled":
        return Exit.INTERRUPTED
    if summary.all_succeeded or (ignore_failures and not summary.left):
        return Exit.OK
    return Exit.FAILED_ITEMS
