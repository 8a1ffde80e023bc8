"""What each object store's fsspec client is asked, and how: one request where fsspec's own operation takes several or lists a folder.

Each makes a file exclusively by a conditional write: ``If-None-Match: *`` on S3 and Azure, ``ifGenerationMatch=0`` on Google.
"""

from __future__ import annotations

import errno
from typing import Any, Protocol

from dcompute.dataset.patience import cause_status

_MB = 1 << 20


class Client(Protocol):
    """The operations on files of one object store; paths have the bucket first. They raise what the store's client raises."""

    repeats: bool  #: it repeats failed requests by itself, with pauses of its own

    def size(self, path: str) -> int: ...  # noqa: D102
    def read(self, path: str) -> bytes: ...  # noqa: D102
    def piece(self, path: str, start: int, stop: int) -> bytes: ...  # noqa: D102
    def put(self, path: str, data: bytes) -> None: ...  # noqa: D102
    def create(self, path: str, data: bytes) -> None: ...  # noqa: D102
    def upload(self, local: str, path: str) -> None: ...  # noqa: D102
    def remove(self, path: str) -> None: ...  # noqa: D102
    def requests(self, size: int, *, file: bool) -> int: ...  # noqa: D102
    def reads(self, size: int) -> int: ...  # noqa: D102
    def lists(self, count: int, *, deep: bool) -> int: ...  # noqa: D102


class AnyClient:
    """fsspec's operations as they are."""

    repeats = True
    #: Files that one answer to a listing has at most.
    PAGE = 1000
    #: Requests for a listing of one such answer, and where there is nothing: of a folder, and of all below it.
    LISTS = ((1, 1), (1, 1))

    def __init__(self, fs: Any) -> None:
        self.fs = fs

    def size(self, path: str) -> int:
        """Bytes of a file."""
        return int(self.fs.info(path)["size"])

    def read(self, path: str) -> bytes:
        """The bytes of a file."""
        return bytes(self.fs.cat_file(path))

    def piece(self, path: str, start: int, stop: int) -> bytes:
        """The bytes of a file from one place to before another, fewer where it ends before; one GET."""
        try:
            return bytes(self._piece(path, start, stop))
        except Exception as error:
            if cause_status(error) == 416:  # it ends before the first of them
                return b""
            raise

    def put(self, path: str, data: bytes) -> None:
        """Create or replace a file."""
        self.fs.pipe_file(path, data)

    def create(self, path: str, data: bytes) -> None:
        """Create a file that does not exist."""
        try:
            self.fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            raise
        except OSError as error:
            if self._is_taken(error, path):
                raise FileExistsError(errno.EEXIST, "exists", path) from error
            raise

    def upload(self, local: str, path: str) -> None:
        """Copy a local file to a name that nobody else has."""
        self.fs.put_file(local, path)

    def remove(self, path: str) -> None:
        """Remove a file."""
        self.fs.rm_file(path)

    def requests(self, size: int, *, file: bool) -> int:  # noqa: ARG002
        """How many requests it takes to write so many bytes, from memory or from a file."""
        return 1

    def reads(self, size: int) -> int:  # noqa: ARG002
        """How many requests it took to read a file of so many bytes whole."""
        return 1

    def lists(self, count: int, *, deep: bool) -> int:
        """How many requests it took to list so many files, in a folder or in all below it too."""
        return self.LISTS[deep][not count] + max(0, count - 1) // self.PAGE

    def _piece(self, path: str, start: int, stop: int) -> Any:
        return self.fs.cat_file(path, start=start, end=stop)

    def _is_taken(self, error: OSError, path: str) -> bool:
        # s3fs 2026.9 says EINVAL for a failed precondition, and for many other things: the answer, or the name itself, must say
        if error.errno != errno.EINVAL:
            return False
        status = cause_status(error)
        if status is not None:
            return status == 412
        try:
            self.size(path)
        except FileNotFoundError:
            return False
        return True


class S3(AnyClient):
    """s3fs. Its own repetitions are turned off: they take 40 s to say that a server is not there."""

    repeats = False
    #: Where a multipart upload begins and how large its parts are, as in s3fs 2026.9.
    PART = 50 * _MB
    LISTS = ((1, 2), (1, 3))

    def __init__(self, fs: Any) -> None:
        super().__init__(fs)
        fs.retries = 1

    @staticmethod
    def options(given: dict[str, Any]) -> dict[str, Any]:
        """Options for the file system, with botocore's repetitions turned off unless they are asked for."""
        config = {"retries": {"total_max_attempts": 1}, **(given.get("config_kwargs") or {})}
        return {**given, "config_kwargs": config}

    def size(self, path: str) -> int:
        """Bytes of a file; one HEAD."""
        bucket, key, _ = self.fs.split_path(path)
        return int(self.fs.call_s3("head_object", Bucket=bucket, Key=key)["ContentLength"])

    def read(self, path: str) -> bytes:
        """The bytes of a file; one GET, as without this limit s3fs asks for the size first, and lists what is not there."""
        return bytes(self.fs.cat_file(path, max_concurrency=1))

    def requests(self, size: int, *, file: bool) -> int:  # noqa: ARG002
        """One, or a multipart upload."""
        return 1 if size < 2 * self.PART else 2 + -(-size // self.PART)


class Azure(AnyClient):
    """adlfs. Azure's SDK pauses 15 s and more between its repetitions: they are turned off where it can be told so."""

    repeats = False
    #: Azure's SDK writes larger files as blocks of 4 MiB.
    SINGLE, BLOCK = 64 * _MB, 4 * _MB
    #: It reads larger files as blocks too, after a first one of so many bytes.
    FIRST = 32 * _MB
    PAGE = 5000
    LISTS = ((2, 3), (2, 4))

    def size(self, path: str) -> int:
        """Bytes of a file; one HEAD."""
        return int(self._ask(path, "get_blob_properties").size)

    def read(self, path: str) -> bytes:
        """The bytes of a file."""
        return bytes(self._ask(path, "download_blob", whole=True))

    def put(self, path: str, data: bytes) -> None:
        """Create or replace a file."""
        self.fs.pipe_file(path, data, retry_total=0)

    def create(self, path: str, data: bytes) -> None:
        """Create a file that does not exist."""
        self.fs.pipe_file(path, data, mode="create", retry_total=0)

    def upload(self, local: str, path: str) -> None:
        """Copy a local file to a name that nobody else has."""
        self.fs.put_file(local, path, retry_total=0)

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._ask(path, "delete_blob")

    def requests(self, size: int, *, file: bool) -> int:  # noqa: ARG002
        """One, or one for each block."""
        return 1 if size <= self.SINGLE else 1 + -(-size // self.BLOCK)

    def reads(self, size: int) -> int:
        """One, and one for each block after the first."""
        return 1 + max(0, -(-(size - self.FIRST) // self.BLOCK))

    def _piece(self, path: str, start: int, stop: int) -> Any:
        return self._ask(path, "download_blob", whole=True, offset=start, length=stop - start)

    def _ask(self, path: str, operation: str, *, whole: bool = False, **options: Any) -> Any:
        from azure.core.exceptions import ResourceNotFoundError  # type: ignore[import-not-found,unused-ignore]
        from fsspec.asyn import sync

        async def ask() -> Any:
            container, name, _ = self.fs.split_path(path)
            async with self.fs.service_client.get_blob_client(container, name) as blob:
                answer = await getattr(blob, operation)(retry_total=0, **options)
                return await answer.readall() if whole else answer

        try:
            return sync(self.fs.loop, ask)
        except ResourceNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", path) from error


class Google(AnyClient):
    """gcsfs; it repeats by itself for about 30 s."""

    #: gcsfs 2026.10 sends larger files in chunks.
    FILE, CHUNK = 5 * _MB, 50 * _MB
    LISTS = ((1, 2), (1, 2))

    def size(self, path: str) -> int:
        """Bytes of a file; one GET of what is known about it."""
        from fsspec.asyn import sync

        return int(sync(self.fs.loop, self.fs._get_object, path)["size"])

    def requests(self, size: int, *, file: bool) -> int:
        """One, or a resumable upload."""
        return 1 if size < (self.FILE if file else self.CHUNK) else 1 + -(-size // self.CHUNK)


_CLIENTS: dict[str, type[AnyClient]] = {"s3": S3, "abfs": Azure, "gs": Google}
#: Other names of protocols, as fsspec knows them.
_SAME = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}
#: Protocol -> the package that speaks it and our extra that brings it.
_NEEDS = {"s3": ("s3fs", "s3"), "abfs": ("adlfs", "azure"), "gs": ("gcsfs", "gcs")}

#: What fsspec calls the object stores that make files exclusively.
PROTOCOLS = frozenset({*_CLIENTS, *_SAME})


def client_of(protocol: str, fs: Any) -> Client:
    """The client of a protocol."""
    return _CLIENTS[_SAME.get(protocol, protocol)](fs)


def options_of(protocol: str, given: dict[str, Any]) -> dict[str, Any]:
    """Options for fsspec's file system: no listing is remembered, and repetitions are ours."""
    options = {"use_listings_cache": False, **given}
    return S3.options(options) if _SAME.get(protocol, protocol) == "s3" else options


def how_to_install(protocol: str) -> str:
    """What to do where the package that speaks a protocol is missing."""
    package, extra = _NEEDS[_SAME.get(protocol, protocol)]
    return f'a dataset on {protocol}:// needs {package}: pip install "dcompute[{extra}]", here and on every worker'
