"""What the tests on real storages share: one server of each kind, and a new folder in it for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server
from tests.stores.proxy import Proxy, proxied

# gcsfs asks a service that no emulator has, for a minute, when it is first used
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


def pytest_configure(config: pytest.Config) -> None:
    # of aiohttp, below all three clients, about large files that they pass on as one piece
    config.addinivalue_line("filterwarnings", "ignore:Sending a large body directly with raw bytes:ResourceWarning")


#: A folder that no other test has.
Place = Callable[[Server], str]


@pytest.fixture(scope="session", params=list(servers.KINDS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server of each kind."""
    with servers.KINDS[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """What stands before the server for one test."""
    with proxied(server) as standing:
        yield standing


@pytest.fixture
def place() -> Place:
    """The URL of a new folder on a server."""
    return lambda server: f"{server.url}/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder for what a server keeps, when a test has one of its own."""
    return tmp_path / "server"
