"""When a worker's time is over: what its operator, Dask and the batch system of its machine say."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

_ASK_SECONDS = 5.0


def end(
    environment: Mapping[str, str],
    *,
    started: float,
    walltime: float | None = None,
    lifetime: float | None = None,
    ask: Callable[[Sequence[str]], str] | None = None,
) -> float | None:
    """When a worker's time is over, in seconds since the epoch: the earliest that is known; None where none is.

    Parameters
    ----------
    environment
        Of the worker: Slurm and PBS leave word there.
    started
        When the worker's first process started, in seconds since the epoch.
    walltime
        The setting ``dcompute.worker.walltime``, in seconds.
    lifetime
        Dask's ``--lifetime``, in seconds.
    ask
        Runs a command and gives what it printed.
    """
    ends = [_slurm(environment, ask or _printed), _pbs(environment, started)]
    ends += [None if seconds is None else started + seconds for seconds in (walltime, lifetime)]
    return min((one for one in ends if one is not None), default=None)


def _slurm(environment: Mapping[str, str], ask: Callable[[Sequence[str]], str]) -> float | None:
    """Newer versions say it in the environment, all others when they are asked."""
    with contextlib.suppress(KeyError, ValueError):
        return float(environment["SLURM_JOB_END_TIME"])
    job = environment.get("SLURM_JOB_ID", "")
    if not job.isdecimal():
        return None
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        # in local time; N/A for a job without an end
        return datetime.fromisoformat(ask(["squeue", "--noheader", "--job", job, "--format", "%e"]).strip()).timestamp()
    return None


def _pbs(environment: Mapping[str, str], started: float) -> float | None:
    """Seconds, or hours, minutes and seconds, from the start of the job, which was a little before that of the worker."""
    text = environment.get("PBS_WALLTIME", "")
    if not re.fullmatch(r"\d+(:\d+){0,3}", text):
        return None
    *days, seconds = [int(part) for part in text.split(":")] if ":" in text else [int(text)]
    for part, unit in zip(reversed(days), (60, 3600, 86400), strict=False):
        seconds += part * unit
    return started + seconds


def _printed(command: Sequence[str]) -> str:
    done = subprocess.run(  # noqa: S603  our own words, and a number
        list(command), capture_output=True, text=True, timeout=_ASK_SECONDS, check=True, stdin=subprocess.DEVNULL
    )
    return done.stdout
