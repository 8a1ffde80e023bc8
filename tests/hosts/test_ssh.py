"""A cluster over SSH: real sshd on two hosts, a program on a third."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.hosts.network import BIN, Network, network, tool
from tests.processes import until

SECRET = "hunter2-in-no-command-line"
PROGRAM = """
import sys, time
import dcompute as dc

def slowly(x, seconds):
    time.sleep(seconds)
    return x * x

if __name__ == "__main__":
    with dc.cluster("nodes") as cluster:
        print(cluster, flush=True)
        seconds = {"seconds": float(sys.argv[1])}
        run = dc.map(slowly, range(20), f"squares-{sys.argv[1]}", params=seconds)
        run.wait(progress="quiet")
        print(run.summary())
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Two hosts with sshd, and one with a user who has a key."""
    with network(tmp_path_factory.mktemp("ssh"), "head", "node", "user") as there:
        folder = there.folder
        Path("/run/sshd").mkdir(exist_ok=True)
        for name in ("host", "user"):
            subprocess.run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / f"{name}-key")], check=True)
        (folder / "sshd_config").write_text(
            f"HostKey {folder}/host-key\nAuthorizedKeysFile {folder}/user-key.pub\nStrictModes no\nPermitRootLogin yes\n"
            "PasswordAuthentication no\nUsePAM no\nPidFile none\nPrintMotd yes\n"
        )
        for name in ("head", "node"):
            there.start(name, tool("sshd"), "-D", "-e", "-f", str(folder / "sshd_config"), log=f"sshd-{name}")
            until(lambda name=name: "listening" in there.said(f"sshd-{name}"), 20, "sshd", lambda name=name: there.said(f"sshd-{name}"))
        (folder / "program.py").write_text(PROGRAM)
        (folder / "lab.py").write_text("def double(x):\n    return 2 * int(x)\n")
        yield there


def settings(hosts: Network, changes: Mapping[str, object] | None = None) -> dict[str, str]:
    """The environment of a program that knows the cluster ``nodes``."""
    key, known = hosts.folder / "user-key", hosts.folder / "known"
    profile = {
        "kind": "ssh",
        "scheduler": hosts.address("head"),
        "hosts": [hosts.address("node")],
        "threads": 2,
        "python": sys.executable,
        "ssh-options": ["-i", str(key), "-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={known}"],
        "environment": {"LAB_TOKEN": SECRET},
        **(changes or {}),
    }
    return {
        "DASK_DCOMPUTE__CLUSTERS": json.dumps({"nodes": profile}),
        "DASK_DCOMPUTE__STORAGE": json.dumps({"s3://lab/": {"secret": SECRET}}),
    }


def members(hosts: Network) -> list[str]:
    """Command lines of what was started on the hosts, sshd's own apart."""
    found = []
    for name in ("head", "node"):
        pids = subprocess.run([tool("ip"), "netns", "pids", hosts.space(name)], capture_output=True, text=True, check=True).stdout.split()
        for pid in pids:
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if "sshd" not in line and line:
                found.append(line)
    return found


def test_a_run_on_hosts_that_ssh_reaches(hosts: Network) -> None:
    """Over TLS with certificates that are in no file; nothing is left on the hosts."""
    done = hosts.run("user", sys.executable, "program.py", "0", **settings(hosts))
    assert done.returncode == 0, done.stderr
    assert f"<Cluster ssh at tls://{hosts.address('head')}:" in done.stdout
    assert "20 succeeded" in done.stdout
    until(lambda: not members(hosts), 20, "the end of all members", lambda: "\n".join(members(hosts)))
    assert not list(hosts.folder.rglob("*.pem"))


def test_a_killed_program_leaves_nothing_on_the_hosts(hosts: Network) -> None:
    """Neither schedulers nor workers; and while they are there no command line has a secret."""
    process = hosts.start("user", sys.executable, "program.py", "30", log="killed", env=settings(hosts))
    until(lambda: "<Cluster ssh" in hosts.said("killed"), 60, "a cluster", lambda: hosts.said("killed"))
    lines = members(hosts)
    assert sum("dcompute.clusters.member" in line for line in lines) >= 2
    assert not any(SECRET in line or "BEGIN" in line for line in lines)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not members(hosts), 30, "the end of all members", lambda: "\n".join(members(hosts)))


def test_a_command_takes_the_cluster_by_its_name(hosts: Network) -> None:
    """It is started for the command, and ends with it."""
    (hosts.folder / "grid.csv").write_text("x\n" + "\n".join(map(str, range(5))) + "\n")
    done = hosts.run(
        "user", str(BIN / "dcompute"), "run", "lab.py:double", "grid.csv", "doubled", "--scheduler", "nodes", **settings(hosts)
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"5 succeeded", done.stdout)
    until(lambda: not members(hosts), 20, "the end of all members", lambda: "\n".join(members(hosts)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"python": "/usr/bin/env"}, "it ended with code"),
        ({"hosts": ["10.77.0.99"], "timeout": 8}, "10.77.0.99"),
        ({"hosts": ["10.77.0.1"]}, "scheduler-as-worker"),
    ],
    ids=["no-dcompute", "no-host", "beside"],
)
def test_what_cannot_start_says_where_and_why(hosts: Network, changes: dict[str, object], said: str) -> None:
    """And nothing of it is left on the other hosts."""
    done = hosts.run("user", sys.executable, "program.py", "0", **settings(hosts, changes))
    assert done.returncode != 0
    assert said in done.stderr
    assert SECRET not in done.stderr
    until(lambda: not members(hosts), 20, "the end of all members", lambda: "\n".join(members(hosts)))


def test_a_cluster_that_stays_lets_programs_in(hosts: Network) -> None:
    """``dcompute cluster start nodes`` keeps it until SIGTERM; who has the certificates gets in meanwhile."""
    assert hosts.run("user", str(BIN / "dcompute"), "certs", "certs").returncode == 0
    given = settings(hosts, {"tls": str(hosts.folder / "certs")})
    started = hosts.start("user", str(BIN / "dcompute"), "cluster", "start", "nodes", "--address-file", "nodes.json", log="kept", env=given)
    until((hosts.folder / "nodes.json").exists, 60, "the address", lambda: hosts.said("kept"))
    code = "import dcompute as dc; c = dc.cluster('nodes.json', tls='certs'); print(len(c.client.scheduler_info(n_workers=-1)['workers']))"
    done = hosts.run("user", sys.executable, "-c", code)
    assert done.stdout.strip() == "1", done.stderr
    started.send_signal(signal.SIGTERM)
    assert started.wait(40) == 0
    assert not (hosts.folder / "nodes.json").exists()
    until(lambda: not members(hosts), 20, "the end of all members", lambda: "\n".join(members(hosts)))
