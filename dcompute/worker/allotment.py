"""Which devices a batch gets, and which cores. Pure: what is taken comes in as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

# three thirds are one
_TOLERANCE = 1e-6


def devices(wanted: float, taken: Mapping[str, float], kinds: Mapping[str, str]) -> tuple[str, ...] | None:
    """The devices for a request: whole ones that nobody has, or one with room for a share; None where there are none.

    Parameters
    ----------
    wanted
        A whole number of devices, or a share below 1 of one.
    taken
        Of each device, the sum of the shares that are taken; 1 or more where somebody has it whole.
    kinds
        The kind of each: several devices of one batch are of one kind.
    """
    if wanted < 1:
        # the fullest with room: whole ones stay whole for those who need that
        room = [id for id, share in taken.items() if share + wanted <= 1 + _TOLERANCE]
        return (max(room, key=lambda id: taken[id]),) if room else None
    count = round(wanted)
    for kind in dict.fromkeys(kinds.values()):
        free = [id for id, share in taken.items() if not share and kinds[id] == kind]
        if len(free) >= count:
            return tuple(free[:count])
    return None


def cores(wanted: float, taken: Mapping[int, float], before: Sequence[int] = ()) -> tuple[int, ...]:
    """The cores for a request: those with the least work, which nobody has while there are enough; none where there are none to give.

    Parameters
    ----------
    wanted
        Cores; of a part of one, one is shared.
    taken
        Of each core, how much of it is taken.
    before
        Cores that the process had last: the first choice among equals, as its data may be in their caches.
    """
    count = min(len(taken), max(1, math.ceil(wanted - _TOLERANCE)))
    kept = set(before)
    order = sorted(taken, key=lambda core: (round(taken[core], 6), core not in kept, core))
    return tuple(sorted(order[:count]))
