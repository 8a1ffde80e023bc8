"""What one partition of a dataset reads: files that count, or a share of a large one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b

from dcompute.records import ItemKey


@dataclass(frozen=True, slots=True)
class File:
    """A part to read, and which of its rows."""

    name: str
    position: int  #: where in the log it was added
    left_out: tuple[ItemKey, ...] = ()
    rows: tuple[int, ...] | None = None  #: these only; None: all
    size: int = 0  #: bytes; 0: not known
    count: int = 0  #: rows that lie in it
    share: tuple[int, int] = (0, 1)  #: which of so many shares of its row groups


@dataclass(frozen=True, slots=True)
class Piece:
    """The files of one partition; Dask names it by the names of its files, which never change."""

    files: tuple[File, ...] = ()
    source: int = 0  #: of which of several datasets

    def __dask_tokenize__(self) -> str:
        text = str(self.source) + "".join(f"\n{file.name} {file.position} {file.left_out} {file.rows} {file.share}" for file in self.files)
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def by_size(files: Iterable[File], *, most_files: int, most_bytes: int, row_bytes: int = 0) -> list[Piece]:
    """Partitions of at most so many files and, as far as can be told, bytes in memory; a larger file gives several, each a share of it.

    Parameters
    ----------
    files
        In their order.
    row_bytes
        Of a row in memory; 0: only stored bytes tell.
    """
    shared = (pair for file in files for pair in _shares(file, max(2 * file.size, file.count * row_bytes), most_bytes))
    return list(_grouped(shared, most_files, most_bytes))


def by_rows(files: Iterable[File], *, most_files: int, most_rows: int) -> list[Piece]:
    """Partitions of at most so many files and rows, as far as whole files allow."""
    counted = ((file, file.count if file.rows is None else len(file.rows)) for file in files)
    return list(_grouped(counted, most_files, most_rows))


def _shares(file: File, weight: int, most: int) -> Iterator[tuple[File, int]]:
    shares = min(math.ceil(weight / most), file.count)
    if shares < 2 or file.rows is not None:
        yield file, weight
        return
    for index in range(shares):
        yield replace(file, size=file.size // shares, count=0, share=(index, shares)), weight // shares


def _grouped(files: Iterable[tuple[File, int]], most_files: int, most: int) -> Iterator[Piece]:
    group: list[File] = []
    total = 0
    for file, weight in files:
        if group and (len(group) == most_files or total + weight > most):
            yield Piece(tuple(group))
            group, total = [], 0
        group.append(file)
        total += weight
    if group:
        yield Piece(tuple(group))
