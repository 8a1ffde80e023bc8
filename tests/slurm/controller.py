"""A real Slurm of two nodes on this machine, in a folder of its own: started, killed and started again by process id.

Nothing is installed here: ``scripts/make-slurm`` brings Slurm and munge.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.processes import kill, kill_tree, until
from tests.servers import free_port

NODES = ("n1", "n2")
#: What each node claims to have, whatever this machine has.
CPUS, MEMORY_MB = 4, 8000

_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge/sock
SlurmctldPort={port}
StateSaveLocation={folder}/spool-ctld
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
SwitchType=switch/none
ReturnToService=1
KillWait=2
MinJobAge=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
SlurmdParameters=config_overrides
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE OverTimeLimit=0 State=UP
"""


class Slurm:
    """munged, slurmctld and a slurmd for each node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self._make_folders()
        self.conf.write_text(self._configuration())

    def start(self) -> None:
        """Start all of it; returns when both nodes take jobs."""
        munge = self.folder / "munge"
        files = [f"--{what}={munge / name}" for what, name in (("key-file", "key"), ("socket", "sock"), ("pid-file", "pid"))]
        files += [f"--{what}={munge / name}" for what, name in (("log-file", "log"), ("seed-file", "seed"))]
        subprocess.run(["runuser", "-u", "munge", "--", "munged", *files], check=True, timeout=30)
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        until(lambda: self._states() == {"idle"}, 30, "idle nodes")

    def start_controller(self) -> None:
        """Start slurmctld, which makes itself a daemon."""
        subprocess.run(["slurmctld", "-f", self.conf], check=True, timeout=30, env=self.env)

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node, which makes itself a daemon."""
        subprocess.run(["slurmd", "-f", self.conf, "-N", node], check=True, timeout=30, env=self.env)

    def kill_controller(self) -> None:
        """SIGKILL slurmctld: what it has not saved is lost."""
        self._kill("slurmctld.pid")

    def kill_node(self, node: str) -> None:
        """SIGKILL the slurmd of a node; its jobs go on."""
        self._kill(f"slurmd-{node}.pid")

    def stop(self) -> None:
        """End it all, jobs included."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", "--user", "root", "--state", "RUNNING")
            self.run("scancel", "--user", "root", "--state", "PENDING")
            until(lambda: not self.jobs(), 15, "no job")
        for name in ("slurmctld.pid", *(f"slurmd-{node}.pid" for node in NODES), "munge/pid"):
            self._kill(name, signal.SIGTERM)
        for process in self._left():
            kill_tree(process.pid)

    def run(self, *words: str) -> str:
        """What a Slurm command says."""
        return subprocess.run(words, check=True, timeout=30, capture_output=True, text=True, env=self.env).stdout

    def jobs(self, *states: str) -> list[str]:
        """Ids of the jobs that Slurm knows in these states, or in any that is not over."""
        wanted = ("--states", ",".join(states)) if states else ()
        return self.run("squeue", "--noheader", "--format=%A", *wanted).split()

    @property
    def env(self) -> dict[str, str]:
        """The environment in which commands find this Slurm."""
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    @property
    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in sorted(self.folder.glob("*.log")))

    def _states(self) -> set[str]:
        with contextlib.suppress(subprocess.SubprocessError):
            return set(self.run("sinfo", "--noheader", "--format=%t").split())
        return set()

    def _kill(self, name: str, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.folder / name).read_text())
            kill(pid, number)
            until(lambda: not _is_alive(pid), 10, f"the end of {name}")

    def _left(self) -> list[psutil.Process]:
        """Processes of this Slurm that outlived it: a step's watcher whose slurmd was killed."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                mine = process.environ().get("SLURM_CONF") == str(self.conf) or str(self.folder) in " ".join(process.cmdline())
                if mine and process.name().startswith(("slurm", "munged")):
                    found.append(process)
        return found

    def _make_folders(self) -> None:
        self.folder.chmod(0o755)  # munged runs as a user of its own
        for name in ("spool-ctld", *(f"spool-{node}" for node in NODES), "munge"):
            (self.folder / name).mkdir()
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        for path in (key, key.parent):
            shutil.chown(path, "munge", "munge")

    def _configuration(self) -> str:
        host = socket.gethostname().partition(".")[0]
        size = f"CPUs={CPUS} Sockets=1 CoresPerSocket={CPUS} ThreadsPerCore=1 RealMemory={MEMORY_MB} State=UNKNOWN"
        nodes = "\n".join(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} {size}" for node in NODES)
        return _CONF.format(host=host, folder=self.folder, port=free_port(), nodes=nodes)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def running() -> Iterator[Slurm]:
    """A Slurm whose nodes are idle; its folder goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short, as the path of a socket must be, and open to the user munge
    slurm = Slurm(folder)
    try:
        slurm.start()
        yield slurm
    except BaseException:
        print(slurm.logs)
        raise
    finally:
        slurm.stop()
        shutil.rmtree(folder, ignore_errors=True)
