"""Files that are not on a local disk: in the memory of this process, and in object stores with a conditional write."""

from __future__ import annotations

import contextlib
import errno
import threading
from pathlib import Path
from typing import Any

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
    """Files in an object store that honours ``If-None-Match: *`` (S3, Azure, GCS)."""

    def __init__(self, fs: Any, root: str) -> None:
        self.fs = fs
        self.root = root

    def path(self, name: str) -> str:
        """The path of a file in the file system, bucket first."""
        return f"{self.root}/{name}" if name else self.root

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        return bytes(self.fs.cat_file(self.path(name)))

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        self._forget(name)
        return bool(self.fs.exists(self.path(name)))

    def size(self, name: str) -> int:
        """Bytes of a file."""
        self._forget(name)
        return int(self.fs.info(self.path(name))["size"])

    def create(self, name: str, data: bytes) -> None:
        """Create a file that does not exist."""
        try:
            self.fs.pipe_file(self.path(name), bytes(data), mode="create")
        except FileExistsError:
            raise
        except OSError as error:
            # s3fs 2026.9 says EINVAL for a failed precondition, and for many other things: the name itself must say
            if error.errno == errno.EINVAL and self.exists(name):
                raise FileExistsError(errno.EEXIST, "exists", self.path(name)) from error
            raise

    def create_from(self, local: str, name: str) -> None:
        """Create a file that does not exist with the bytes of a local one."""
        self.create(name, Path(local).read_bytes())

    def upload(self, local: str, name: str) -> None:
        """Copy a local file to a name that nobody else has."""
        self.fs.put_file(local, self.path(name))

    def write(self, name: str, data: bytes) -> None:
        """Create or replace a file."""
        self.fs.pipe_file(self.path(name), bytes(data))

    def remove(self, names: list[str]) -> None:
        """Remove files; those that are not there are no error."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(self.path(name))

    def names(self, folder: str) -> list[str]:
        """The files in a folder, without those below it."""
        self.fs.invalidate_cache()
        try:
            return _files(self.fs.ls(self.path(folder), detail=True), folder)
        except FileNotFoundError:
            return []

    def sync(self, folder: str) -> None:
        """Nothing: what an object store has answered for is there."""

    def _forget(self, name: str) -> None:
        self.fs.invalidate_cache(self.path(name).rpartition("/")[0])


def _files(found: list[dict[str, Any]], folder: str) -> list[str]:
    bases = [info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "file"]
    return [f"{folder}/{base}" if folder else base for base in bases]
