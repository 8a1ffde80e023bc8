"""Claims: what one worker process has of its host, so that no other one has it too.

A claim is a lock on a file in a folder that all workers of the host share. The kernel frees it when the last process is gone that holds it:
the worker, its guardian, and the child that uses the device.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from dcompute.errors import ClusterError
from dcompute.worker import system

#: Seconds for which a claim is waited for whose holder is dead: what it started is being killed.
DYING = 10.0
_LOOK_EVERY = 0.05


class Claims:
    """The claims of this process.

    Parameters
    ----------
    folder
        That all workers of the host share; made where it is not there.
    sleep
        How it waits for a process that is dying.
    """

    def __init__(self, folder: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._folder = Path(folder)
        self._sleep = sleep
        self._held: dict[str, int] = {}

    def claim(self, name: str, patience: float = 0.0) -> bool:
        """Take what has this name; False where others have it, who get so many seconds where the process that claimed it is dead."""
        if name in self._held:
            return True
        descriptor = self._open(name)
        looks = round(patience / _LOOK_EVERY)
        while not _locked(descriptor):
            looks -= 1
            if looks < 0 or _holder_lives(descriptor):
                os.close(descriptor)
                return False
            self._sleep(_LOOK_EVERY)
        _sign(descriptor)
        self._held[name] = descriptor
        return True

    def descriptor(self, name: str) -> int:
        """The file that holds a claim, for those who use what is claimed to hold it too."""
        return self._held[name]

    def give_up(self, name: str) -> None:
        """Leave it to others, as soon as nobody below this process holds it."""
        descriptor = self._held.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def _open(self, name: str) -> int:
        try:
            return self._file(name)
        except OSError as error:
            raise ClusterError(
                f"nothing can be claimed in {self._folder} ({error}): name a folder that all workers of this host can write to in the "
                "setting dcompute.worker.claims"
            ) from error

    def _file(self, name: str) -> int:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # workers of other users come here too
                self._folder.chmod(0o1777)
        path = self._folder / f"{quote(name, safe='')}.lock"
        # without O_CREAT first: in a folder of all, some systems let nobody create what another user has
        with contextlib.suppress(FileNotFoundError):
            return _opened(path, os.O_RDWR)
        with contextlib.suppress(FileExistsError):
            descriptor = _opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, 0o666)
            return descriptor
        return _opened(path, os.O_RDWR)


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sign(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # another user's file, which may be locked all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _holder_lives(descriptor: int) -> bool:
    """Whether the process that claimed it is there still; true where nobody can tell."""
    try:
        return system.is_alive(int(os.pread(descriptor, 32, 0)))
    except (OSError, ValueError):
        return True
