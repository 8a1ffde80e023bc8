"""How many threads the libraries of an item use: what a process finds in its environment when it loads them."""

from __future__ import annotations

import math

#: Arrow, PyTorch and NumPy's libraries follow the first ones.
NAMES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)


def environment(cpus: float) -> dict[str, str]:
    """Variables of a process whose calls ask for so many cores: as many threads, rounded down, and one at least."""
    return dict.fromkeys(NAMES, str(max(1, math.floor(cpus + 1e-9))))
