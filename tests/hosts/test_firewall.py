"""Four hosts over TLS: one of the workers accepts no connection from outside, and serves as any other."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dcompute.clusters import tls
from tests.hosts.network import BIN, Network, network, wait_for

#: In the inputs and in the results, and in no packet.
MARKER = "a-marker-that-nobody-on-the-way-may-read"
PROGRAM = Path(__file__).with_name("program.py")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A scheduler, an open worker, a worker behind a firewall, and a client; certificates in ``certs``, one folder that all see."""
    with network(tmp_path_factory.mktemp("hosts"), "sched", "open", "closed", "client") as there:
        tls.write(there.folder / "certs", [there.address("sched")])
        for name in (tls.CA, tls.CLIENT, tls.CLIENT_KEY):
            (there.folder / "user").mkdir(exist_ok=True)
            (there.folder / "user" / name).write_bytes((there.folder / "certs" / name).read_bytes())
        there.accept_nothing("closed")
        scheduler = f"tls://{there.address('sched')}:8786"
        there.start(
            "sched", str(BIN / "dcompute"), "cluster", "start", "--tls", "certs", "--listen", scheduler, "--address-file", "lab.json"
        )
        wait_for((there.folder / "lab.json").exists, 60, "a scheduler", lambda: there.said("sched"))
        (line,) = [line for line in there.said("sched").splitlines() if line.startswith("Workers ")]
        words = line.removeprefix("Workers").split()  # the line that people are shown
        for name in ("open", "closed"):
            there.start(name, sys.executable, "-m", *words, "--host", there.address(name), "--nthreads", "1", "--no-dashboard",
                        "--local-directory", f"scratch-{name}")  # fmt: skip
        for name in ("open", "closed"):
            wait_for(functools.partial(is_registered, there, name), 60, f"worker {name}", functools.partial(there.said, name))
        yield there


def is_registered(hosts: Network, name: str) -> bool:
    return f"tls://{hosts.address(name)}:" in hosts.said("sched")


def program(hosts: Network, *words: str, within: float = 150) -> subprocess.CompletedProcess[str]:
    """The program of the user, on the client's host."""
    return hosts.run("client", sys.executable, str(PROGRAM), f"tls://{hosts.address('sched')}:8786", *words, within=within)


def test_nobody_reaches_the_worker_behind_the_firewall(hosts: Network) -> None:
    """What the other tests show is no luck: the port of that worker is there, and takes no connection."""
    port = re.findall(rf"Register worker addr: tls://{hosts.address('closed')}:(\d+)", hosts.said("sched"))[0]
    code = f"import socket; socket.create_connection(({hosts.address('closed')!r}, {port}), 2)"
    assert "timed out" in hosts.run("sched", sys.executable, "-c", code).stderr
    assert "timed out" in hosts.run("client", sys.executable, "-c", code).stderr


def test_a_worker_that_only_connects_outwards_serves_as_any_other(hosts: Network) -> None:
    """Its batches commit, each once, nothing is lost or done twice, and nothing waits for a time-out."""
    done = program(hosts, "work", "dataset", "user")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["results"] == [number * number for number in range(60)]
    assert set(said["hosts"]) == {hosts.address("open"), hosts.address("closed")}
    assert said["attempts"] == 60
    assert said["seconds"] < 25
    assert "lost" not in done.stderr
