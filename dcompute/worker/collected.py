"""Files that items produced, on their way into the dataset: their sizes and checksums, and the columns of the rows that name them."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dcompute.dataset.meeting import FILE
from dcompute.dataset.names import new_id
from dcompute.errors import SchemaError, UsageError
from dcompute.worker import scratch, system
from dcompute.worker.produced import Produced, columns_of
from dcompute.worker.rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa


class Collected(NamedTuple):
    """A file that an item produced, which nobody writes to any more."""

    column: str
    path: str  #: here
    name: str  #: in the dataset
    size: int
    checksum: str

    @property
    def columns(self) -> dict[str, Any]:
        """What the item's rows say of it."""
        return dict(zip(columns_of(self.column), (self.name, self.size, self.checksum), strict=True))


def collect(one: Produced, folder: Path, name: str) -> Collected:
    """Take the measure of a file.

    Parameters
    ----------
    one
        As the item said it.
    folder
        Of the files of all items.
    name
        What it is to be called in the dataset.

    Raises
    ------
    UsageError
        The item wrote no file there.
    """
    try:
        path = _its_own(folder, one)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return Collected(one.column, str(path), name, os.fstat(file.fileno()).st_size, f"sha256:{digest}")
    except OSError as error:
        if scratch.is_full(error):
            raise
        raise UsageError(f"output({one.name!r}) cannot be read: {error}") from error


def measured(column: str, path: Path, url: str) -> Collected:
    """The measure of a file that lies at a URL too."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Collected(column, str(path), url, os.fstat(file.fileno()).st_size, f"sha256:{digest}")


def _its_own(folder: Path, one: Produced) -> Path:
    """The file, or a copy of one that somebody may still write to, or that lies elsewhere too."""
    path, name = folder / one.folder / one.name, one.name
    try:
        about = path.lstat()
    except OSError:
        raise UsageError(f"output({name!r}) was asked for, and no file was written there: write it before the item returns") from None
    if not stat.S_ISREG(about.st_mode):
        what = "a folder" if stat.S_ISDIR(about.st_mode) else "no regular file"
        raise UsageError(f"output({name!r}) is {what}: write a file there, and ask for each file of a folder by its name")
    is_here = path.resolve() == folder.resolve() / one.folder / name
    if is_here and about.st_nlink == 1 and not system.may_be_written(str(path)):
        return path
    return shutil.copyfile(path, folder / f"copy-{new_id()}")


def with_columns(rows: Rows, files: Sequence[Collected]) -> Rows:
    """An item's rows, each with what says where its files are; one row where it has none.

    Raises
    ------
    SchemaError
        The item returned a column of the same name.
    """
    more = {name: value for one in files for name, value in one.columns.items()}
    if rows is None or len(rows) == 0:
        return more
    if type(rows) is dict:
        _refuse_both(rows, more)
        return {**rows, **more}
    if type(rows) is list:
        for row in rows:
            _refuse_both(row, more)
        return [{**row, **more} for row in rows]
    return _with_constants(rows, more)


def _with_constants(table: Any, more: Mapping[str, Any]) -> pa.Table:
    import pyarrow as pa

    _refuse_both(dict.fromkeys(table.column_names), more)
    for name, value in more.items():
        table = table.append_column(name, pa.repeat(pa.scalar(value), table.num_rows))
    return table


def _refuse_both(row: Mapping[str, Any], more: Mapping[str, Any]) -> None:
    for name in more:
        if name in row:
            raise SchemaError(
                f"A result has the column {name!r}, which says of a file of this item where it is: leave it out of the result, or give "
                "output() another column=.",
                column=name,
            )


def set_apart(table: pa.Table, files: Mapping[str, bytes]) -> tuple[pa.Table, pa.Table]:
    """The columns of a table that say nothing of files, and those that do, marked with what they say."""
    import pyarrow as pa

    theirs = table.select([name for name in table.column_names if name in files])
    marked = [field.with_metadata({FILE: files[field.name]}) for field in theirs.schema]
    return table.drop_columns(theirs.column_names), pa.table(theirs.columns, schema=pa.schema(marked))


def columns_in(rows: Any) -> set[str]:
    """The columns that an item's rows have."""
    if type(rows) is dict:
        return set(rows)
    return set().union(*rows) if type(rows) is list else set(rows.column_names)
