"""What batches take of a worker, and what is left of it beside those of others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from dcompute.records import Request
from dcompute.resources import _TOLERANCE, CPU, MEMORY, WorkerOffer, _have, _needs, _slots, declared_names, memory_share

__all__ = ["declared_names", "needs", "room", "slots_left"]

#: What each task takes one of, whatever it asks for.
_THREAD = "thread"


def needs(request: Request) -> dict[str, float]:
    """What one batch of a class takes of its worker, by name."""
    return {_THREAD: 1.0, **_needs(request)}


def room(offer: WorkerOffer, declared: frozenset[str]) -> dict[str, float]:
    """What one worker has of all that batches take; ``declared``: the names that any worker declares."""
    have = {name: _have(name, offer, declared) or 0.0 for name in {CPU, MEMORY, *declared}}
    return {_THREAD: float(offer.nthreads), **have}


def slots_left(request: Request, offer: WorkerOffer, taken: Mapping[str, float], declared: frozenset[str]) -> int:
    """How many batches of a class fit on one worker beside what others take of it, by the names of :func:`needs`."""
    return _slots(request, _without(offer, taken, declared), declared)


def _without(offer: WorkerOffer, taken: Mapping[str, float], declared: frozenset[str]) -> WorkerOffer:
    threads = taken.get(_THREAD, 0.0) if CPU in declared else max(taken.get(_THREAD, 0.0), taken.get(CPU, 0.0))
    memory = offer.memory_limit
    if MEMORY not in declared and taken.get(MEMORY):
        memory = max(0, int(memory_share(offer, whole=True) - taken[MEMORY]))
    return replace(
        offer,
        nthreads=max(0, math.floor(offer.nthreads - threads + _TOLERANCE)),
        memory_limit=memory,
        resources={name: max(0.0, amount - taken.get(name, 0.0)) for name, amount in offer.resources.items()},
    )
