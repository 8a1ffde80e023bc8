"""Files that are not on a local disk: in the memory of this process, and in object stores with a conditional write."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dcompute.dataset.pace import Pace
from dcompute.dataset.patience import insist, may_pass
from dcompute.dataset.reader import BLOCK, Blocks

if TYPE_CHECKING:
    from dcompute.dataset.clients import Client

A = TypeVar("A")
L = TypeVar("L", bound=Collection[Any])
T = TypeVar("T")

#: Requests of one process to an object store that are made at once, where there are several to make.
_TOGETHER = 8
# fsspec's memory file system is one for all of a process
_MEMORY_LOCK = threading.RLock()


class Memory:
    """Files of fsspec's ``memory://``: of this process, whatever thread."""

    def __init__(self, fs: Any, root: str) -> None:
        self.fs = fs
        self.root = root

    def path(self, name: str) -> str:
        """The path of a file in the file system."""
        return f"{self.root}/{name}" if name else self.root

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with _MEMORY_LOCK:
            return bytes(self.fs.cat_file(self.path(name)))

    def open(self, name: str, block: int | None = None, size: int | None = None) -> Any:  # noqa: ARG002
        """A file to be read."""
        return self.fs.open(self.path(name), "rb")

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        with _MEMORY_LOCK:
            return bool(self.fs.isfile(self.path(name)))

    def size(self, name: str) -> int:
        """Bytes of a file."""
        with _MEMORY_LOCK:
            return int(self.fs.info(self.path(name))["size"])

    def create(self, name: str, data: bytes) -> None:
        """Create a file that does not exist."""
        with _MEMORY_LOCK:
            if self.fs.exists(self.path(name)):
                raise FileExistsError(errno.EEXIST, "exists", self.path(name))
            self.fs.pipe_file(self.path(name), bytes(data))

    def create_from(self, local: str, name: str) -> None:
        """Create a file that does not exist with the bytes of a local one."""
        self.create(name, Path(local).read_bytes())

    def upload(self, local: str, name: str) -> None:
        """Copy a local file to a name that nobody else has."""
        self.write(name, Path(local).read_bytes())

    def take(self, local: str, name: str) -> None:
        """As :meth:`upload`."""
        self.upload(local, name)

    def write(self, name: str, data: bytes) -> None:
        """Create or replace a file."""
        with _MEMORY_LOCK:
            self.fs.pipe_file(self.path(name), bytes(data))

    def remove(self, names: list[str]) -> None:
        """Remove files; those that are not there are no error."""
        with _MEMORY_LOCK:
            for name in names:
                if self.fs.isfile(self.path(name)):
                    self.fs.rm_file(self.path(name))

    def names(self, folder: str) -> list[str]:
        """The files in a folder, without those below it."""
        with _MEMORY_LOCK:
            try:
                found = self.fs.ls(self.path(folder), detail=True)
            except FileNotFoundError:
                return []
        return _files(found, folder)

    def sync(self, folder: str) -> None:
        """Nothing: memory has no power cut to outlive."""


class Objects:
    """Files in an object store with a conditional write (S3, Azure, GCS).

    Parameters
    ----------
    client
        Speaks to the store.
    fs
        The file system that the client speaks through.
    root
        The folder's path in it, bucket first.
    sleep
        How it waits before it repeats a request.
    """

    def __init__(self, client: Client, fs: Any, root: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.fs = fs
        self.root = root
        self.requests = 0  #: made so far; those that the client repeats by itself are not counted
        self.failures = 0  #: requests that had no answer, or one that says to come back
        self.pace: Pace | None = None  #: at which they are made; None: as they come
        self._client = client
        self._sleep = sleep
        self._lock = threading.Lock()

    def path(self, name: str) -> str:
        """The path of a file in the file system, bucket first."""
        return f"{self.root}/{name}" if name else self.root

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        data = self._ask(lambda: self._client.read(self.path(name)))
        self._count(self._client.reads(len(data)) - 1)
        return data

    def open(self, name: str, block: int | None = None, size: int | None = None) -> Any:
        """A file to be read in blocks."""

        def fetch(start: int, stop: int) -> bytes:
            data = self._ask(lambda: self._client.piece(self.path(name), start, stop))
            self._count(self._client.reads(len(data)) - 1)
            return data

        return Blocks(fetch, lambda: self.size(name), size, block or BLOCK)

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._ask(lambda: self._client.size(self.path(name)))

    def create(self, name: str, data: bytes) -> None:
        """Create a file that does not exist."""
        tries = 0
        whole = bytes(data)

        def create() -> None:
            nonlocal tries
            tries += 1
            self._client.create(self.path(name), whole)

        try:
            self._ask(create, self._client.requests(len(whole), file=False))
        except FileExistsError:
            # the answer of an earlier try was lost: what it made is there
            if tries == 1 or self.read(name) != whole:
                raise

    def create_from(self, local: str, name: str) -> None:
        """Create a file that does not exist with the bytes of a local one."""
        self.create(name, Path(local).read_bytes())

    def upload(self, local: str, name: str) -> None:
        """Copy a local file to a name that nobody else has."""
        self._ask(lambda: self._client.upload(local, self.path(name)), self._client.requests(Path(local).stat().st_size, file=True))

    def take(self, local: str, name: str) -> None:
        """As :meth:`upload`."""
        self.upload(local, name)

    def write(self, name: str, data: bytes) -> None:
        """Create or replace a file."""
        self._ask(lambda: self._client.put(self.path(name), bytes(data)), self._client.requests(len(data), file=False))

    def remove(self, names: list[str]) -> None:
        """Remove files; those that are not there are no error."""
        together(self._remove, names)

    def names(self, folder: str) -> list[str]:
        """The files in a folder, without those below it."""
        path = self.path(folder)
        try:
            found = self.listed(lambda: self._list(path))
        except FileNotFoundError:
            return []
        # some servers keep an empty folder as a file of its own name
        return _files([info for info in found if info["name"].strip("/") != path.strip("/")], folder)

    def sync(self, folder: str) -> None:
        """Nothing: what an object store has answered for is there."""

    def listed(self, act: Callable[[], L], *, deep: bool = False) -> L:
        """What ``act`` returns, which lists the files in a folder, or in all below it too."""
        count = 0
        try:
            found = self._ask(act)
            count = len(found)
        finally:
            self._count(self._client.lists(count, deep=deep) - 1)
        return found

    def _list(self, path: str) -> list[dict[str, Any]]:
        self.fs.invalidate_cache()
        found: list[dict[str, Any]] = self.fs.ls(path, detail=True)
        return found

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask(lambda: self._client.remove(self.path(name)))

    def _ask(self, act: Callable[[], T], requests: int = 1) -> T:
        def ask() -> T:
            if (pace := self.pace) is not None:
                self._sleep(pace.pause(requests))
            self._count(requests)
            try:
                return act()
            except Exception as error:
                if may_pass(error):
                    with self._lock:
                        self.failures += 1
                raise

        return ask() if self._client.repeats else insist(ask, sleep=self._sleep)

    def _count(self, requests: int) -> None:
        with self._lock:
            self.requests += requests


def together(act: Callable[[A], object], things: Sequence[A]) -> None:
    """Do the same with several things, a few at once; the first error of one, when all have ended, is raised."""
    if len(things) < 2:
        for thing in things:
            act(thing)
        return
    with ThreadPoolExecutor(min(_TOGETHER, len(things)), thread_name_prefix="dcompute-store") as pool:
        futures = [pool.submit(act, thing) for thing in things]
    for future in futures:
        future.result()


def _files(found: list[dict[str, Any]], folder: str) -> list[str]:
    bases = [info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "file"]
    return [f"{folder}/{base}" if folder else base for base in bases]
