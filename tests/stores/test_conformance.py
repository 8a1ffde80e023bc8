"""Every storage passes the kit; what ignores conditions is refused; what fails for a moment is asked again."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dask
import pytest

from dcompute.dataset.listing import below, within
from dcompute.dataset.log import Log, LostRace
from dcompute.dataset.store import Store
from dcompute.errors import StoreError
from dcompute.testing import StoreTests
from tests import servers
from tests.servers import Server
from tests.stores.proxy import Proxy

Place = Callable[[Server], str]
Start = Callable[[Path], contextlib.AbstractContextManager[Server]]

#: Bytes from which on each store's client makes several requests of one file.
_LARGE = {"s3": 100 << 20, "abfs": 65 << 20, "gs": 6 << 20}


def large(server: Server) -> int:
    """More bytes than the client sends in one request; moto takes long for them, and is S3 as SeaweedFS is."""
    return _LARGE[server.url.partition(":")[0]] if server.kind != "moto" else 8 << 20


class TestStores(StoreTests):
    """SeaweedFS, moto, Azurite and fake-gcs-server."""

    @pytest.fixture
    def store(self, server: Server, place: Place) -> Store:
        self.large = large(server)
        return Store.at(place(server), server.options)


@pytest.fixture
def store(proxy: Proxy, place: Place) -> Store:
    """A folder on a server, behind the proxy."""
    return Store.at(place(proxy.server), proxy.server.options)


#: Those of the servers that are quick with large files, and with many.
_QUICK = ["seaweedfs", "azurite", "fake_gcs"]
#: How each store's client writes a file.
_WRITES = {"s3": "PUT", "abfs": "PUT", "gs": "POST"}


def test_throttled_requests_are_repeated(proxy: Proxy, store: Store) -> None:
    """A storage that says "slow down" twice is asked a third time, later; who called it hears nothing."""
    for method, act in (
        (_WRITES[store.protocol], lambda: store.create("log/1", b"1")),
        ("GET", lambda: store.read("log/1")),
        ("DELETE", lambda: store.remove(["log/1"])),
    ):
        proxy.seen.clear()
        proxy.trouble("throttle", method, "", times=2)
        act()
        tried = [one.at for one in proxy.seen if one.method == method]
        assert len(tried) == 3
        assert tried[1] - tried[0] > 0.05
        assert tried[2] - tried[1] > 0.1


def test_answer_that_was_lost_is_no_lost_race(proxy: Proxy, store: Store) -> None:
    """An entry whose writer never heard that it was written counts once, for that writer."""
    log = Log(store)
    proxy.trouble("lose", _WRITES[store.protocol], "log", times=2)
    mine = log.append(1, [])
    assert log.read(1) == mine
    with pytest.raises(LostRace):
        Log(store).append(1, [])


def streamed(store: Store, name: str, size: int | None = None) -> bytes:
    """The end of a file, and then all of it."""
    with store.stream(name, size=size) as file:
        file.seek(-1, io.SEEK_END)
        file.read(1)
        file.seek(0)
        return file.read()


def test_small_operations_are_one_request_each(proxy: Proxy, store: Store) -> None:
    """Nothing is listed but by ``names``, and what the store counts is what the server was asked."""
    store.create("log/1", b"1")
    proxy.seen.clear()
    before = store.requests
    for act in (
        lambda: store.create("log/2", b"2"),
        lambda: store.write("log/3", b"3"),
        lambda: store.read("log/1"),
        lambda: store.read_or_none("log/none"),
        lambda: store.exists("log/1"),
        lambda: store.exists("log/none"),
        lambda: store.size("log/1"),
        lambda: store.remove(["log/3"]),
        lambda: streamed(store, "log/1"),
        lambda: streamed(store, "log/1", 1),
    ):
        act()
    with pytest.raises(FileExistsError):
        store.create("log/1", b"1")
    assert len(proxy.seen) == 11
    assert store.requests - before == 11
    assert proxy.listings() == []
    for folder in ("log", "nothing"):
        store.names(folder)
        within(store, folder)
        below(store, folder)
    assert store.requests - before == len(proxy.seen)
    assert proxy.listings() != []


# moto takes long for large files, and for many: SeaweedFS shows it for S3
@pytest.mark.parametrize("server", _QUICK, indirect=True)
def test_large_files_count_all_their_requests(proxy: Proxy, store: Store, tmp_path: Path) -> None:
    """A file that takes several requests is counted with all of them."""
    file = tmp_path / "large"
    file.write_bytes(bytes(large(proxy.behind) + 1))
    store.upload(file, "results/large")
    assert store.requests == len(proxy.seen) > 1


def test_name_made_by_another_process_is_listed(server: Server, place: Place) -> None:
    """A listing of a folder that was listed before has what another process made since."""
    store = Store.at(place(server), server.options)
    store.create("attempts/1", b"1")
    assert store.names("attempts") == ["attempts/1"]
    code = f"from dcompute.dataset.store import Store; Store.at({store.url!r}, {server.options!r}).create('attempts/2', b'2')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert store.names("attempts") == ["attempts/1", "attempts/2"]


@pytest.mark.parametrize("server", _QUICK, indirect=True)
def test_more_files_than_a_page_are_listed(proxy: Proxy, store: Store, tmp_path: Path) -> None:
    """A folder with more files than one answer has is listed whole, and each answer is a request."""
    (tmp_path / "part").write_bytes(b"rows")
    names = [f"attempts/{number:04d}" for number in range(1010)]
    store.upload_all([(tmp_path / "part", name) for name in names])
    assert store.names("attempts") == names
    store.remove(names)
    assert store.names("attempts") == []
    assert store.requests == len(proxy.seen)


@pytest.mark.parametrize("start", [servers.rclone, servers.s3rver])
def test_servers_that_ignore_conditions_are_refused(start: Start, place: Place, scratch: Path) -> None:
    """A server that takes a conditional write and overwrites is found out by the first write of a dataset, and said to be no good."""
    import dcompute as dc

    with start(scratch) as server:
        store = Store.at(place(server), server.options)
        with pytest.raises(StoreError, match="takes exclusive creation and ignores it"):
            store.prove()
        options = {"dcompute.storage": {server.url: server.options}}
        with dask.config.set(options), pytest.raises(StoreError, match="put the dataset elsewhere"):
            dc.map(abs, [1, 2, 3], f"{place(server)}/refused")


# the other two let everybody in
@pytest.mark.parametrize("server", ["seaweedfs", "azurite"], indirect=True)
def test_error_of_a_storage_does_not_repeat_the_key(server: Server, place: Place, scratch: Path) -> None:
    """A storage that refuses a key is told of without the key."""
    options = {name: value.replace("testsecret", "a-wrong-secret") for name, value in server.options.items()}
    if "connection_string" in options:
        options["connection_string"] = options["connection_string"].replace("AccountKey=", "AccountKey=d3Jvbmcg")
    with pytest.raises(StoreError) as caught:
        Store.at(place(server), options).create("log/1", b"1")
    for secret in ("a-wrong-secret", "d3Jvbmcg"):
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value)
