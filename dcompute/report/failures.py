"""Failures by kind, exception and host, each with an example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dcompute.errors import UsageError
from dcompute.report.tally import Counted, Groups
from dcompute.report.usage import is_

#: Characters of an example's message.
MESSAGE = 300
BY = ("kind", "error", "host")
_EXAMPLE = ("item_key", "key_kind", "message")


def _failed(attempts: pa.Table) -> pa.Table:
    failed = attempts.filter(is_(attempts["outcome"], "failed"))
    columns: dict[str, Any] = {name: failed[name] for name in (*BY, "item_key", "key_kind")}
    columns |= {
        "message": pc.utf8_slice_codeunits(failed["message"], 0, MESSAGE),
        "attempts": pa.array(np.ones(failed.num_rows, np.int64)),
        "seconds": pc.fill_null(failed["duration"], 0.0),
        "first": failed["started"],
        "last": failed["started"],
    }
    return pa.table(columns)


def _all(attempts: pa.Table) -> pa.Table:
    return pa.table({"host": attempts["host"], "attempts": pa.array(np.ones(attempts.num_rows, np.int64))})


FAILED = Groups(
    name="failed",
    columns=(*BY, "outcome", *_EXAMPLE, "duration", "started"),
    prepare=_failed,
    keys=BY,
    sums=("attempts", "seconds"),
    mins=("first",),
    maxs=("last",),
    firsts=_EXAMPLE,
    fold=("error", "host"),
)
TRIED = Groups(name="tried", columns=("host",), prepare=_all, keys=("host",), fold=("host",))
TALLIES = (FAILED, TRIED)


def failures(counted: Counted, *, by: str | Sequence[str] = BY) -> pa.Table:
    """What failed: a row for each kind of failure, for each exception and for each host, most attempts first.

    Attempts are counted, those that were retried with success too; :meth:`Dataset.failures` has the items that failed at last.

    ========================  ==========================================================================================================
    ``by``, ``name``          ``kind``, ``error`` or ``host``, and which; errors are qualified names of exceptions, or what ended a
                              process
    ``attempts``              that failed
    ``share``                 of all attempts; with hosts, of the attempts on that host
    ``seconds``               that those attempts took, added up
    ``first``, ``last``       when the first and the last of them began
    ``item_key``, ...         an example: its key, kind of key and the first 300 characters of its message
    ========================  ==========================================================================================================

    Parameters
    ----------
    counted
        What :data:`TALLIES` found.
    by
        One of these, or several: ``"kind"``, ``"error"``, ``"host"``.
    """
    asked = (by,) if isinstance(by, str) else tuple(by)
    if unknown := [name for name in asked if name not in BY]:
        raise UsageError(f"by={unknown[0]!r}: failures are grouped by 'kind', 'error' or 'host'")
    return pa.concat_tables([_by(counted, name) for name in asked])


def _by(counted: Counted, name: str) -> pa.Table:
    found = FAILED.by(counted["failed"], [name]).sort_by([("attempts", "descending"), (name, "ascending")])
    tried = dict(zip(counted["tried"]["host"].to_pylist(), counted["tried"]["attempts"].to_pylist(), strict=True))
    total = sum(tried.values())
    of = [tried.get(one, total) if name == "host" else total for one in found[name].to_pylist()]
    columns = {
        "by": pa.array([name] * found.num_rows, pa.string()),
        "name": found[name],
        "attempts": found["attempts"],
        "share": pc.divide(found["attempts"].cast(pa.float64()), pa.array(of, pa.float64())),
        **{other: found[other] for other in ("seconds", "first", "last", *_EXAMPLE)},
    }
    return pa.table(columns)
