"""Throughput over time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dcompute.errors import UsageError
from dcompute.report.tally import Counted
from dcompute.report.timeline import Line, Timeline, lines

TALLIES = (Timeline(),)
MOST_BINS = 60


def throughput(counted: Counted, *, bins: int = MOST_BINS) -> pa.Table:
    """How much was done when: a row for each bin of each run.

    ======================  ========================================================================================================
    ``run``                 the run; runs one after another
    ``time``, ``seconds``   when the bin begins, and how much of it lies between the first begin and the last end of the run
    ``ended``, ``failed``   attempts that ended in the bin, and those of them that failed
    ``rows``                rows of results in them
    ``rate``                ``ended / seconds``
    ``busy``                attempts at work on the average of the bin: the integral of their number over it, divided by ``seconds``; those
                            of one call (``group=``) count as one, and end with it
    ``held``                the same of batches, each of which has a slot from its first item's begin to its last item's end
    ======================  ========================================================================================================

    Parameters
    ----------
    counted
        What :data:`TALLIES` found.
    bins
        At most so many a run. Each is a power of two times a 64th of a second wide, the narrowest that gives no more; a long run was
        counted in 512 at most.
    """
    if not isinstance(bins, int) or isinstance(bins, bool) or bins < 1:
        raise UsageError(f"bins={bins!r}: a run has one bin at least, such as bins=20")
    found = lines(counted[TALLIES[0].name], most=bins)
    return pa.concat_tables([_rows(line) for line in found]) if found else SCHEMA.empty_table()


SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("time", pa.timestamp("us", "UTC")),
        ("seconds", pa.float64()),
        ("ended", pa.int64()),
        ("failed", pa.int64()),
        ("rows", pa.int64()),
        ("rate", pa.float64()),
        ("busy", pa.float64()),
        ("held", pa.float64()),
    ]
)


def _rows(line: Line) -> pa.Table:
    rate, busy, held = (values / line.seconds for values in (line.ended, line.busy, line.held))
    run = pa.array([line.keys[0]] * len(line.begin), pa.string())
    time = pa.array(np.asarray(line.begin), pa.timestamp("us", "UTC"))
    return pa.table([run, time, line.seconds, line.ended, line.failed, line.rows, rate, busy, held], schema=SCHEMA)
