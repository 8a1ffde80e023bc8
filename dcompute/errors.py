"""Every error that dcompute raises, in one tree: whose fault it is, and what to do about it.

::

    DcomputeError
    ├── UsageError (RuntimeError)            you called something at the wrong moment, or in the wrong way
    ├── SettingsError (ValueError)           a setting under ``dcompute`` has a wrong name or value
    ├── WorkloadError (TypeError)            the workload: cannot be described, imported or unpickled
    │   └── InitializerError                 its set-up failed three times in a row
    ├── InputError (ValueError)              the inputs
    │   ├── KeyDerivationError               no stable key can be derived from a value
    │   ├── DuplicateKeyError                one key with two different values
    │   └── ValueTooLargeError               a value over 1 MB: pass a path
    ├── ResourceError (ValueError)           no worker offers what the workload asks for
    ├── ClusterError (RuntimeError)          the cluster was lost, or cannot do the work
    ├── StoreError (OSError)                 the storage below a dataset failed or cannot be trusted
    ├── DatasetError                         the dataset
    │   ├── DatasetNotFoundError (FileNotFoundError)
    │   ├── DatasetMismatchError             it belongs to another workload
    │   ├── DatasetBusy                      another driver is alive
    │   ├── DatasetTakenOver                 another driver fenced this one off
    │   ├── DatasetCorruptError              a file of it cannot be read as what it should be
    │   └── ChangedError                     inputs, params or version changed and on_change="error"
    ├── SchemaError (TypeError)              two column types that cannot meet, or a reserved column
    ├── CheckFailed (ValueError)             a row or an input does not pass a check: how its item failed
    ├── CheckError (RuntimeError)            a check raised, or did not say of each row whether it passes: how the item failed
    ├── ProgramError (RuntimeError)          an external program ended badly, or not at all: how its item failed
    ├── ItemError                            an item failed at last and errors="raise"
    ├── TooManyFailures                      max_failures was reached
    ├── RunCancelled                         the run was cancelled
    ├── ReportError                          a report: its function failed, or its result breaks what it promises
    │   └── ReportOvertaken                  somebody else published its next version first
    ├── MissingExtraError (ImportError)      an optional part is not installed
    └── InternalError                        a bug in dcompute: please report it

Every class survives pickling with its attributes, carries its docstring as the default message, and keeps foreign errors in ``__cause__``.
"""

from __future__ import annotations


class DcomputeError(Exception):
    """Something in dcompute failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())

    @property
    def message(self) -> str:
        """The message alone, without attributes."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(cls: type[DcomputeError], args: tuple[object, ...], state: dict[str, object]) -> DcomputeError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(DcomputeError, RuntimeError):
    """Something was called in the wrong way or at the wrong moment."""


class SettingsError(DcomputeError, ValueError):
    """A setting under ``dcompute`` has a wrong name or value."""


class WorkloadError(DcomputeError, TypeError):
    """The workload cannot be described, imported or unpickled."""


class InitializerError(WorkloadError):
    """The set-up of the workload failed three times in a row."""

    def __init__(self, message: str | None = None, *, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class InputError(DcomputeError, ValueError):
    """The inputs cannot be used as they are."""


class KeyDerivationError(InputError):
    """No stable key can be derived from a value: pass ``key=``, a function or a column."""


class DuplicateKeyError(InputError):
    """One key stands for two different values."""

    def __init__(self, message: str | None = None, *, key: str = "", positions: tuple[int | None, int | None] = (None, None)) -> None:
        super().__init__(message)
        self.key = key
        self.positions = positions


class ValueTooLargeError(InputError):
    """A value is over 1 MB: pass a path and read it in the workload."""


class ResourceError(DcomputeError, ValueError):
    """No worker offers what the workload asks for."""


class ClusterError(DcomputeError, RuntimeError):
    """The cluster was lost, or cannot do the work."""


class StoreError(DcomputeError, OSError):
    """The storage below the dataset failed, or cannot be trusted with a commit."""


class DatasetError(DcomputeError):
    """The dataset cannot be used."""


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """There is no dataset at this place."""


class DatasetMismatchError(DatasetError):
    """The dataset belongs to another workload."""


class DatasetBusy(DatasetError):  # noqa: N818  the field's own word, as in the contract
    """Another driver that is alive writes to this dataset."""

    def __init__(self, message: str | None = None, *, host: str = "", pid: int = 0, since: float = 0.0, run: str = "") -> None:
        super().__init__(message)
        self.host = host
        self.pid = pid
        self.since = since
        self.run = run


class DatasetTakenOver(DatasetError):  # noqa: N818
    """Another driver took this dataset over: this one writes no more."""


class DatasetCorruptError(DatasetError):
    """A file of the dataset cannot be read as what it should be."""


class ChangedError(DatasetError):
    """Inputs, params or the version changed since items were finished, and ``on_change="error"``."""


class SchemaError(DcomputeError, TypeError):
    """Two column types cannot meet, or a column has a reserved name."""

    def __init__(self, message: str | None = None, *, column: str = "", types: tuple[str, str] = ("", ""), value: str = "") -> None:
        super().__init__(message)
        self.column = column
        self.types = types
        self.value = value


class CheckFailed(DcomputeError, ValueError):  # noqa: N818  beside CheckError: here the row is at fault, there the check
    """A row or an input does not pass a check."""

    def __init__(self, message: str | None = None, *, check: str = "") -> None:
        super().__init__(message)
        self.check = check


class CheckError(DcomputeError, RuntimeError):
    """A check raised, or did not say of each row whether it passes."""

    def __init__(self, message: str | None = None, *, check: str = "") -> None:
        super().__init__(message)
        self.check = check


class ProgramError(DcomputeError, RuntimeError):
    """An external program ended badly, could not be started, or did not write what it was to write."""

    def __init__(
        self,
        message: str | None = None,
        *,
        kind: str = "permanent",
        exit_code: int | None = None,
        signal: int | None = None,
        stderr: str = "",
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.exit_code = exit_code
        self.signal = signal
        self.stderr = stderr


class ItemError(DcomputeError):
    """An item failed at last."""

    def __init__(self, message: str | None = None, *, key: str = "", attempt: int = 0, kind: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.attempt = attempt
        self.kind = kind
        self.traceback = traceback


class TooManyFailures(DcomputeError):  # noqa: N818
    """More items failed than ``max_failures`` allows."""


class RunCancelled(DcomputeError):  # noqa: N818
    """The run was cancelled."""


class ReportError(DcomputeError):
    """A report could not be computed, or its result breaks what it promises."""

    def __init__(self, message: str | None = None, *, check: str = "", rows: int | None = None, example: str = "") -> None:
        super().__init__(message)
        self.check = check
        self.rows = rows
        self.example = example


class ReportOvertaken(ReportError):  # noqa: N818
    """Somebody else published the report's next version first: nothing of this run counts."""


class MissingExtraError(DcomputeError, ImportError):
    """An optional part of dcompute is not installed."""


class InternalError(DcomputeError):
    """A bug in dcompute: please report it."""
