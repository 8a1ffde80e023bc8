"""Files on a local disk: what is created once, is created whole, for good, or not at all.

A file appears under its name complete and on the disk, by a hard link from a temporary file, which fails where the name exists. Without
hard links a rename that never replaces does it; a file system that has neither is refused.
"""

# ruff: noqa: PTH105, PTH108, PTH116, PTH123
# (these are the system calls before and after each of which a writer can be killed: they are written as such)

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dcompute.dataset.names import FILES, TEMPORARY
from dcompute.errors import StoreError

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES})
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1  # linux/fs.h
_RENAME_EXCL = 4  # sys/stdio.h of macOS


class Disk:
    """Files below a local folder.

    Parameters
    ----------
    root
        Absolute path of the folder; made when the first file is.
    link
        How a file gets its final name: :func:`claim`, and in tests what stands for a file system without hard links.
    """

    def __init__(self, root: str, link: Callable[[str, str], None] | None = None) -> None:
        self.root = root
        self._claim = link or claim

    def path(self, name: str) -> str:
        """The absolute path of a file."""
        return f"{self.root}/{name}" if name else self.root

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        return Path(self.path(name)).read_bytes()

    def open(self, name: str, block: int | None = None, size: int | None = None) -> Any:  # noqa: ARG002
        """A file to be read."""
        return open(self.path(name), "rb")

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        try:
            os.stat(self.path(name))
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return os.stat(self.path(name)).st_size

    def create(self, name: str, data: bytes) -> None:
        """Create a file that does not exist; on the disk before this returns."""
        self._place(name, lambda temporary: _write(temporary, data), self._claim)

    def create_from(self, local: str, name: str) -> None:
        """Create a file that does not exist with the bytes of a local one."""
        self._place(name, lambda temporary: _copy(local, temporary), self._claim)

    def upload(self, local: str, name: str) -> None:
        """Copy a local file to a name that nobody else has; on the disk before this returns."""
        self._place(name, lambda temporary: _copy(local, temporary), os.replace)

    def take(self, local: str, name: str) -> None:
        """As :meth:`upload`; the local file itself where it lies on the same file system: nobody writes to it any more."""
        self._place(name, lambda temporary: _taken(local, temporary), os.replace)

    def write(self, name: str, data: bytes) -> None:
        """Create or replace a file at once; not forced to the disk."""
        path = self.path(name)
        temporary = _temporary(path)
        try:
            _in_folder(path, lambda: _write(temporary, data, sync=False))
            os.replace(temporary, path)
        except BaseException:
            _discard(temporary)
            raise

    def remove(self, names: list[str]) -> None:
        """Remove files; those that are not there are no error."""
        for name in names:
            _discard(self.path(name))
        # those of items lie in folders of their own
        for folder in {Path(name).parent for name in names if name.startswith(f"{FILES}/")}:
            self._remove_empty(folder)

    def names(self, folder: str) -> list[str]:
        """The files in a folder, without those below it and those that are being written."""
        try:
            with os.scandir(self.path(folder)) as entries:
                found = [entry.name for entry in entries if not entry.name.startswith(TEMPORARY) and not entry.is_dir()]
        except FileNotFoundError:
            return []
        return [f"{folder}/{name}" if folder else name for name in found]

    def sync(self, folder: str) -> None:
        """Have the names in a folder on the disk, whoever made them."""
        with contextlib.suppress(FileNotFoundError):
            _sync_folder(self.path(folder))

    def _remove_empty(self, folder: Path) -> None:
        while str(folder) not in (FILES, "."):
            try:
                Path(self.path(str(folder))).rmdir()
            except FileNotFoundError:
                pass
            except OSError:  # something is in it
                return
            folder = folder.parent

    def _place(self, name: str, fill: Callable[[str], None], place: Callable[[str, str], None]) -> None:
        path = self.path(name)
        temporary = _temporary(path)
        try:
            _in_folder(path, lambda: fill(temporary))
            place(temporary, path)
        except FileExistsError:
            # who loses goes on with what the winner wrote: its name must be there after a power cut too
            _sync_folder(str(Path(path).parent))
            raise
        finally:
            _discard(temporary)
        _sync_folder(str(Path(path).parent))


def claim(temporary: str, path: str) -> None:
    """Give a file its final name unless that exists.

    Raises
    ------
    FileExistsError
        The name is somebody else's.
    StoreError
        The file system can do it in neither way.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        if not _is_ours(temporary, path):
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        rename_exclusively(temporary, path)


def rename_exclusively(source: str, target: str) -> None:
    """Rename a file, never replacing another.

    Raises
    ------
    FileExistsError
        The target exists.
    StoreError
        This system or file system cannot do it.
    """
    code = _rename(os.fsencode(source), os.fsencode(target))
    if code == 0:
        return
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
        raise StoreError(
            f"the file system at {Path(target).parent} has neither hard links nor a rename that never replaces a file, so two drivers "
            "could overwrite each other's commits: put the dataset on another file system or an object store"
        )
    raise OSError(code, os.strerror(code), target)


def _rename(source: bytes, target: bytes) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        result = library.renamex_np(source, target, _RENAME_EXCL)
    elif hasattr(library, "renameat2"):
        result = library.renameat2(_AT_FDCWD, source, _AT_FDCWD, target, _RENAME_NOREPLACE)
    else:
        return errno.ENOSYS
    return 0 if result == 0 else ctypes.get_errno()


def _is_ours(temporary: str, path: str) -> bool:
    # a network file system repeats a link whose answer was lost, and then says that the name exists
    try:
        return os.path.samestat(os.stat(temporary), os.stat(path))
    except OSError:
        return False


def _temporary(path: str) -> str:
    folder, _, _ = path.rpartition("/")
    return f"{folder}/{TEMPORARY}{secrets.token_hex(8)}"


def _in_folder(path: str, act: Callable[[], None]) -> None:
    try:
        act()
    except FileNotFoundError:
        # another writer may have made it since: no matter
        _make_folder(Path(path).parent)
        act()


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    if not folder.parent.exists():
        _make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    _sync_folder(str(folder.parent))


def _write(path: str, data: bytes, sync: bool = True) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(local: str, path: str) -> None:
    with open(local, "rb") as source, open(path, "xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())


def _taken(local: str, path: str) -> None:
    with open(local, "rb") as source:
        os.fsync(source.fileno())
    try:
        os.link(local, path)
    except OSError as error:
        if error.errno not in _NO_LINKS and error.errno != errno.EACCES:
            raise
        _copy(local, path)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network file systems have nothing to do here and say so
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def _discard(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
