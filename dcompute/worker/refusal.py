"""The failure of an item whose rows or input the dataset does not take, without a traceback: no code of the item's own raised it."""

from __future__ import annotations

from dcompute.errors import DcomputeError
from dcompute.records import Failure, Kind
from dcompute.worker.attempt import qualified_name


def refusal(index: int, error: type[DcomputeError], message: str) -> Failure:
    """The permanent failure of an item.

    Parameters
    ----------
    index
        Its place in the batch.
    error
        What it would have raised.
    message
        Why.
    """
    bases = tuple(map(qualified_name, error.__mro__[1:-1]))
    return Failure(index=index, kind=Kind.PERMANENT, error=qualified_name(error), bases=bases, message=message)
