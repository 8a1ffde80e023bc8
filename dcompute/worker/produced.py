"""Files that an item produces: their names, a folder that outlives the item, and how they are noted in the journal with its rows."""

from __future__ import annotations

import json
import os
import re
import struct
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from dcompute.errors import UsageError

#: A name has so many bytes at most, a column so many characters: with what is put before it, a file system and an object store take it.
LONGEST_NAME, LONGEST_COLUMN = 200, 100
#: A batch ends when its items' files have so many bytes: they wait in the worker's scratch folder, and the rest of it goes out again.
MOST_WAITING = 1 << 30
#: The first byte of a payload with files; none of rows begins with it.
FILES = 0x01

_HEAD = struct.Struct("<BI")
# each means something else in a URL, a pattern or a path of some system
_STRANGE = re.compile(r"[\x00-\x1f\x7f\\*?\[\]#%]|::")
# listings do not show what begins with it
_HIDDEN = ".tmp-"


class Produced(NamedTuple):
    """A file that an item said it would write."""

    column: str  #: what its columns are called, before ``_url``, ``_size`` and ``_checksum``
    name: str  #: as the item gave it
    folder: str  #: in which it lies, below that of all items


class Outputs:
    """The files of one attempt, in a folder of its own.

    Parameters
    ----------
    root
        Folder of the outputs of all items of a batch; made when it is needed.
    """

    def __init__(self, root: str) -> None:
        Path(root).mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="item-", dir=root))
        self._names: dict[str, str] = {}  # by column

    def path(self, name: str, column: str) -> Path:
        """Where a file is to be written; asked again the same path.

        Raises
        ------
        UsageError
            The column has another file, or the file another column.
        """
        known = self._names.setdefault(column, name)
        if known != name:
            raise UsageError(
                f"output({name!r}): this attempt has {known!r} in column {column!r} already: give each file a column of its own, "
                f"such as output({name!r}, column={column + '_2'!r})"
            )
        if list(self._names.values()).count(name) > 1:
            del self._names[column]
            raise UsageError(f"output({name!r}, column={column!r}): this attempt has that file in another column already")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def size(self) -> int:
        """Bytes of the files that are there."""
        paths = [self.folder / name for name in self._names.values()]
        return sum(path.lstat().st_size for path in paths if os.path.lexists(path))

    def noted(self, payload: bytes) -> bytes:
        """Rows as they are encoded, with the files before them."""
        files = [(column, name, self.folder.name) for column, name in self._names.items()]
        head = json.dumps(files).encode()
        return _HEAD.pack(FILES, len(head)) + head + payload


def taken_apart(payload: bytes) -> tuple[list[Produced], bytes]:
    """The files of a payload and the encoded rows."""
    if not payload or payload[0] != FILES:
        return [], payload
    _, size = _HEAD.unpack_from(payload)
    end = _HEAD.size + size
    return [Produced(*one) for one in json.loads(payload[_HEAD.size : end])], payload[end:]


def checked_name(name: Any) -> str:
    """The name of a file that an item produces.

    Raises
    ------
    UsageError
        It is no relative name that every storage takes.
    """
    text = str(name) if isinstance(name, PurePosixPath) else name
    if not isinstance(text, str) or not text:
        raise _refused(name, "is no name")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _refused(name, "is no valid text") from None
    if size > LONGEST_NAME:
        raise _refused(f"{text[:40]}...", f"has {size} bytes, and {LONGEST_NAME} are the most")
    if strange := _STRANGE.search(text):
        raise _refused(name, f"has {strange.group()!r}, which means something else to some storage")
    _check_steps(text)
    return text


def _check_steps(name: str) -> None:
    steps = name.split("/")
    if any(step in ("", ".", "..") for step in steps):
        raise _refused(name, "is no plain relative name")
    if any(step.endswith((".", " ")) for step in steps):
        raise _refused(name, "ends a step with a dot or a space, which some storage drops")
    if any(step.startswith(_HIDDEN) for step in steps):
        raise _refused(name, f"begins with {_HIDDEN!r}, which is for files that are being written")


def checked_column(column: Any, name: str) -> str:
    """The beginning of the names of a file's columns; by default the stem of its name.

    Raises
    ------
    UsageError
        It can name no column.
    """
    if column is None:
        return re.sub(r"\W+", "_", PurePosixPath(name).stem).strip("_")[:LONGEST_COLUMN] or "file"
    if not isinstance(column, str) or not 0 < len(column) <= LONGEST_COLUMN or not column.isprintable():
        raise UsageError(f"output({name!r}, column={column!r}): a column is called by a text of 1 to {LONGEST_COLUMN} characters")
    return column


def _refused(name: Any, why: str) -> UsageError:
    return UsageError(f"output({name!r}): the name {why}; give a relative one such as 'map.npz' or 'maps/2024.npz'")


def columns_of(column: str) -> tuple[str, str, str]:
    """The columns with the URL, the size and the checksum of a file."""
    return f"{column}_url", f"{column}_size", f"{column}_checksum"
