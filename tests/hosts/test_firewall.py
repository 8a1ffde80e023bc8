"""Four hosts over TLS: one of the workers accepts no connection from outside, and serves as any other."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dcompute.clusters import tls
from tests.hosts.network import BIN, Network, end, network, tool
from tests.hosts.program import MARKER
from tests.processes import until

PROGRAM = Path(__file__).with_name("program.py")
#: What no run here may take: a single wait for a worker that nobody reaches is 30 s.
SECONDS = 25.0


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
        start = ("cluster", "start", "--tls", "certs", "--listen", scheduler, "--address-file", "lab.json")
        there.start("sched", str(BIN / "dcompute"), *start)
        until((there.folder / "lab.json").exists, 60, "a scheduler", lambda: there.said("sched"))
        for name, more in (("open", ()), ("closed", ("--resources", "ONLY=2"))):
            there.start(name, *line_for_workers(there), *options(there, name), "--nthreads", "2", *more)
        for name in ("open", "closed"):
            until(functools.partial(is_registered, there, name), 60, f"worker {name}", functools.partial(there.said, name))
        yield there


def line_for_workers(hosts: Network) -> list[str]:
    """The line that ``dcompute cluster start`` shows to people, with the Python of these tests."""
    until(lambda: "Workers " in hosts.said("sched"), 30, "the line for workers")
    (line,) = [line for line in hosts.said("sched").splitlines() if line.startswith("Workers ")]
    return [sys.executable, "-m", *line.removeprefix("Workers").split()]


def options(hosts: Network, name: str) -> list[str]:
    return ["--host", hosts.address(name), "--no-dashboard", "--local-directory", f"scratch-{name}"]


def is_registered(hosts: Network, name: str) -> bool:
    return f"Register worker addr: tls://{hosts.address(name)}:" in hosts.said("sched")


def program(hosts: Network, what: str, certificates: str = "user", *, port: int = 8786, within: float = 150) -> Any:
    """What the user's program on the client's host says, and what it printed."""
    protocol = "tcp" if certificates == "plain" else "tls"
    address = f"{protocol}://{hosts.address('sched')}:{port}"
    done = hosts.run("client", sys.executable, str(PROGRAM), address, what, f"dataset-{what}-{port}", certificates, within=within)
    return done, json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}


@contextlib.contextmanager
def captured(hosts: Network, name: str) -> Iterator[Path]:
    """All packets between the hosts while the block lasts."""
    file = hosts.folder / f"{name}.pcap"
    process = hosts.start("sw", tool("tcpdump"), "-i", "br0", "-U", "-s", "0", "-Z", "root", "-w", str(file), log=name)
    until(lambda: "listening on" in hosts.said(name), 20, "the capture", lambda: hosts.said(name))
    try:
        yield file
    finally:
        end(process)


def test_nobody_reaches_the_worker_behind_the_firewall(hosts: Network) -> None:
    """What the other tests show is no luck: the port of that worker is there, and takes no connection."""
    port = re.findall(rf"Register worker addr: tls://{hosts.address('closed')}:(\d+)", hosts.said("sched"))[0]
    code = f"import socket; socket.create_connection(({hosts.address('closed')!r}, {port}), 2)"
    assert "timed out" in hosts.run("sched", sys.executable, "-c", code).stderr
    assert "timed out" in hosts.run("client", sys.executable, "-c", code).stderr


def test_a_worker_that_only_connects_outwards_serves_as_any_other(hosts: Network) -> None:
    """Its batches commit, nothing is lost or done twice, nothing waits for a time-out, and nobody on the way can read inputs."""
    with captured(hosts, "encrypted") as file:
        done, said = program(hosts, "work")
    assert done.returncode == 0, done.stderr
    assert said["squares"] == [number * number for number in range(60)]
    assert said["hosts"] == [hosts.address("open"), hosts.address("closed")]
    assert said["outcomes"] == ["succeeded"] * 60
    assert said["seconds"] < SECONDS
    assert "lost" not in done.stderr
    packets = file.read_bytes()
    assert len(packets) > 50_000
    assert MARKER.encode() not in packets
    assert b"slowly" not in packets


def test_the_capture_would_show_plain_text(hosts: Network) -> None:
    """The same without encryption, as whoever asks for it gets it: each input can be read."""
    port, host = 8790, hosts.address("sched")
    scheduler = hosts.start(
        "sched", sys.executable, "-m", "dask", "scheduler", "--host", host, "--port", str(port), "--no-dashboard", log="plain"
    )
    worker = hosts.start(
        "open", sys.executable, "-m", "dask", "worker", f"tcp://{host}:{port}", *options(hosts, "open"), log="plain-worker"
    )
    try:
        until(lambda: "Register worker" in hosts.said("plain"), 60, "a worker", lambda: hosts.said("plain-worker"))
        with captured(hosts, "readable") as file:
            done, said = program(hosts, "work", "plain", port=port)
    finally:
        end(worker)
        end(scheduler)
    assert done.returncode == 0, done.stderr
    assert said["outcomes"] == ["succeeded"] * 60
    assert MARKER.encode() in file.read_bytes()


def test_a_set_up_that_fails_there_is_told_at_once(hosts: Network) -> None:
    """The reason comes from the worker that nobody reaches, and no batch waits for it."""
    done, said = program(hosts, "unready")
    assert done.returncode == 0, done.stderr
    assert "there is no model here" in said["problem"]
    assert said["problem"].startswith("InitializerError")
    assert said["seconds"] < SECONDS


def test_a_batch_that_does_not_join_is_rewritten_there(hosts: Network) -> None:
    """Of two types that cannot meet the second comes to nothing, once, and at once."""
    done, said = program(hosts, "rewritten")
    assert done.returncode == 0, done.stderr
    assert said["hosts"] == [hosts.address("closed")]
    assert said["outcomes"] == ["failed", "succeeded"]
    assert said["seconds"] < SECONDS


def test_the_demo_s_workload_runs_from_the_client_s_host(hosts: Network) -> None:
    """All of its items, on both workers; the damaged files fail as they do on one machine, and nothing else does."""
    done, said = program(hosts, "demo")
    assert done.returncode == 0, done.stderr
    assert said["hosts"] == [hosts.address("open"), hosts.address("closed")]
    assert said["outcomes"].count("failed") == 5
    assert said["outcomes"].count("succeeded") > 15


def test_a_client_without_the_certificate_is_refused(hosts: Network) -> None:
    """One of another authority, and one that speaks plainly; neither gets anything executed."""
    tls.write(hosts.folder / "others")
    stranger, _ = program(hosts, "work", "others", within=90)
    assert stranger.returncode != 0
    assert "are your certificates of its authority" in stranger.stderr
    plain, _ = program(hosts, "work", "plain", within=90)
    assert plain.returncode != 0
    assert "no scheduler answers" in plain.stderr


def test_a_worker_on_the_scheduler_s_host_is_sent_away(hosts: Network) -> None:
    """Its process ends, and the others stay."""
    worker = hosts.start("sched", *line_for_workers(hosts), *options(hosts, "sched"), log="beside")
    until(lambda: worker.poll() is not None, 60, "the end of that worker", lambda: hosts.said("beside"))
    assert "is on the scheduler's host, and is sent away" in hosts.said("sched")


def test_the_doctor_finds_a_healthy_cluster_healthy(hosts: Network) -> None:
    """Through the firewall too, and it leaves nothing on the storage."""
    place = hosts.folder / "data" / "sub"
    words = ("doctor", f"tls://{hosts.address('sched')}:8786", str(place), "--tls", "user", "--json")
    done = hosts.run("client", str(BIN / "dcompute"), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert {finding["check"] for finding in findings} == {
        "here",
        "connect",
        "versions",
        "resources",
        "import",
        "clock",
        "placing",
        "storage",
    }
    assert [finding for finding in findings if finding["status"] == "failure"] == []
    assert any(finding["where"] == "2 workers" and finding["check"] == "import" for finding in findings)
    assert sum(finding["check"] == "storage" for finding in findings) == 2  # here, and from a worker: all namespaces have one host's name
    assert not place.parent.exists()


def test_the_scheduler_ends_with_sigterm_and_takes_its_file_along(hosts: Network) -> None:
    """Its process ends in good order; last in this file, as nothing works after it."""
    (process,) = [process for process in hosts.started if "cluster" in process.args and process.poll() is None]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not (hosts.folder / "lab.json").exists()
