"""Files as inputs: listed once, sorted, each with a fingerprint; those that changed a moment ago are left alone where that is asked for."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from dcompute.errors import InputError, WorkloadError
from dcompute.inputs.prints import Prints, stamp, stamp_of, unread
from dcompute.inputs.sources import Bunch
from dcompute.resources import parse_seconds
from dcompute.secrecy import shown
from dcompute.summary import counted

_MAGIC = frozenset("*?[")
#: What storages call a checksum, and a time of change, in the order in which they are taken.
_CHECKSUMS = ("ETag", "etag", "e_tag", "md5Hash", "content_md5", "checksum")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "timeModified", "created")


#: What a file's fingerprint may go by.
FINGERPRINTS = ("stat", "content")


class Found(NamedTuple):
    """A file as its storage lists it."""

    path: str
    stamp: bytes  #: what the storage says of it
    changed: float | None  #: when it did, in seconds since 1970; None: the storage does not say


class Files:
    """The files that some patterns match; made by :func:`dcompute.files`.

    They are listed when they are first needed. A file comes as its absolute path, or its URL where it is not local; that is its key too.
    """

    names = None
    distinct = True

    def __init__(
        self,
        patterns: str | PurePath | Iterable[str | PurePath],
        storage_options: Mapping[str, Any] | None = None,
        *,
        fingerprint: str = "stat",
        settle: str | float | timedelta | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        is_one = isinstance(patterns, (str, bytes, PurePath)) or not isinstance(patterns, Iterable)
        given: list[Any] = [patterns] if is_one else list(patterns)  # type: ignore[arg-type]
        for pattern in given:
            if not isinstance(pattern, (str, PurePath)) or not str(pattern):
                raise InputError(f"files({pattern!r}): say a path, a URL or a pattern such as 'raw/*.csv'")
        self._patterns = [str(pattern) for pattern in given]
        self._options = dict(storage_options or {})
        if fingerprint not in FINGERPRINTS:
            raise InputError(f'files(..., fingerprint={fingerprint!r}): say "stat" (what the storage says) or "content"')
        self._content = fingerprint == "content"
        self._settle = _settle_seconds(settle)
        self._now = now
        self.prints = Prints(content=self._content, settling=bool(self._settle), options=self._options)
        # now, because the working directory may change before they are listed
        self._places = [_local_path(pattern) or pattern for pattern in self._patterns]

    def check(self) -> None:
        """Refuse now what can be told without listing.

        Raises
        ------
        InputError
            A local file that is not there, or a folder.
        """
        for pattern in self._places:
            path = _local_path(pattern)
            if path is not None and not (_MAGIC & set(path)) and not Path(path).is_file():
                raise _missing(path, is_folder=Path(path).is_dir())

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._listed)

    @cached_property
    def _listed(self) -> list[tuple[str, bytes]]:
        return self._listing[0]

    @cached_property
    def _listing(self) -> tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]]:
        """Those that are inputs, and those that changed too short a time ago."""
        settled: dict[str, bytes] = {}
        left: dict[str, bytes] = {}
        for pattern in self._places:
            path = _local_path(pattern)
            # the clock is read before the storage: what changes meanwhile has changed just now
            since = self._now() - self._settle if self._settle else None
            for found in _local(path) if path is not None else _remote(pattern, self._options):
                (settled if since is None or _has_settled(found, since) else left)[found.path] = found.stamp
        return sorted(settled.items()), sorted((path, stamp) for path, stamp in left.items() if path not in settled)

    def bunches(self, size: int) -> Iterator[Bunch]:
        """Their paths in sorted order."""
        for start in range(0, self.count, size):
            yield self._bunch(self._listed[start : start + size])

    def pick(self, positions: Sequence[int]) -> Bunch:
        """Paths by number."""
        return self._bunch([self._listed[position] for position in positions])

    @property
    def left(self) -> Sequence[str]:
        """Those that are there and no inputs yet, because they changed too short a time ago."""
        return [path for path, _ in self._listing[1]]

    def left_bunches(self, size: int) -> Iterator[Bunch]:
        """The same, with fingerprints."""
        left = self._listing[1]
        for start in range(0, len(left), size):
            yield self._bunch(left[start : start + size])

    def _bunch(self, listed: Sequence[tuple[str, bytes]]) -> Bunch:
        stamps = [stamp.hex() for _, stamp in listed]
        return Bunch([path for path, _ in listed], None, list(map(unread, stamps)) if self._content else stamps)

    def describe(self) -> str:
        """Their number and patterns."""
        return f"{self.count:,} files of {', '.join(self._patterns[:3])}{' ...' if len(self._patterns) > 3 else ''}"

    def why_none(self) -> str:
        """What to look at where nothing matches."""
        if left := len(self._listing[1]):
            return f"{counted(left, 'file')} changed less than settle={self._settle:g} seconds ago, and no other matches"
        patterns = f"{', '.join(map(shown, self._patterns[:3]))}{' ...' if len(self._patterns) > 3 else ''}"
        return f"no file matches {patterns}: {'; '.join(dict.fromkeys(map(_advice, self._places[:3])))}" if self._places else "no patterns"

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        return (path for path, _ in self._listed)

    def __repr__(self) -> str:
        return f"files({', '.join(map(repr, self._patterns))})"


def _settle_seconds(settle: Any) -> float:
    try:
        return 0.0 if settle is None else parse_seconds(settle, "settle")
    except WorkloadError as error:
        raise InputError(f"files(...): {error.message}") from None


def _has_settled(found: Found, since: float) -> bool:
    if found.changed is None:
        raise InputError(f"files(..., settle=...): the storage of {shown(found.path)} does not say when a file changed. Leave settle= out")
    return found.changed <= since


def _missing(path: str, *, is_folder: bool) -> InputError:
    if is_folder:
        path = shown(path)
        return InputError(
            f"{path} is a folder: say which of its files are meant, such as {path.rstrip('/')}/* or {path.rstrip('/')}/**/*.csv"
        )
    return InputError(f"there is no file {shown(path)}")


def _advice(pattern: str) -> str:
    path = _local_path(pattern)
    if path is None:
        return f"check {shown(pattern)}, and that its storage shows you these files"
    fixed = re.split(r"[*?\[]", path, maxsplit=1)[0]
    folder = Path(fixed if fixed.endswith("/") else os.path.dirname(fixed))  # noqa: PTH120
    while not folder.is_dir():
        if not folder.parent.is_dir():
            folder = folder.parent
            continue
        return f"there is no folder {folder}"
    return f"check the spelling, and what is in {folder}{'' if '**' in path else '; ** looks into the folders below too'}"


# ------------------------------------------------------------------------------------------------------------------------- local


def _local_path(pattern: str) -> str | None:
    """The absolute path of a pattern on a local disk; None for a URL elsewhere."""
    scheme, colon, rest = pattern.partition("://")
    if colon and scheme.lower() not in ("file", "local"):
        return None
    # by its words: a link in the path stays what the user calls it
    return os.path.abspath(os.path.expanduser(rest if colon else pattern))  # noqa: PTH100, PTH111


def _local(path: str) -> Iterator[Found]:
    import glob

    literal = not _MAGIC & set(path) or os.path.lexists(path)
    for found in [path] if literal else glob.iglob(path, recursive=True):  # noqa: PTH207  a pattern may have no root of its own
        try:
            status = Path(found).stat()
        except OSError as error:
            if literal:
                raise InputError(f"{found} cannot be read: {error.strerror}") from error
            continue  # it was removed meanwhile, or is a link to nothing
        if stat.S_ISREG(status.st_mode):
            yield Found(found, stamp_of(status), status.st_mtime)
        elif literal:
            raise _missing(found, is_folder=stat.S_ISDIR(status.st_mode))


# ------------------------------------------------------------------------------------------------------------------------ remote


def _remote(pattern: str, options: Mapping[str, Any]) -> Iterator[Found]:
    if "::" in pattern:
        raise InputError(f"files({shown(repr(pattern))}): one file system within another is not listed; list the URLs and pass them")
    try:
        from dcompute.config import storage_options

        yield from _listed_by(pattern, {**storage_options(pattern), **options})
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"files({shown(repr(pattern))}) needs a package that is not installed: {shown(error)}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"files({shown(repr(pattern))}) cannot be listed: {type(error).__name__}: {shown(error)}") from error
    except Exception as error:
        raise InputError(
            f"files({shown(repr(pattern))}) cannot be listed, its storage says {type(error).__name__}: {shown(error)}"
        ) from error


def _listed_by(pattern: str, options: Mapping[str, Any]) -> Iterator[Found]:
    from fsspec.core import url_to_fs

    filesystem, root = url_to_fs(pattern, **{"use_listings_cache": False, **options})
    if _MAGIC & set(root):
        infos = filesystem.glob(root, detail=True)
    else:
        try:
            infos = {root: filesystem.info(root)}
        except FileNotFoundError:
            raise _missing(pattern, is_folder=False) from None
        if infos[root].get("type") == "directory":
            raise _missing(pattern, is_folder=True)
    for path, info in infos.items():
        if info.get("type") == "file":
            yield Found(str(filesystem.unstrip_protocol(path)), _fingerprint(info), _changed(info))


def _fingerprint(info: Mapping[str, Any]) -> bytes:
    for name in _CHECKSUMS:
        if info.get(name):
            return stamp("checksum", info[name])
    return stamp(info.get("size"), _time_in(info))


def _time_in(info: Mapping[str, Any]) -> Any:
    return next((info[name] for name in _TIMES if info.get(name)), "")


def _changed(info: Mapping[str, Any]) -> float | None:
    """When a file changed, by what its storage says in one of several ways."""
    told = _time_in(info)
    try:
        at = datetime.fromisoformat(told) if isinstance(told, str) else told
        if isinstance(at, datetime):
            return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
        return float(at)
    except (TypeError, ValueError):
        return None
