"""The failures of a receipt: what the driver decides by, in a bounded number of bytes; the attempts part has all of it.

Receipts pass through the scheduler. Kind, error, bases, exit code and signal of every failure are in them, because policies ask for them;
texts are cut the shorter the more there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from dcompute.records import Failure, pack_failures

#: Bytes that the failures of a receipt take on their way; 10,000 with messages that differ in a number take about a tenth of it.
MOST_BYTES = 256 << 10
#: The first failures of each kind and error have their tracebacks, and messages up to the longer length; so many in all.
DETAILED, MOST_DETAILED, LONG_MESSAGE, LONG_TRACEBACK = 3, 12, 2000, 8000


class _Measure(NamedTuple):
    """Characters of a message and of a name, and how many bases: the last ones, which are those that everybody knows."""

    message: int
    name: int
    bases: int


_MEASURES = (_Measure(300, 300, 32), _Measure(100, 200, 16), _Measure(30, 100, 8), _Measure(0, 50, 4), _Measure(0, 10, 0))


def brief(failures: Iterable[Failure]) -> tuple[Failure, ...]:
    """They as a receipt has them, in their order."""
    failures, detailed = tuple(failures), set[int]()
    met: Counter[tuple[str, str]] = Counter()
    for place, failure in enumerate(failures):
        sort = (failure.kind, failure.error)
        met[sort] += 1
        if met[sort] <= DETAILED and len(detailed) < MOST_DETAILED:
            detailed.add(place)
    for measure in _MEASURES:
        cut = tuple(_detailed(failure) if place in detailed else _cut(failure, measure) for place, failure in enumerate(failures))
        if len(pack_failures(cut)) <= MOST_BYTES:
            break
    return cut


def _detailed(failure: Failure) -> Failure:
    kept = _cut(failure, _Measure(LONG_MESSAGE, *_MEASURES[0][1:]))
    return replace(kept, traceback=failure.traceback[-LONG_TRACEBACK:])


def _cut(failure: Failure, to: _Measure) -> Failure:
    return replace(
        failure,
        error=failure.error[: to.name],
        bases=tuple(name[: to.name] for name in failure.bases[max(0, len(failure.bases) - to.bases) :]),
        message=failure.message[: to.message],
        traceback="",
    )
