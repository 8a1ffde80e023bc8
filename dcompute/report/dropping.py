"""Rows that a report leaves out, with the reason: counted in the same pass that computes the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from dcompute.errors import UsageError

_COUNTS: ContextVar[list[tuple[str, Any]] | None] = ContextVar("dcompute_dropped", default=None)


def drop(frame: Any, mask: Any, reason: str) -> Any:
    """The rows of a dataframe for which ``mask`` is not true; in a report's function the others are counted under ``reason``.

    The count is lazy: it is taken in the pass that computes the report, and stands in the version that is published. Outside of a report's
    function nothing is counted. Call it in the function itself, not in one that Dask executes on each partition.

    Parameters
    ----------
    frame
        A Dask or pandas dataframe.
    mask
        A series of booleans with the frame's index, such as ``frame.x < 0``; null is not true.
    reason
        Why these rows go. The same reason twice adds up.

    Examples
    --------
    >>> def clean(raw):
    ...     raw = dc.drop(raw, raw.flux.isna(), "no flux")
    ...     return dc.drop(raw, raw.flux < 0, "negative flux")
    """
    if not isinstance(reason, str) or not reason:
        raise UsageError(f"dc.drop(..., reason={reason!r}): say in words why these rows go")
    plain = _of_rows_in(frame, plain_mask(mask))
    counts = _COUNTS.get()
    if counts is not None:
        counts.append((reason, plain.sum()))
    return frame[~plain]


@contextlib.contextmanager
def counting() -> Iterator[list[tuple[str, Any]]]:
    """Collects what :func:`drop` counts: pairs of reason and a number, or what Dask will compute one from."""
    counts: list[tuple[str, Any]] = []
    token = _COUNTS.set(counts)
    try:
        yield counts
    finally:
        _COUNTS.reset(token)


def _of_rows_in(frame: Any, plain: Any) -> Any:
    """The mask for the rows of a dataframe; it may be of the dataframe as it was before others went."""
    if not hasattr(plain, "npartitions"):
        return _of_rows(frame, plain)
    if any(one._name == frame._name for one in plain.expr.walk()):
        return plain
    # one column is enough to know which rows there are: the others need not be read for it
    narrow = frame[[min(frame.columns, key=lambda name: frame.dtypes[name].kind not in "biuf")]]
    return narrow.map_partitions(_of_rows, plain, meta=(None, "bool"), align_dataframes=False)


def _of_rows(frame: Any, plain: Any) -> Any:
    if plain.index.equals(frame.index):
        return plain
    found = plain.reindex(frame.index)
    if found.isna().any():
        raise UsageError("dc.drop(frame, mask, reason): the mask has no value for some rows of the dataframe: make it of this dataframe")
    return found.astype("bool")


def plain_mask(mask: Any) -> Any:
    """The mask with true and false only."""
    if hasattr(mask, "npartitions"):
        return mask.map_partitions(_as_bool, meta=(None, "bool"))
    if not hasattr(mask, "fillna"):
        raise UsageError(f"dc.drop(frame, mask, reason): the mask is of type {type(mask).__name__}, and must be a series of booleans")
    return _as_bool(mask)


def _as_bool(mask: Any) -> Any:
    return mask.fillna(False).astype("bool")
