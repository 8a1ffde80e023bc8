"""From the INPUTS of a command line to inputs for ``dc.map``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from dcompute.errors import InputError, UsageError

#: Endings of files that are tables.
CSV = (".csv", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zst", ".tsv")
PARQUET = (".parquet", ".pq")


def of_words(words: Sequence[str], *, rows: bool | None = None) -> Any:
    """Inputs for ``dc.map``.

    Parameters
    ----------
    words
        Paths, globs and URLs; one table; or ``-`` alone.
    rows
        Whether a single table stands for its rows; None: it does.

    Raises
    ------
    UsageError
        The words do not go together.
    InputError
        A table cannot be read.
    """
    if "-" in words:
        if len(words) > 1:
            raise UsageError("'-' (lines of standard input) cannot be mixed with other inputs")
        return lines(sys.stdin)
    if rows is not False and len(words) == 1 and is_table(words[0]):
        return _table(words[0])
    if rows:
        raise UsageError(f"--rows needs one CSV or Parquet file, and these are: {' '.join(words[:3])}{' ...' if len(words) > 3 else ''}")
    return _files(words)


def lines(stream: TextIO) -> Iterator[str]:
    """The lines of a stream as they come, without their ends; empty ones are left out."""
    for line in stream:
        text = line.rstrip("\r\n")
        if text:
            yield text


def is_table(word: str) -> bool:
    """Whether a word names one CSV or Parquet file, and is no glob."""
    return word.lower().endswith(CSV + PARQUET) and not any(char in word for char in "*?[") and not Path(word).is_dir()


def _table(word: str) -> Any:
    import pandas as pd

    try:
        if word.lower().endswith(PARQUET):
            return pd.read_parquet(word)
        # The quickest guess of types that does not depend on where a chunk of the file ends.
        return pd.read_csv(word, sep="\t" if ".tsv" in word.lower() else ",", low_memory=False)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {word}") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{word} cannot be read as a table: {reason}; with --files the file itself is the input") from error


def _files(words: Sequence[str]) -> Any:
    import dcompute as dc

    found = dc.files(list(words) if len(words) > 1 else words[0])
    found.check()
    if not len(found):
        # Nothing to do is no error in a program, but a pattern typed by a person was meant to match.
        raise InputError(found.why_none())
    return found
