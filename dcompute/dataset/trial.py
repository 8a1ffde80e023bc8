"""Trying a storage out and leaving nothing behind: exclusive creation, what is written is read, and how fast."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dcompute.dataset.names import new_id
from dcompute.dataset.store import Store
from dcompute.errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of it."""

    bytes: int
    write_seconds: float
    read_seconds: float


def tried(store: Store, size: int) -> Trial:
    """Create a file exclusively, twice, then write and read so many bytes; all of it is removed.

    Raises
    ------
    StoreError
        What does not work, or gives other bytes than were written.
    """
    with no_traces(store):
        store.prove()
        name, data = f"probe-{new_id()}.bin", os.urandom(size)
        try:
            began = time.monotonic()
            with contextlib.suppress(FileExistsError):  # nobody else has this name: the answer was lost
                store.create(name, data)
            written = time.monotonic()
            found = store.read(name)
            read = time.monotonic()
        finally:
            store.remove([name])
        if found != data:
            raise StoreError(
                f"the storage at {store.url} gave other bytes than were written to it: look after it before anything is kept there"
            )
        return Trial(bytes=size, write_seconds=written - began, read_seconds=read - written)


@contextlib.contextmanager
def no_traces(store: Store) -> Iterator[None]:
    """Remove in the end the folders on a disk that were made meanwhile, where nothing is in them."""
    missing = []
    if store.is_local:
        for folder in (Path(store.url), *Path(store.url).parents):
            if folder.exists():
                break
            missing.append(folder)
    try:
        yield
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # somebody has put something there
                folder.rmdir()
