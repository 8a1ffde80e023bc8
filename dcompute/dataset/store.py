"""A folder on fsspec storage whose files are created exclusively and for good, or not at all.

Which way of exclusive creation a storage has is declared here, never guessed: local disk by hard links (``disk.py``), ``memory://`` by a
lock of the process, S3, Azure and GCS by a conditional write (``remote.py``). Any other storage is refused until somebody has proved one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from dcompute.dataset.clients import PROTOCOLS, client_of, how_to_install, options_of
from dcompute.dataset.disk import Disk
from dcompute.dataset.names import new_id
from dcompute.dataset.pace import Pace
from dcompute.dataset.reader import Reader
from dcompute.errors import DcomputeError, MissingExtraError, StoreError, UsageError
from dcompute.secrecy import hidden, secrets_in

if TYPE_CHECKING:
    from dcompute.dataset.remote import Objects

L = TypeVar("L", bound=Collection[Any])
T = TypeVar("T")

LOCAL = "file"
MEMORY = "memory"


class Backend(Protocol):
    """The operations of one kind of storage; they raise what that raises."""

    def path(self, name: str) -> str: ...  # noqa: D102
    def read(self, name: str) -> bytes: ...  # noqa: D102
    def open(self, name: str, block: int | None = None, size: int | None = None) -> Any: ...  # noqa: D102
    def exists(self, name: str) -> bool: ...  # noqa: D102
    def size(self, name: str) -> int: ...  # noqa: D102
    def create(self, name: str, data: bytes) -> None: ...  # noqa: D102
    def create_from(self, local: str, name: str) -> None: ...  # noqa: D102
    def upload(self, local: str, name: str) -> None: ...  # noqa: D102
    def take(self, local: str, name: str) -> None: ...  # noqa: D102
    def write(self, name: str, data: bytes) -> None: ...  # noqa: D102
    def remove(self, names: list[str]) -> None: ...  # noqa: D102
    def names(self, folder: str) -> list[str]: ...  # noqa: D102
    def sync(self, folder: str) -> None: ...  # noqa: D102


class Store:
    """The storage of one dataset. Cheap to copy and to pickle, safe to use from any thread.

    Every error of the storage is a :class:`~dcompute.errors.StoreError` with the storage's own error as its cause, but for a file that is
    not there (``FileNotFoundError``) and one that is there already (``FileExistsError``).
    """

    def __init__(self, url: str, protocol: str, storage_options: Mapping[str, Any]) -> None:
        self.url = url  #: with the protocol; a local one is an absolute path; never with a secret
        self.protocol = protocol  #: ``file``, ``memory``, ``s3``, ...
        self.storage_options = dict(storage_options)  #: given by hand, before those of the settings; never shown, never written
        self._fs: Any = None
        self._secrets: frozenset[str] = frozenset()
        self._backend: Backend | None = Disk(url) if protocol == LOCAL else None
        self._lock = threading.Lock()

    @classmethod
    def at(cls, url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Store:
        """The storage at a URL or local path; nothing is read or written.

        Parameters
        ----------
        url
            A local path (made absolute, ``~`` is your home), or a URL that fsspec knows.
        storage_options
            For fsspec: credentials, endpoint; they count before those of the settings (``dcompute.storage``).

        Raises
        ------
        StoreError
            The storage has no proven exclusive creation, or the URL holds a secret.
        """
        text = os.fspath(url)
        protocol, rest = _split(text)
        if protocol == LOCAL:
            return cls(os.path.abspath(Path(rest).expanduser()), LOCAL, {})  # noqa: PTH100  resolves "..", and no links
        if protocol != MEMORY and protocol not in PROTOCOLS:
            raise StoreError(
                f"{protocol}:// has no exclusive creation that dcompute has proved, so two drivers could overwrite each other's commits: "
                "put the dataset on a local or shared disk, S3, Azure or Google storage"
            )
        _refuse_secrets(text)
        return cls(text.rstrip("/"), protocol, storage_options or {})

    @classmethod
    def named(cls, dataset: Any, storage_options: Mapping[str, Any] | None = None) -> Store:
        """The storage that a person names as a dataset's place.

        Raises
        ------
        UsageError
            It names no place.
        StoreError
            It is a file, or as :meth:`at`.
        """
        try:
            store = cls.at(dataset, storage_options)
        except TypeError as error:
            raise UsageError(
                f"dataset={dataset!r} is no path and no URL: say where the outcomes are, such as 'results' or 's3://lab/flux'"
            ) from error
        if not str(dataset).strip():
            raise UsageError(f"dataset={dataset!r} names no place: say a folder or a URL, such as 'results' or 's3://lab/flux'")
        for path in (Path(store.url), *Path(store.url).parents) if store.is_local else ():
            if os.path.isfile(path):  # noqa: PTH113  where nobody may look it is no file
                raise StoreError(f"{path} is a file, and a dataset is a folder: name another place")
        return store

    @property
    def is_local(self) -> bool:
        """On a disk that this machine has mounted."""
        return self.protocol == LOCAL

    @property
    def is_memory(self) -> bool:
        """In the memory of this process: other processes do not see it."""
        return self.protocol == MEMORY

    @property
    def requests(self) -> int:
        """Requests made so far to an object store; 0 for a disk or memory."""
        return int(getattr(self._backend, "requests", 0))

    @property
    def failures(self) -> int:
        """How many of these had no answer: where one had none, a server may have been killed; 0 for a disk or memory."""
        return int(getattr(self._backend, "failures", 0))

    @property
    def fs(self) -> Any:
        """The fsspec file system."""
        if self._fs is None:
            self._fs = self._guard("open", "", self._file_system)
        return self._fs

    @property
    def root(self) -> str:
        """The folder's path in :attr:`fs`."""
        return self.path("")

    def path(self, name: str) -> str:
        """The path of a file for :attr:`fs` and pyarrow."""
        return self._files.path(name)

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises
        ------
        FileNotFoundError
            There is none.
        """
        return self._guard("read", name, lambda: self._files.read(name))

    @contextlib.contextmanager
    def stream(self, name: str, block_size: int | None = None, size: int | None = None) -> Iterator[Reader]:
        """A binary file to be read in pieces, so many bytes at a time; who knows its size saves an object store a request.

        Raises
        ------
        FileNotFoundError
            There is none.
        """
        with self._guard("read", name, lambda: self._files.open(name, block_size, size)) as file:
            yield Reader(file, lambda act: self._guard("read", name, act))

    def read_or_none(self, name: str) -> bytes | None:
        """The bytes of a file, or None where there is none."""
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self._guard("look for", name, lambda: self._files.exists(name))

    def size(self, name: str) -> int:
        """Bytes of a file; raises ``FileNotFoundError`` where there is none."""
        return self._guard("look for", name, lambda: self._files.size(name))

    def names(self, folder: str) -> list[str]:
        """The files in a folder as they are now, sorted, named from the dataset on; none where there is no folder."""
        return sorted(self._guard("list", folder, lambda: self._files.names(folder)))

    def listed(self, act: Callable[[], L], *, deep: bool = False) -> L:
        """What ``act`` returns, which lists by :attr:`fs` the files in a folder, or in all below it too: counted as all other requests."""
        return act() if self.is_local or self.is_memory else cast("Objects", self._files).listed(act, deep=deep)

    @contextlib.contextmanager
    def paced(self, per_second: float) -> Iterator[None]:
        """Have this object make no more than so many requests a second to an object store, as long as the block."""
        if self.is_local or self.is_memory:
            yield
            return
        files = cast("Objects", self._files)
        before, files.pace = files.pace, Pace(per_second)
        try:
            yield
        finally:
            files.pace = before

    def create(self, name: str, data: bytes) -> None:
        """Create a file exclusively, whole, and for good before this returns.

        Raises
        ------
        FileExistsError
            There is one of this name; it is on the disk.
        StoreError
            The storage failed; whether the file was created is not known.
        """
        self._guard("create", name, lambda: self._files.create(name, data), new=True)

    def create_from(self, local_path: str | os.PathLike[str], name: str) -> None:
        """Create a file exclusively, as :meth:`create` does, with the bytes of a local file."""
        self._guard("create", name, lambda: self._files.create_from(_local(local_path), name), new=True)

    def upload(self, local_path: str | os.PathLike[str], name: str) -> None:
        """Copy a local file to a name that nobody else has; for good before this returns."""
        self._guard("write", name, lambda: self._files.upload(_local(local_path), name), new=True)

    def take(self, local_path: str | os.PathLike[str], name: str) -> None:
        """As :meth:`upload`; on a disk the local file itself may become the dataset's: nobody writes to it any more."""
        self._guard("write", name, lambda: self._files.take(_local(local_path), name), new=True)

    def upload_all(self, files: Sequence[tuple[str | os.PathLike[str], str]]) -> None:
        """Copy local files to names that nobody else has, a few at once; after an error some of them are there."""
        from dcompute.dataset.remote import together

        together(lambda file: self.upload(*file), files)

    def take_all(self, files: Sequence[tuple[str | os.PathLike[str], str]]) -> None:
        """:meth:`take` files, a few at once; after an error some of them are there."""
        from dcompute.dataset.remote import together

        together(lambda file: self.take(*file), files)

    def write(self, name: str, data: bytes) -> None:
        """Create or replace a file at once, for hints: a power cut may bring back what was there."""
        self._guard("write", name, lambda: self._files.write(name, data), new=True)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are no error."""
        listed = list(names)
        self._guard("remove", ", ".join(listed[:3]), lambda: self._files.remove(listed))

    def sync(self, folder: str) -> None:
        """Have the names in a folder outlive a power cut, whoever made them."""
        self._guard("write", folder, lambda: self._files.sync(folder))

    def prove(self) -> None:
        """Create a probe twice: the second time must fail.

        Raises
        ------
        StoreError
            The storage cannot be written, or takes the condition and ignores it.
        """
        name = f"probe-{new_id()}.json"
        first, second = b'{"probe": 1}\n', b'{"probe": 2}\n'
        try:
            # nobody else has this name: one that is there was made by a request whose answer was lost
            with contextlib.suppress(FileExistsError):
                self.create(name, first)
            try:
                self.create(name, second)
            except FileExistsError:
                if self.read(name) == first:
                    return
            raise StoreError(
                f"the storage at {self.url} takes exclusive creation and ignores it: a second writer overwrote the first one's file. "
                "Two drivers could overwrite each other's commits there: put the dataset elsewhere, or update the storage's server"
            )
        finally:
            self.remove([name])

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Store, (self.url, self.protocol, self.storage_options))

    @property
    def _files(self) -> Backend:
        return self._backend or self._connected()

    def _connected(self) -> Backend:
        with self._lock:  # threads that come first at once would each count on a backend of their own
            if self._backend is None:
                from dcompute.dataset.remote import Memory, Objects

                fs = self.fs
                root = fs._strip_protocol(self.url)
                self._backend = Memory(fs, root) if self.is_memory else Objects(client_of(self.protocol, fs), fs, root)
            return self._backend

    def _file_system(self) -> Any:
        import fsspec

        if self.is_local or self.is_memory:
            return fsspec.filesystem(self.protocol)
        from dcompute.config import storage_options

        # asked for in each process: what the settings hold is in no task and in no pickle
        options = {**storage_options(self.url), **self.storage_options}
        self._secrets = secrets_in(options)
        try:
            return fsspec.filesystem(self.protocol, **options_of(self.protocol, options))
        except ImportError as error:
            raise MissingExtraError(how_to_install(self.protocol)) from error

    def _guard(self, verb: str, name: str, act: Callable[[], T], *, new: bool = False) -> T:
        try:
            return act()
        except DcomputeError:
            raise
        except FileExistsError as error:
            if new:
                raise
            raise self._failed(verb, name, error) from error
        except FileNotFoundError as error:
            if not new:
                raise
            raise self._failed(verb, name, error) from error
        except Exception as error:  # storage clients raise what they like
            raise self._failed(verb, name, error) from error

    def _failed(self, verb: str, name: str, error: Exception) -> StoreError:
        where = f"{self.url}/{name}" if name else self.url
        return StoreError(f"could not {verb} {where}: {hidden(_reason(error), self._secrets)}")


def _split(text: str) -> tuple[str, str]:
    if "::" in text:
        raise StoreError(f"{text.partition('://')[0]}: a dataset cannot lie behind a chained URL: give the storage's own URL")
    protocol, separator, rest = text.partition("://")
    if not separator:
        return LOCAL, text.removeprefix("file:")
    if protocol in (LOCAL, "local"):
        return LOCAL, rest
    return protocol, rest


def _refuse_secrets(url: str) -> None:
    parts = urlsplit(url)
    if parts.password is not None or parts.query:
        raise StoreError(f"the URL of the dataset on {parts.hostname} holds a password or a token: pass it in storage_options=")


def _local(path: str | os.PathLike[str]) -> str:
    return os.fspath(path)


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"no permission ({error}). Ask for the right to write there, or put the dataset elsewhere"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "no space is left there. Free some, then run the same line again"
    return f"{type(error).__name__}: {error}"
