"""What stands between a storage's client and its server: it counts requests, throttles, loses answers, and lets a test act."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.servers import Server

_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'
)
#: Headers between two neighbours only.
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "expect", "content-length"})


@dataclass(frozen=True, slots=True)
class Seen:
    """One request."""

    at: float  #: seconds on the monotonic clock
    method: str
    path: str  #: decoded, with what follows the ``?``

    @property
    def is_listing(self) -> bool:
        """Whether it asks what a folder holds."""
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        bare = urlsplit(self.path).path.rstrip("/")
        listed = query.keys() & {"list-type", "delimiter"} or query.get("comp") == ["list"] or bare.endswith("/o")
        return self.method == "GET" and bool(listed)


@dataclass(slots=True)
class Trouble:
    """What happens to the next requests that match."""

    method: str
    part: str  #: of the path
    how: str  #: ``throttle``: 503 without asking the server; ``act``: the test acts first; ``lose``: done, and the answer is lost
    times: int = 1
    act: Callable[[], None] = lambda: None  #: with ``lose``: before the client sees that its connection ended


class Proxy:
    """A proxy in front of a server; ``server`` is that server as its clients see it through this one."""

    def __init__(self, behind: Server) -> None:
        self.seen: list[Seen] = []
        self.troubles: list[Trouble] = []
        self.behind = behind
        self._lock = threading.Lock()
        self._http = _Listener(("127.0.0.1", 0), self._handler())
        port = self._http.server_port
        options = {name: _moved(value, behind.port, port) for name, value in behind.options.items()}
        self.server = dataclasses.replace(behind, options=options, port=port, process=None)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def trouble(self, how: str, method: str, part: str, times: int = 1, act: Callable[[], None] = lambda: None) -> None:
        """Trouble the next requests of this method whose path has this part."""
        self.troubles.append(Trouble(method, part, how, times, act))

    def listings(self, part: str = "") -> list[str]:
        """Paths of the requests that listed folders."""
        return [one.path for one in self.seen if one.is_listing and part in one.path]

    def note(self, method: str, path: str, body: bytes) -> Trouble | None:
        """Count a request; the trouble that is meant for it."""
        # Google's client writes the name of a small file before its bytes
        told = f"{unquote(path)} {body[:1000].decode(errors='replace')}"
        with self._lock:
            self.seen.append(Seen(time.monotonic(), method, unquote(path)))
            for one in self.troubles:
                if one.times > 0 and one.method == method and one.part in told:
                    one.times -= 1
                    return one
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        return type("Handler", (_Handler,), {"proxy": self})


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or a server that was killed, is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy
    _upstream: http.client.HTTPConnection | None = None

    def _any(self) -> None:
        body = self._body()
        trouble = self.proxy.note(self.command, self.path, body)
        if trouble is not None and trouble.how == "throttle":
            self._answer(503, [("Content-Type", "application/xml"), ("Retry-After", "0")], _SLOW_DOWN)
            return
        if trouble is not None and trouble.how == "act":
            trouble.act()
        try:
            status, headers, answer = self._ask(body)
        except (OSError, http.client.HTTPException):
            self.close_connection = True
            return
        if trouble is not None and trouble.how == "lose":
            trouble.act()
            self.close_connection = True
            return
        self._answer(status, headers, answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _any  # names that http.server looks for

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.behind.port, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            if body or self.command in ("PUT", "POST", "PATCH"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, answer.getheaders(), data
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        length = str(len(data))
        for name, value in headers:
            if self.command == "HEAD" and name.lower() == "content-length":
                length = value
            if name.lower() not in _HOP:
                self.send_header(name, value.replace(f":{self.proxy.behind.port}", f":{self.proxy.server.port}"))
        if status not in (204, 304):
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what was asked is in ``seen``."""


@contextlib.contextmanager
def proxied(behind: Server) -> Iterator[Proxy]:
    """A proxy in front of a server, for as long as the block."""
    proxy = Proxy(behind)
    try:
        yield proxy
    finally:
        proxy.close()


def _moved(value: Any, old: int, new: int) -> Any:
    return value.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}") if isinstance(value, str) else value
