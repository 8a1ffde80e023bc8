"""Why what waits does not go out: for a person who asks, and for whoever shares slots out."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dcompute.records import Request


class Why(enum.StrEnum):
    """What a class waits for."""

    UNMEASURED = "unmeasured"  #: what the cluster offers it is not known yet
    PAUSED = "paused"  #: nearly everything failed alike; single items probe
    NO_WORKER = "no-worker"  #: no worker that is there could execute it
    BUSY = "busy"  #: all slots that could are taken
    KEPT = "kept"  #: a worker is kept free for it, or for others
    ALONE = "alone"  #: its items run alone, and no worker has nothing else to do
    AFFINITY = "affinity"  #: there are idle slots, and none where its rules let it go
    SHARE = "share"  #: the run has as many batches in flight as it may have
    LIMIT = "limit"  #: a named limit is used up, or does not permit more yet
    SHRUNK = "shrunk"  #: slots vanished, and more is in flight than there is room for
    PROBING = "probing"  #: the first items are on their way to be measured
    FILLING = "filling"  #: a batch that is not full waits a moment for more items
    BACK_OFF = "back-off"  #: the next attempt has a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits of one class, and why."""

    request: Request
    items: int
    why: Why
    text: str  #: for a person
    until: float | None = None  #: when that is over, on the window's clock, where it is known


def words(request: Request) -> str:
    """What a class asks for, for a person."""
    parts = [f"{request.cpus:g} cpus"]
    if request.gpus:
        parts.append(f"{request.gpus:g} gpus")
    if request.memory is not None:
        parts.append(f"{request.memory / 2**30:.2f} GiB of memory")
    parts += [f"{name}={amount:g}" for name, amount in request.resources]
    wanted = [(rule.kind, name, texts) for rule in request.affinity if rule.hard for name, texts in rule.labels]
    parts += [f"{kind} {name}={' or '.join(texts)}" for kind, name, texts in wanted]
    return ", ".join(parts)
