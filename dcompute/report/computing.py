"""A report's function on Dask dataframes, and its result written: all of it, with the counts of what was dropped, in one computation."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from dcompute.code.installed import is_users
from dcompute.dataset.names import new_id
from dcompute.dataset.store import Store
from dcompute.errors import ClusterError, DcomputeError, ReportError
from dcompute.report.checks import RowCheck
from dcompute.report.dropping import counting
from dcompute.report.versions import File, summed
from dcompute.report.writing import SAID, Write, Written, said

#: What distributed raises when a scheduler is gone; it is no fault of a function.
_LOST = frozenset({"ClosedClientError", "CommClosedError", "FutureCancelledError", "FuturesCancelledError"})
Compute = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Job:
    """A function to be applied to dataframes, and written."""

    function: Callable[..., Any]
    frames: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What was written of one job."""

    written: tuple[Written, ...]
    dropped: Mapping[str, int]

    @property
    def files(self) -> tuple[File, ...]:
        """Those that have rows."""
        return tuple(one.file for one in self.written if one.file is not None)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a result goes, and what is promised of it."""

    report: str
    store: Store
    folder: str
    schema: pa.Schema | None = None
    checks: tuple[RowCheck, ...] = ()

    def bare(self) -> Target:
        """The same for what is only on its way to a result."""
        return replace(self, schema=None, checks=())


def compute(*things: Any) -> tuple[Any, ...]:
    """Things of Dask, computed together: by the current client where there is one, else in threads of this process."""
    import dask

    return tuple(dask.compute(*things)) if things else ()


def call_all(compute: Compute, calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What callables give, on the cluster where there is one."""
    import dask

    return list(compute(*(dask.delayed(one, pure=False)() for one in calls)))


def carry_out(jobs: Sequence[Job], target: Target, compute: Compute) -> list[Result]:
    """Apply functions and write what they return, all in one computation.

    Raises
    ------
    ReportError
        A function or one of its tasks raised, or returned no table.
    """
    with _told(target.report):
        # its name is in the keys of the tasks: two runs on one scheduler must not share what they wrote
        write = Write(target.report, target.store, target.folder, target.schema, target.checks, new_id())
        prepared = [_prepared(job, write) for job in jobs]
        things = [thing for one in prepared for thing in (one.said, *(count for _, count in one.counts))]
        answers = iter(compute(*things))
        return [_result(one, answers) for one in prepared]


@dataclass(frozen=True, slots=True)
class _Prepared:
    said: Any
    counts: tuple[tuple[str, Any], ...]


def _prepared(job: Job, write: Write) -> _Prepared:
    with counting() as counts:
        result = job.function(*job.frames, **job.named)
    return _Prepared(_written(result, write), tuple(counts))


def _written(result: Any, write: Write) -> Any:
    import dask.dataframe as dd
    import pandas as pd

    if isinstance(result, dd.DataFrame | dd.Series):
        meta = pd.DataFrame({SAID: pd.Series([], dtype="object")})
        return result.map_partitions(write, meta=meta, enforce_metadata=False)
    if isinstance(result, pa.Table | pd.DataFrame | pd.Series):
        return write(result)
    raise ReportError(
        f"report {write.report!r}: its function returned {type(result).__name__}: return a Dask or pandas dataframe, or an Arrow table"
    )


def _result(prepared: _Prepared, answers: Iterator[Any]) -> Result:
    written = said(next(answers)[SAID])
    dropped = summed({reason: int(next(answers))} for reason, _ in prepared.counts)
    return Result(tuple(written), dropped)


@contextlib.contextmanager
def _told(report: str) -> Iterator[None]:
    """What a user's function raises, told as what it is."""
    try:
        yield
    except DcomputeError:
        raise
    except Exception as error:
        if type(error).__name__ in _LOST and type(error).__module__.startswith("distributed."):
            why = f"{type(error).__name__}: {error}"
            raise ClusterError(f"report {report!r}: the cluster was lost meanwhile ({why}). Start one and run it again") from error
        words = str(error) or "no message"
        raise ReportError(f"report {report!r}: its function raised {type(error).__name__}{_place(error)}: {words}") from error


def _place(error: Exception) -> str:
    """Where in code of the user's an error was raised, as far as its traceback shows that."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    return f" in {frames[-1].name} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
