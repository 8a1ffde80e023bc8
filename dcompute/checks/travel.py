"""The checks of a run as bytes that its workers open."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from dcompute import zones
from dcompute.checks.forms import Check
from dcompute.errors import WorkloadError


@dataclass(frozen=True, slots=True, eq=False)
class RunChecks:
    """What is checked in a run."""

    rows: tuple[Check, ...] = ()  #: of the rows that items return
    refuses: bool = False  #: whether an item with a row that does not pass fails
    inputs: tuple[Check, ...] = ()


def packed(checks: RunChecks) -> bytes:
    """They as bytes; none are the empty bytes.

    Raises
    ------
    WorkloadError
        One cannot travel.
    """
    if not checks.rows and not checks.inputs:
        return b""
    for argument, several in (("checks", checks.rows), ("input_checks", checks.inputs)):
        for check in several:
            _dumped(check, f"{argument}: {check.name!r}")
    return _dumped(checks, "checks")


@lru_cache(maxsize=8)
def opened(data: bytes) -> RunChecks:
    """What :func:`packed` packed.

    Raises
    ------
    WorkloadError
        It cannot be opened here; the cause is in the message.
    """
    import pickle

    if not data:
        return RunChecks()
    try:
        with zones.kept():
            checks: RunChecks = pickle.loads(data)  # noqa: S301  from the driver of this run, by Dask's own wire
    except Exception as error:
        raise WorkloadError(
            f"the checks cannot be opened here ({type(error).__name__}: {error}): install on the workers what they import (of pandera: "
            'pip install "dcompute[checks]"), or send a local package with modules=[...]'
        ) from error
    return checks


def unjudging(why: str) -> RunChecks:
    """Checks that judge nothing: every row's item fails, and says why."""
    return RunChecks((Check("checks", _Unjudged(why)),))


@dataclass(frozen=True, slots=True)
class _Unjudged:
    why: str

    def __call__(self, _: object) -> object:
        raise RuntimeError(f"the rows could not be judged: {self.why}")


def _dumped(thing: object, what: str) -> bytes:
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(thing))
    except Exception as error:
        raise WorkloadError(
            f"{what} cannot be sent to workers: {type(error).__name__}: {error}. Use an expression of pyarrow, or a function that holds "
            "plain data"
        ) from error
