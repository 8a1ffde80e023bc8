"""Histograms of sizes and times in fixed bins: sixteen an octave, so that a quantile is known to 2.2 % whatever the scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

AN_OCTAVE = 16


def bins_of(values: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """The bin of each value, all of them above zero: bin b holds 2**(b/16) up to 2**((b+1)/16)."""
    found: npt.NDArray[np.int32] = np.floor(np.log2(values) * AN_OCTAVE).astype(np.int32)
    return found


def edge(bin_: Any) -> Any:
    """Where a bin begins."""
    return np.exp2(np.asarray(bin_, np.float64) / AN_OCTAVE)


def quantile(bins: npt.NDArray[Any], counts: npt.NDArray[Any], share: float) -> float | None:
    """The value that so large a share of the values does not exceed, to 2.2 %: the geometric middle of its bin; None of no values.

    Parameters
    ----------
    bins, counts
        A histogram, in any order.
    share
        0.5 is the median.
    """
    if not len(bins):
        return None
    order = np.argsort(bins)
    ranks = np.cumsum(counts[order])
    place = int(np.searchsorted(ranks, share * ranks[-1]))
    return float(edge(bins[order][min(place, len(bins) - 1)] + 0.5))
