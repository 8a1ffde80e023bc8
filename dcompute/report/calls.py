"""Calls with several items: what their attempts have together, where each row has its share only."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

#: Columns of the attempts that tell.
COLUMNS = ("batch", "started", "duration", "measured")


class Calls(NamedTuple):
    """Of each attempt, the call that it was in."""

    seconds: npt.NDArray[np.float64]  #: that the call took; 0 where that is not known
    leads: npt.NDArray[np.bool_]  #: it is the first of its call


def calls_of(attempts: pa.Table) -> Calls:
    """The calls of attempts: those of one call share a batch and their begin to the microsecond.

    Parameters
    ----------
    attempts
        Whole batches.
    """
    seconds: npt.NDArray[np.float64] = pc.fill_null(attempts["duration"], 0.0).to_numpy().astype(np.float64)
    leads: npt.NDArray[np.bool_] = np.ones(len(seconds), np.bool_)
    # a run that measures nothing does not say which calls had several
    places = np.flatnonzero(pc.fill_null(pc.equal(attempts["measured"], "group"), True))
    if len(places):
        _, first, call = np.unique(_marks(attempts.take(pa.array(places))), return_index=True, return_inverse=True)
        seconds[places] = np.bincount(call, seconds[places])[call]
        leads[places] = False
        leads[places[first]] = True
    return Calls(seconds, leads)


def _marks(attempts: pa.Table) -> npt.NDArray[Any]:
    """The same number twice for attempts of one call."""
    batch = attempts["batch"].combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
    started = attempts["started"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).fill_null(0).to_numpy()
    _, moment = np.unique(started, return_inverse=True)
    marks: npt.NDArray[Any] = batch.astype(np.int64) * len(started) + moment
    return marks
