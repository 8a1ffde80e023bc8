"""A cluster of hosts that are reached by SSH, started for this program.

OpenSSH's own client starts the members, so that its configuration, agent and known hosts hold. What they need to know, certificates
included, goes through its pipe: Dask's ``SSHCluster`` puts all of its configuration, with the passwords of storages, into the command lines
of the hosts, and has the members talk without encryption.
"""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from dcompute.clusters import tls
from dcompute.clusters.local import told
from dcompute.clusters.members import Members, started
from dcompute.clusters.profiles import Opened, Profile
from dcompute.config import Count

#: Of OpenSSH: nobody is there to be asked, and a connection that is cut is noticed within a minute.
_OPTIONS = ("-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3")


def _host(value: str) -> str:
    if not value or value.startswith("-") or any(letter.isspace() for letter in value):
        raise ValueError("must be a host as ssh takes it, such as user@node1")
    return value


Host = Annotated[str, AfterValidator(_host)]


class Settings(Profile):
    """``kind: ssh``."""

    scheduler: Host  #: the scheduler's host
    hosts: list[Host] = Field(min_length=1)  #: those of the workers
    scheduler_as_worker: bool = False  #: whether the scheduler's host may be among these
    workers: Count = 1  #: worker processes of each host
    threads: Count | None = None  #: of each; the cores that there are, shared by them, where None
    memory: str | int = "auto"  #: of each
    python: str = sys.executable  #: of the hosts; has dcompute
    ssh_options: list[str] = Field(default_factory=list)  #: such as ["-p", "2222"]
    listen: str | None = None  #: address of the scheduler's host for the others; the one by which SSH reached it, where None
    port: int = Field(default=0, ge=0, lt=65536)
    dashboard: str = "127.0.0.1:0"
    environment: dict[str, str] = Field(default_factory=dict, repr=False)  #: of the members
    scratch: str | None = None

    @model_validator(mode="after")
    def _apart(self) -> Settings:
        if self.scheduler in self.hosts and not self.scheduler_as_worker:
            raise ValueError(
                f"{self.scheduler} is to have the scheduler, and is among the hosts of workers: an item that takes all of its memory or "
                "cores would take the scheduler, and with it the run, along. Leave it out of hosts, or say scheduler-as-worker: true"
            )
        return self


def open_cluster(profile: Settings) -> Opened:
    """Start a scheduler and workers on the hosts; they end with this process, however that ends.

    Raises
    ------
    ClusterError
        A host cannot be reached, or has no dcompute; says which.
    """
    credentials = _credentials(profile)
    common = {"environment": profile.environment, "tls": told(credentials)}
    scheduler = {**common, "role": "scheduler", "host": profile.listen, "port": profile.port, "dashboard": profile.dashboard}
    worker = {
        **common,
        "role": "worker",
        "count": profile.workers,
        "threads": profile.threads,
        "memory": profile.memory,
        "scratch": profile.scratch,
    }
    members = Members()
    address = started(
        members,
        (profile.scheduler, _command(profile, profile.scheduler), scheduler),
        [(host, _command(profile, host), worker) for host in profile.hosts],
        timeout=profile.timeout,
    )
    return Opened(address=address, security=credentials.security() if credentials is not None else None, close=members.close)


def _credentials(profile: Settings) -> tls.Credentials | None:
    if profile.tls is not None:
        return tls.of_nodes(profile.tls)
    return None if profile.plain else tls.temporary([profile.scheduler.rpartition("@")[2]])


def _command(profile: Settings, host: str) -> list[str]:
    there = [profile.python, "-m", "dcompute.clusters.member"]
    return ["ssh", *_OPTIONS, *profile.ssh_options, "--", host, f"exec {shlex.join(there)}"]
