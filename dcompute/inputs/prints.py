"""Fingerprints of files: 16 digits of what their storage says of them, then 16 more of that, or of their content where that is asked for.

The content is read for files that are executed, and to decide whether a file that its storage calls changed did change. So a file that was
touched is not done again, and one that nobody touched is not read.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dcompute.keys import digest_of
from dcompute.records import Item, ItemKey

log = logging.getLogger("dcompute.inputs")

_HALF = 16
#: In place of the content's digits while it was not read.
_UNREAD = "0" * _HALF
_LOCAL_THREADS = 4
_REMOTE_THREADS = 16


def unread(stamp: str) -> str:
    """The fingerprint of a file whose content is to be read yet."""
    return stamp[:_HALF] + _UNREAD


class Prints:
    """What tells whether files changed.

    Parameters
    ----------
    content
        Whether a file that its storage calls changed is read before it is believed.
    settling
        Whether files that change between their listing and the plan are left alone.
    options
        For the file systems of URLs.
    """

    def __init__(self, *, content: bool, settling: bool, options: Mapping[str, Any]) -> None:
        self._content = content
        self._settling = settling
        self._options = options
        self._is_told = False

    def is_same(self, now: str, before: str) -> bool:
        """Whether two fingerprints of a file are of one state of it: by its storage, or by its content where that of both is known."""
        return now[:_HALF] == before[:_HALF] or (now[_HALF:] == before[_HALF:] and now[_HALF:] != _UNREAD)

    def completed(self, items: Sequence[Item]) -> list[Item]:
        """The items with fingerprints that tell their content, where that is asked for; one that cannot be read stays as it is."""
        unread = [place for place, item in enumerate(items) if item.fingerprint.endswith(_UNREAD)] if self._content else []
        found = list(items)
        if not unread:
            return found
        values = [str(found[place].value) for place in unread]
        threads = min(len(values), _REMOTE_THREADS if "://" in values[0] else min(_LOCAL_THREADS, os.cpu_count() or 1))
        with ThreadPoolExecutor(threads, thread_name_prefix="dcompute-content") as pool:
            for place, digits in zip(unread, pool.map(self._digits, values), strict=True):
                found[place] = found[place]._replace(fingerprint=found[place].fingerprint[:_HALF] + digits)
        return found

    def growing(self, items: Sequence[Item]) -> set[int]:
        """Places of local files that changed since they were listed; nothing where that does not matter."""
        return {place for place, item in enumerate(items) if _is_other(item)} if self._settling else set()

    def _digits(self, path: str) -> str:
        try:
            with self._opened(path) as file:
                return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_HALF // 2)).hexdigest()
        except Exception as error:  # noqa: BLE001  whatever its storage raises: the item meets it too, and fails with it
            if not self._is_told:
                log.warning(
                    "%s cannot be read for its fingerprint (%s: %s): such files go by what their storage says of them",
                    path,
                    type(error).__name__,
                    error,
                    extra={"action": "content_unread"},
                )
                self._is_told = True
            return _UNREAD

    def _opened(self, path: str) -> AbstractContextManager[Any]:
        if "://" not in path:
            return Path(path).open("rb")
        import fsspec

        from dcompute.config import storage_options

        # what the program listed before may be what it remembers of a file's size
        options = {"use_listings_cache": False, **storage_options(path), **self._options}
        file: AbstractContextManager[Any] = fsspec.open(path, "rb", **options)
        return file


def _is_other(item: Item) -> bool:
    path = str(item.value)
    if "://" in path:
        return False  # an object is there whole, or not at all
    try:
        status = Path(path).stat()
    except OSError:
        return False  # the item itself says so
    return stamp_of(status).hex()[:_HALF] != item.fingerprint[:_HALF]


def stamp_of(status: os.stat_result) -> bytes:
    """What a local disk says of a file."""
    return stamp(status.st_size, status.st_mtime_ns)


def stamp(*parts: object) -> bytes:
    """What a storage says of a file, as 16 bytes."""
    return bytes.fromhex(digest_of(ItemKey(" ".join(map(str, parts)), "file")))
