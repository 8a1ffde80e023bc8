"""A cluster of Slurm jobs that notices which of them are gone: dask-jobqueue asks for a lost job again only once its worker was seen."""

from __future__ import annotations

import contextlib
import logging
import shlex
from typing import Any

from dask_jobqueue.slurm import SLURMCluster, SLURMJob
from distributed.core import Status

from dcompute.clusters.queue import Queued, lost_jobs, parse_queue
from dcompute.resources import WorkerOffer

log = logging.getLogger("dcompute.clusters.slurm")


class _Job(SLURMJob):  # type: ignore[misc]  # dask-jobqueue has no types
    """A job that Slurm may refuse, or whose Slurm may be away for a while, without an error of the whole cluster."""

    refusal: str = ""

    async def start(self) -> None:
        try:
            await super().start()
        except (RuntimeError, ValueError, OSError) as error:
            self.refusal = _last_line(str(error))
            log.warning("Slurm takes no job now: %s", self.refusal, extra={"action": "job_refused"})
            self.status = Status.running  # as far as Dask's cluster is concerned; it has no job

    async def close(self) -> None:
        await super().close()
        self.status = Status.closed


class SlurmJobs(SLURMCluster):  # type: ignore[misc]  # dask-jobqueue has no types
    """A ``SLURMCluster`` that knows what a new worker would offer and which jobs are gone.

    Parameters
    ----------
    offer
        What one worker has.
    options
        Of ``SLURMCluster``.
    """

    job_cls = _Job

    def __init__(self, *, offer: WorkerOffer, **options: Any) -> None:
        self.offer = offer
        self._misses: dict[str, int] = {}
        super().__init__(**options)

    async def forget_lost(self) -> list[str]:
        """Forget the jobs that are gone, so that they are asked for again where they are wanted; their names.

        Where Slurm does not answer, nothing is forgotten but what it has never taken.
        """
        here = {str(worker["name"]) for worker in self.scheduler_info["workers"].values()}
        absent = {name: job.job_id for name, job in self.workers.items() if not self._has_come(name, here)}
        queue = await self._queue() if any(absent.values()) else {}
        if queue is None:
            absent, queue = {name: None for name, number in absent.items() if number is None}, {}
        lost = lost_jobs(absent, queue, self._misses)
        for name in lost:
            self._misses.pop(name, None)
            job = self.workers.pop(name, None)
            if job is not None:
                # one that Slurm holds for ever, or whose record it has lost while it runs
                await job.close()
        return lost

    def refusal(self) -> str:
        """What Slurm said to the last job that it did not take; "" where it takes them."""
        return next((job.refusal for job in self.workers.values() if job.refusal), "")

    def drop_certificates(self) -> None:
        """Remove the files with which jobs showed who they are: dask-jobqueue leaves them until this process ends."""
        for name in ("_job_ca_file", "_job_cert", "_job_key"):
            file = self.__dict__.pop(name, None)
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()

    def _has_come(self, name: str, here: set[str]) -> bool:
        spec = self.worker_spec.get(name) or {}
        names = {f"{name}{suffix}" for suffix in spec.get("group", [""])}
        return not names.isdisjoint(here)

    async def _queue(self) -> dict[str, Queued] | None:
        with contextlib.suppress(RuntimeError, OSError):
            return parse_queue(await _Job._call(shlex.split("squeue --me --noheader --states=all --format=%A|%T|%r")))
        return None


def _last_line(text: str) -> str:
    """What a command said at last, of all that dask-jobqueue tells of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and line.strip() not in ("stdout:", "stderr:")]
    return lines[-1] if lines else text
