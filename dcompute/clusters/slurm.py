"""Workers as Slurm jobs, through dask-jobqueue: what a profile says of them, and the cluster that comes of it."""

from __future__ import annotations

import contextlib
import shutil
import socket
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dcompute.clusters.addresses import is_loopback
from dcompute.clusters.profiles import Opened, Profile
from dcompute.clusters.tls import of_nodes, temporary
from dcompute.config import Bytes, Count, Seconds
from dcompute.dashboard import add_where_possible
from dcompute.errors import ClusterError, MissingExtraError, SettingsError
from dcompute.resources import GPU, WorkerOffer

#: A worker leaves so long (a share of its walltime, at most so many seconds) before Slurm ends its job.
LEAVE_SHARE, LEAVE_SECONDS = 0.1, 300.0


class Adapt(BaseModel):
    """Between how many workers a cluster scales by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: Annotated[int, Field(ge=0, strict=True)] = 0
    max: Count

    @model_validator(mode="after")
    def _ordered(self) -> Adapt:
        if self.min > self.max:
            raise ValueError(f"needs min <= max, and these are {self.min} and {self.max}")
        return self


class Settings(Profile):
    """``kind: slurm``: what the jobs ask Slurm for, and how their workers start."""

    kind: str = "slurm"
    cores: Count  #: of one job
    memory: Bytes  #: of one job
    gpus: Annotated[int, Field(ge=0, strict=True)] = 0  #: of one job
    processes: Count = 1  #: workers of one job, which share all that
    walltime: Seconds
    leave: Seconds | None = None  #: how long before the walltime is over workers leave; None: a tenth of it, at most 5 min
    queue: str | None = None  #: partition
    account: str | None = None
    host: str | None = None  #: address of the scheduler, as the nodes reach it
    interface: str | None = None  #: or the network interface that has it
    dashboard: str = "127.0.0.1:0"
    shared: str | None = None  #: a folder that nodes see too, for the certificates of this cluster; None: the home folder
    logs: str | None = None  #: a folder that nodes see too, for what jobs print
    scratch: str | None = None  #: a folder on the nodes
    python: str | None = None  #: the Python on the nodes; None: this one's path
    prologue: tuple[str, ...] = ()  #: shell lines before the worker starts, such as "module load cuda"
    directives: tuple[str, ...] = ()  #: further options of sbatch, such as "--exclusive"
    resources: dict[str, float] = Field(default_factory=dict)  #: further names that each worker declares
    workers: Annotated[int, Field(ge=0, strict=True)] = 0  #: so many all the time
    adapt: Adapt | None = None  #: or as many as runs can use
    idle: Seconds = 60.0  #: how long a worker has nothing to do before its job ends

    @model_validator(mode="after")
    def _possible(self) -> Settings:
        if self.cores % self.processes or self.gpus % self.processes:
            raise ValueError(f"needs cores and gpus that {self.processes} processes share evenly")
        if self.host and self.interface:
            raise ValueError("takes host or interface, not both")
        if not self.leaves < self.walltime:
            raise ValueError("needs leave below walltime")
        if self.workers and self.adapt is not None:
            raise ValueError("takes workers or adapt, not both")
        return self

    @property
    def leaves(self) -> float:
        """Seconds before the end of the walltime by which a worker has left."""
        return min(LEAVE_SECONDS, LEAVE_SHARE * self.walltime) if self.leave is None else self.leave

    @property
    def is_private(self) -> bool:
        """Whether nobody beyond this machine reaches the scheduler."""
        return self.host is not None and is_loopback(self.host)

    @property
    def offer(self) -> WorkerOffer:
        """What one worker of these jobs has, before one was seen."""
        resources = dict(self.resources) | ({GPU: float(self.gpus // self.processes)} if self.gpus else {})
        return WorkerOffer(
            address="a new Slurm job",
            nthreads=self.cores // self.processes,
            memory_limit=self.memory // self.processes,
            resources=resources,
        )


def open_cluster(profile: Settings) -> Opened:
    """A cluster whose scheduler is in this process and whose workers are Slurm jobs, which are asked for again when they are lost.

    Raises
    ------
    MissingExtraError
        dask-jobqueue is missing here.
    ClusterError
        There is no Slurm here, or the scheduler cannot listen as the profile wants it.
    """
    try:
        from dcompute.clusters.jobs import SlurmJobs
    except ImportError as error:
        raise MissingExtraError('workers as Slurm jobs need dask-jobqueue: pip install "dcompute[slurm]"') from error
    from dcompute.scaling import adapt

    if shutil.which("sbatch") is None:
        raise ClusterError("there is no sbatch on this machine: start the run where Slurm's commands are, such as a login node")
    try:
        cluster = SlurmJobs(offer=profile.offer, **_listening(profile), **_job(profile), **_encryption(profile))
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(f"the scheduler for Slurm jobs did not start on {profile.host or 'this machine'}: {error}") from error
    cluster.sync(add_where_possible, cluster.scheduler)
    bounds = profile.adapt or (Adapt(min=profile.workers, max=profile.workers) if profile.workers else None)
    if bounds is not None:
        adapt(cluster, minimum=bounds.min, maximum=bounds.max, idle=profile.idle)
    return Opened(address=cluster.scheduler_address, security=cluster.security, cluster=cluster, close=lambda: _close(cluster, profile))


def _close(cluster: Any, profile: Settings) -> None:
    with contextlib.suppress(Exception):  # whatever is left ends by itself, when it finds no scheduler
        cluster.close(timeout=profile.timeout)
    cluster.drop_certificates()


def _encryption(profile: Settings) -> dict[str, Any]:
    """Certificates; where none are named and others could reach the scheduler, such that live as long as the cluster."""
    if profile.tls is None and (profile.plain or profile.is_private):
        return {}
    credentials = of_nodes(profile.tls) if profile.tls is not None else temporary([socket.gethostname()])
    return {"security": credentials.security(), "shared_temp_directory": _folder(profile.shared) or str(Path.home())}


def _listening(profile: Settings) -> dict[str, Any]:
    """How the scheduler and the workers are reached."""
    scheduler: dict[str, Any] = {"dashboard_address": profile.dashboard, "port": 0}
    if profile.host:
        scheduler["host"] = profile.host
    return {"scheduler_options": scheduler} | ({"interface": profile.interface} if profile.interface else {})


def _job(profile: Settings) -> dict[str, Any]:
    """What dask-jobqueue is told of one job."""
    optional = {"queue": profile.queue, "account": profile.account, "python": profile.python}
    optional |= {"log_directory": _folder(profile.logs), "local_directory": profile.scratch}
    # --no-requeue: a job that Slurm starts again while its first copy still runs would be a second worker of one name
    gres = [f"--gres=gpu:{profile.gpus}"] if profile.gpus else []
    return {
        "name": "dcompute",
        "job_name": "dcompute",
        "cores": profile.cores,
        "processes": profile.processes,
        "memory": f"{profile.memory} B",
        "walltime": clock(profile.walltime),
        "worker_extra_args": _arguments(profile),
        "job_script_prologue": list(profile.prologue),
        "job_extra_directives": ["--no-requeue", *gres, *profile.directives],
        **{name: value for name, value in optional.items() if value is not None},
    }


def _arguments(profile: Settings) -> list[str]:
    """Of the command that starts the workers of a job."""
    words = ["--preload", "dcompute.worker"]
    if profile.leaves:
        lifetime = profile.walltime - profile.leaves
        # it varies, so that the workers of one moment do not leave at one moment
        stagger = min(profile.leaves / 2, lifetime / 4)
        words += ["--lifetime", f"{lifetime:.0f}s", "--lifetime-stagger", f"{stagger:.0f}s"]
    if profile.resources:
        words += ["--resources", '"' + " ".join(f"{name}={amount:g}" for name, amount in sorted(profile.resources.items())) + '"']
    if profile.is_private:
        words += ["--host", str(profile.host)]
    return [*words, "--no-dashboard"]


def clock(seconds: float) -> str:
    """A time as sbatch takes it, with whole seconds: ``1-02:03:04``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}-" if days else "") + f"{hours:02}:{minutes:02}:{rest:02}"


def _folder(path: str | None) -> str | None:
    """An absolute path of a folder that is there: Slurm makes none, and drops what a job prints where it is missing."""
    if path is None:
        return None
    folder = Path(path).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"the folder {folder} of a Slurm profile cannot be made on {socket.gethostname()}: {error}") from error
    return str(folder)
