"""Hosts for tests: network namespaces of this machine on one bridge, which is in a namespace of its own and reaches nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
_PATH = os.pathsep.join([str(BIN), os.environ["PATH"], "/usr/sbin", "/sbin"])


def tool(name: str) -> str:
    """Where a program of the system is."""
    found = shutil.which(name, path=_PATH)
    assert found is not None, f"{name} is not here: scripts/make-hosts installs it"
    return found


def system(*words: str) -> None:
    done = subprocess.run([tool(words[0]), *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


class Network:
    """Hosts with addresses 10.77.0.1, 10.77.0.2, ... in the order of their names."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = folder
        self.names = names
        self._mark = uuid.uuid4().hex[:4]
        self.started: list[subprocess.Popen[bytes]] = []

    def address(self, name: str) -> str:
        return f"10.77.0.{self.names.index(name) + 1}"

    def space(self, name: str) -> str:
        """The namespace of a host."""
        return f"dc{self._mark}{name}"

    def within(self, name: str, *words: str) -> list[str]:
        """A command on a host."""
        return [tool("ip"), "netns", "exec", self.space(name), *words]

    def build(self) -> None:
        switch = self.space("sw")
        for words in (
            ["netns", "add", switch],
            ["-n", switch, "link", "add", "br0", "type", "bridge"],
            ["-n", switch, "link", "set", "br0", "up"],
        ):
            system("ip", *words)
        for name in self.names:
            space, port = self.space(name), f"p{name}"
            for words in (
                ["netns", "add", space],
                ["-n", space, "link", "set", "lo", "up"],
                ["-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space],
                ["-n", switch, "link", "set", port, "master", "br0", "up"],
                ["-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0"],
                ["-n", space, "link", "set", "eth0", "up"],
            ):
                system("ip", *words)

    def remove(self) -> None:
        for process in reversed(self.started):
            end(process)
        for name in ["sw", *self.names]:
            subprocess.run([tool("ip"), "netns", "del", self.space(name)], check=False, capture_output=True)

    def start(self, name: str, *words: str, log: str = "", **more: Any) -> subprocess.Popen[bytes]:
        """Start a process on a host; its output is in ``<log>.log``."""
        with (self.folder / f"{log or name}.log").open("ab") as output:
            environment = {**os.environ, "PATH": _PATH, "PYTHONUNBUFFERED": "1", **more.pop("env", {})}
            process = subprocess.Popen(
                self.within(name, *words), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder, env=environment, **more
            )
        self.started.append(process)
        return process

    def run(self, name: str, *words: str, within: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        """What a command on a host says."""
        env = {**os.environ, "PATH": _PATH, **environment}
        return subprocess.run(
            self.within(name, *words), cwd=self.folder, timeout=within, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env
        )

    def said(self, log: str) -> str:
        file = self.folder / f"{log}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def accept_nothing(self, name: str) -> None:
        """A firewall that lets answers in, and nothing that comes by itself."""
        for words in (
            ["-i", "lo", "-j", "ACCEPT"],
            ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"],
            ["-j", "DROP"],
        ):
            done = self.run(name, tool("iptables"), "-A", "INPUT", *words)
            assert done.returncode == 0, done.stderr


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def network(folder: Path, *names: str) -> Iterator[Network]:
    folder.mkdir(parents=True, exist_ok=True)
    there = Network(folder, list(names))
    try:
        there.build()
        yield there
    finally:
        there.remove()
