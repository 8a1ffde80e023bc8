"""Where a scheduler listens, what a person is told of it, and which profiles can be started."""

from __future__ import annotations

from pathlib import Path

import dask
import pytest

from dcompute.clusters import profile_of, tls
from dcompute.clusters.profiles import module_of
from dcompute.clusters.serving import Start, about, kept_profile, listening, noted
from dcompute.errors import SettingsError, UsageError

SSH = {"kind": "ssh", "scheduler": "head", "hosts": ["node1"]}


def test_without_certificates_nobody_else_reaches_it() -> None:
    """With them everybody who has some does; plain to others only by its name."""
    assert str(listening(None, folder=None, plain=False)) == "tcp://127.0.0.1:8786"
    assert str(listening(None, folder="certs", plain=False)) == "tls://0.0.0.0:8786"
    assert str(listening("10.0.0.1:9", folder="certs", plain=False)) == "tls://10.0.0.1:9"
    with pytest.raises(UsageError, match="without encryption"):
        listening("tcp://10.0.0.1:9", folder="certs", plain=False)
    assert listening("tcp://0.0.0.0:9", folder=None, plain=True).is_plain


def test_a_person_is_told_the_lines_for_workers_and_programs() -> None:
    """With the certificates where there are some."""
    encrypted = about(Start(listen=listening(None, folder="/c", plain=False), folder="/c"), "tls://10.0.0.1:8786")
    assert "Workers    dask worker --preload dcompute.worker --tls-ca-file /c/ca.pem --tls-cert /c/node.pem --tls-key /c/node-key.pem " \
        "tls://10.0.0.1:8786" in encrypted  # fmt: skip
    assert "Programs   dc.cluster('tls://10.0.0.1:8786', tls='/c')" in encrypted
    plain = about(Start(listen=listening("tcp://10.0.0.1:1", folder=None, plain=True)), "tcp://10.0.0.1:1")
    assert any("plain=True" in line for line in plain)
    assert any("nothing is encrypted" in line for line in plain)
    alone = about(Start(listen=listening(None, folder=None, plain=False)), "tcp://127.0.0.1:8786")
    assert any(line.startswith("Alone") for line in alone)


def test_the_address_file_is_there_as_long_as_the_scheduler(tmp_path: Path) -> None:
    """Whole, and nothing beside it."""
    file = tmp_path / "lab.json"
    with noted(file, {"address": "tls://head:1"}):
        assert profile_of(file, {"tls": "x"}).address == "tls://head:1"
        assert [path.name for path in tmp_path.iterdir()] == ["lab.json"]
    assert list(tmp_path.iterdir()) == []


def test_workers_on_the_scheduler_s_host_are_asked_for() -> None:
    """Of a cluster over SSH in its profile, of one of this machine when it is started to stay."""
    beside = {**SSH, "hosts": ["head", "node1"], "tls": "certs"}
    with dask.config.set({"dcompute.clusters": {"nodes": beside, "here": {"kind": "local"}, "lab": {"kind": "address", "address": "h:1"}}}):
        with pytest.raises(SettingsError, match=r"head is to have the scheduler.*scheduler-as-worker: true"):
            profile_of("nodes", {})
        assert profile_of("nodes", {"scheduler_as_worker": True}).hosts == ["head", "node1"]
        with pytest.raises(UsageError, match="--scheduler-as-worker"):
            kept_profile("here", beside=False, given={})
        assert kept_profile("here", beside=True, given={"workers": 3, "threads": None}).workers == 3
        with pytest.raises(UsageError, match="start it on its scheduler's host"):
            kept_profile("lab", beside=False, given={})


def test_a_cluster_over_ssh_that_stays_needs_certificates_in_files() -> None:
    """Else no other program could get in."""
    with dask.config.set({"dcompute.clusters": {"nodes": SSH}}):
        with pytest.raises(UsageError, match="has no tls"):
            kept_profile("nodes", beside=False, given={})
        assert kept_profile("nodes", beside=False, given={"tls": "certs"}).tls == "certs"


@pytest.mark.parametrize("host", ["-oProxyCommand=evil", "two words", ""])
def test_a_host_cannot_be_an_option_of_ssh(host: str) -> None:
    """What stands in a file of settings is no command."""
    with dask.config.set({"dcompute.clusters": {"nodes": {**SSH, "hosts": [host]}}}), pytest.raises(SettingsError, match="must be a host"):
        profile_of("nodes", {})


def test_the_command_line_of_ssh_has_no_certificate_in_it(tmp_path: Path) -> None:
    """`ps` on any host shows command lines to everybody."""
    ssh = module_of("ssh")
    with dask.config.set(
        {"dcompute.clusters": {"nodes": {**SSH, "environment": {"TOKEN": "hunter2hunter2"}, "ssh-options": ["-p", "22"]}}}
    ):
        profile = profile_of("nodes", {})
    words = ssh._command(profile, "node1")
    assert words[0] == "ssh"
    assert words[-3:-1] == ["--", "node1"]
    assert not any("hunter2" in word or "PEM" in word or "BEGIN" in word for word in words)
    assert "hunter2" not in repr(profile)
    tls.write(tmp_path)
    assert "BEGIN" in ssh.told(tls.of_nodes(tmp_path))["node"][1]
