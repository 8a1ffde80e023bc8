"""From the INPUTS of a command line to inputs for ``dc.map``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from dcompute.cli import cells
from dcompute.errors import InputError, UsageError

log = logging.getLogger("dcompute.cli")

#: What the cells of a CSV file become.
TYPES = ("exact", "text", "guess")
_COMPACT: dict[type, str] = {int: "int64", float: "float64", bool: "bool"}
#: Characters of a cell that a message shows.
_SHOWN = 30
#: Endings of files that are tables.
CSV = (".csv", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zst", ".tsv")
PARQUET = (".parquet", ".pq")


def of_words(
    words: Sequence[str],
    *,
    rows: bool | None = None,
    types: str | None = None,
    about_files: Mapping[str, Any] | None = None,
    by: str | None = None,
) -> Any:
    """Inputs for ``dc.map``.

    Parameters
    ----------
    words
        Paths, globs and URLs; one table; or ``-`` alone.
    rows
        Whether a single table stands for its rows; None: it does.
    types
        One of :data:`TYPES`, for a CSV file; None: the first.
    about_files
        Options of ``dc.files``, where files are the inputs.
    by
        What an item is of datasets, which the words then are; as ``dc.rows`` has it.

    Raises
    ------
    UsageError
        The words do not go together.
    InputError
        A table cannot be read.
    """
    if by is not None:
        return _of_datasets(words, by, {"--rows or --files": rows, "--types": types, **{f"--{name}": 1 for name in about_files or ()}})
    is_rows = rows is not False and len(words) == 1 and is_table(words[0])
    if types is not None and not (is_rows and words[0].lower().endswith(CSV)):
        raise UsageError("--types is for the rows of one CSV file: nothing else leaves open what its values are")
    if about_files and (is_rows or "-" in words):
        raise UsageError(
            f"--{next(iter(about_files))} is for files as inputs: the rows of a table and lines of standard input have no such thing"
        )
    if "-" in words:
        if len(words) > 1:
            raise UsageError("'-' (lines of standard input) cannot be mixed with other inputs")
        return lines(sys.stdin)
    if is_rows:
        return _table(words[0], types or TYPES[0])
    if rows:
        raise UsageError(f"--rows needs one CSV or Parquet file, and these are: {' '.join(words[:3])}{' ...' if len(words) > 3 else ''}")
    return _files(words, about_files or {})


def _of_datasets(words: Sequence[str], by: Any, others: Mapping[str, Any]) -> Any:
    import dcompute as dc

    meaningless = next((name for name, value in others.items() if value is not None), None)
    if meaningless is not None:
        raise UsageError(f"--by makes the rows of datasets inputs, of which {meaningless} says nothing: leave one of them out")
    return dc.rows(list(words) if len(words) > 1 else words[0], by=by)


def lines(stream: TextIO) -> Iterator[str]:
    """The lines of a stream as they come, without their ends; empty ones are left out."""
    for line in stream:
        text = line.rstrip("\r\n")
        if text:
            yield text


def is_table(word: str) -> bool:
    """Whether a word names one CSV or Parquet file, and is no glob."""
    return word.lower().endswith(CSV + PARQUET) and not any(char in word for char in "*?[") and not Path(word).is_dir()


def _table(word: str, types: str) -> Any:
    import pandas as pd

    try:
        frame = pd.read_parquet(word) if word.lower().endswith(PARQUET) else _csv(word, types)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {word}") from error
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{word} cannot be read as a table: {reason}; with --files the file itself is the input") from error
    return frame


def _csv(word: str, types: str) -> Any:
    import pandas as pd

    # The guess of types that does not depend on where a chunk of the file ends.
    how: dict[str, Any] = {"sep": "\t" if word.lower().endswith(".tsv") else ",", "low_memory": False}
    frame = pd.read_csv(word, **how) if types == "guess" else pd.read_csv(word, dtype=str, na_filter=False, **how)
    if not isinstance(frame.index, pd.RangeIndex):
        raise InputError(f"{word} has more cells in its rows than names in its heading, so that a cell would be lost: give each a name")
    if types != "exact":
        return frame
    texts = {name: frame[name].tolist() for name in frame.columns}
    values = {name: cells.exact(column) for name, column in texts.items()}
    _tell_text(word, {name: bad for name in texts if (bad := _misread(texts[name], values[name]))})
    return pd.DataFrame({name: _column(frame[name], values[name]) for name in frame.columns})


def _column(texts: Any, values: list[Any]) -> Any:
    """The values as a column that gives them back as they are, in few bytes where there is a type for all of them."""
    import pandas as pd

    kinds = set(map(type, values))
    if kinds <= {str}:
        return texts
    try:
        return pd.Series(values, dtype=_COMPACT[kinds.pop()] if len(kinds) == 1 else object)
    except (KeyError, OverflowError):  # empty cells only; integers beyond 64 bits
        return pd.Series(values, dtype=object)


def _misread(texts: list[str], values: list[Any]) -> str:
    first = next((value for value in values if value is not None), None)
    return cells.misread(texts) if isinstance(first, str) else ""


def _tell_text(word: str, columns: dict[str, str]) -> None:
    if columns:
        log.warning(
            "%s: passed as text, so that nothing of them is lost: %s. With --types guess they are numbers or truth values, with "
            "--types text all columns are text",
            word,
            ", ".join(f"{name} (for {bad[:_SHOWN]!r})" for name, bad in columns.items()),
            extra={"action": "cells_as_text"},
        )


def _files(words: Sequence[str], options: Mapping[str, Any]) -> Any:
    import dcompute as dc

    found = dc.files(list(words) if len(words) > 1 else words[0], **options)
    found.check()
    if not len(found) and not len(found.left):
        # Nothing to do is no error in a program, but a pattern typed by a person was meant to match.
        raise InputError(found.why_none())
    return found
