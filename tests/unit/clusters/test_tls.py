"""Certificates: who may show them, who may open the keys, and what is never overwritten."""

from __future__ import annotations

import contextlib
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
import yaml

from dcompute.clusters import tls
from dcompute.errors import SettingsError, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tls") / "certs"
    tls.write(place, ["head", "10.0.0.1"])
    return place


def _shaken(server: ssl.SSLContext, client: ssl.SSLContext) -> bool:
    """Whether these two, as Dask makes them, know each other."""
    one, other = socket.socketpair()
    outcome: list[bool] = []

    def serve() -> None:
        with contextlib.closing(one):
            try:
                with server.wrap_socket(one, server_side=True) as wrapped:
                    outcome.append(wrapped.recv(1) == b"x")
            except (ssl.SSLError, OSError):
                outcome.append(False)

    thread = threading.Thread(target=serve)
    thread.start()
    with contextlib.closing(other):
        try:
            with client.wrap_socket(other) as wrapped:
                wrapped.sendall(b"x")
        except (ssl.SSLError, OSError):
            outcome.append(False)
    thread.join(10)
    return all(outcome)


def test_nodes_and_clients_know_each_other(folder: Path) -> None:
    """Client with scheduler, and worker with scheduler."""
    security = tls.in_folder(folder).security()
    scheduler = security.get_listen_args("scheduler")["ssl_context"]
    assert _shaken(scheduler, security.get_connection_args("client")["ssl_context"])
    assert _shaken(scheduler, security.get_connection_args("worker")["ssl_context"])


def test_another_authority_s_certificates_are_refused(folder: Path, tmp_path: Path) -> None:
    """Both ways: a stranger as a client, and a stranger as a scheduler."""
    tls.write(tmp_path / "others")
    ours, others = tls.in_folder(folder).security(), tls.in_folder(tmp_path / "others").security()
    assert not _shaken(ours.get_listen_args("scheduler")["ssl_context"], others.get_connection_args("client")["ssl_context"])
    assert not _shaken(others.get_listen_args("scheduler")["ssl_context"], ours.get_connection_args("client")["ssl_context"])


def test_a_client_s_certificate_is_no_scheduler_s(folder: Path) -> None:
    """Who has only that one cannot take the scheduler's place."""
    found = tls.in_folder(folder)
    thief = tls.Credentials(ca=found.ca, node=found.client, client=found.client).security()
    client = found.security().get_connection_args("client")["ssl_context"]
    assert not _shaken(thief.get_listen_args("scheduler")["ssl_context"], client)


def test_keys_are_for_their_owner_only(folder: Path) -> None:
    """Whatever the umask is; certificates may be read by others."""
    for name in (tls.CA_KEY, tls.NODE_KEY, tls.CLIENT_KEY):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / tls.CA).stat().st_mode) == 0o644
    assert sorted(path.name for path in folder.iterdir()) == sorted(tls._FILES)


def test_what_is_there_is_overwritten_by_force_only(folder: Path, tmp_path: Path) -> None:
    """One file that is there is enough."""
    (tmp_path / tls.NODE).write_text("mine")
    with pytest.raises(UsageError, match=r"node\.pem.*--force"):
        tls.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [tls.NODE]
    tls.write(tmp_path, force=True)
    assert (tmp_path / tls.NODE).read_text() != "mine"


def test_the_configuration_is_dask_s(folder: Path) -> None:
    """With it a plain Dask program has the same certificates."""
    import dask
    from distributed.security import Security

    given = yaml.safe_load((folder / tls.CONFIGURATION).read_text())
    with dask.config.set(dask.config.merge(dask.config.config, given)):
        security = Security()
        assert dask.config.get("distributed.comm.default-scheme") == "tls"
    assert security.require_encryption
    assert security.tls_client_cert == str(folder / tls.CLIENT)
    ours = tls.in_folder(folder).security()
    assert _shaken(ours.get_listen_args("scheduler")["ssl_context"], security.get_connection_args("client")["ssl_context"])


def test_a_user_s_folder_needs_no_certificates_of_nodes(folder: Path, tmp_path: Path) -> None:
    """It is enough to connect, and not enough to start a worker."""
    for name in (tls.CA, tls.CLIENT, tls.CLIENT_KEY):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    found = tls.in_folder(tmp_path)
    assert found.node is None
    server = tls.in_folder(folder).security().get_listen_args("scheduler")["ssl_context"]
    assert _shaken(server, found.security().get_connection_args("client")["ssl_context"])
    with pytest.raises(SettingsError, match=r"no node\.pem"):
        tls.of_nodes(tmp_path)


def test_a_folder_without_certificates_says_who_makes_them(tmp_path: Path) -> None:
    """And what is missing."""
    with pytest.raises(SettingsError, match=r"no ca\.pem and no client\.pem.*dcompute certs"):
        tls.in_folder(tmp_path)


def test_what_is_in_memory_works_as_files_do(folder: Path) -> None:
    """For members on other hosts, which have no such folder; and nothing of it is in a repr."""
    text = tls.as_text(tls.in_folder(folder))
    assert "PRIVATE" in text.node[1]
    assert "PRIVATE" not in repr(text)
    assert _shaken(
        tls.in_folder(folder).security().get_listen_args("scheduler")["ssl_context"],
        text.security().get_connection_args("worker")["ssl_context"],
    )
