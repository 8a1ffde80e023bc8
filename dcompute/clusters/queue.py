"""What Slurm's queue says of jobs, and which of them are lost: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Slurm's answer must miss a job so often in a row before it counts as gone: after a restart its controller knows less for a while.
MISSES = 2
#: Why Slurm keeps a job that it will never start: its first copy was under way when the controller was lost.
NEVER_STARTS = "launch_failed_requeued_held"


@dataclass(frozen=True, slots=True)
class Queued:
    """What squeue says of a job."""

    state: str  #: such as PENDING
    reason: str  #: why it waits

    @property
    def may_come(self) -> bool:
        """Whether a worker may still come of it."""
        return self.state in ("PENDING", "RUNNING", "CONFIGURING", "SUSPENDED", "REQUEUED", "STOPPED") and not self.never_starts

    @property
    def never_starts(self) -> bool:
        """Whether it waits for nothing."""
        return self.state == "PENDING" and self.reason.lower().replace(" ", "_") == NEVER_STARTS


def parse_queue(text: str) -> dict[str, Queued]:
    """What squeue printed as ``%A|%T|%r``: job id -> what it says of it."""
    lines = (line.strip().split("|") for line in text.splitlines() if line.count("|") == 2)
    return {number: Queued(state, reason) for number, state, reason in lines}


def lost_jobs(absent: Mapping[str, str | None], queue: Mapping[str, Queued], misses: dict[str, int]) -> list[str]:
    """Names of the jobs of which no worker will come any more.

    Parameters
    ----------
    absent
        Name -> job id of those without a worker; None: Slurm has refused the job.
    queue
        What Slurm says.
    misses
        How often in a row each name was not found; changed here.
    """
    for name in list(misses):
        if name not in absent:
            del misses[name]
    for name, number in absent.items():
        found = queue.get(number) if number is not None else None
        misses[name] = 0 if found is not None and found.may_come else misses.get(name, 0) + 1
    return [name for name, number in absent.items() if number is None or misses[name] >= MISSES]
