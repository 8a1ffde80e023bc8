"""What of a mergeable report has to be computed again. Pure: no storage, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

#: A portion is computed from about so many partitions ...
PORTION = 8.0
#: ... or from more, so that there are not more portions than this; where small ones make them more, these are put together.
MOST = 64
_AFTER_MERGING = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """Which portions of the last version stay, which become one, and from which files new ones are computed."""

    stay: tuple[int, ...] = ()
    merge: tuple[int, ...] = ()  #: portions that become one, of what was computed
    compute: tuple[tuple[str, ...], ...] = ()  #: files of each new portion
    reason: str = field(default="")  #: why nothing of the last version stays


def all_of(names: Iterable[str], weight: Callable[[str], float], reason: str) -> Plan:
    """Everything is computed."""
    return Plan(compute=tuple(grouped(list(names), weight)) or ((),), reason=reason)


def some_of(
    portions: Sequence[Sequence[str]],
    changed: Sequence[bool],
    added: Sequence[str],
    *,
    known: Callable[[str], bool],
    weight: Callable[[str], float],
) -> Plan:
    """What changed is computed, and what came.

    Parameters
    ----------
    portions
        Of the last version: the files that each was computed from.
    changed
        Of each, whether rows of these files changed.
    added
        Files that came since.
    known
        Whether a file is still there; rows of one that is not do not count any more.
    weight
        Size of a file, in partitions.
    """
    again = [name for names, is_changed in zip(portions, changed, strict=True) if is_changed for name in names if known(name)]
    compute = tuple(grouped([*again, *added], weight))
    stay = [index for index, is_changed in enumerate(changed) if not is_changed]
    merge: list[int] = []
    if len(stay) + len(compute) > MOST:
        smallest = sorted(stay, key=lambda index: len(portions[index]))
        merge = sorted(smallest[: max(2, len(stay) + len(compute) - _AFTER_MERGING)])
        stay = [index for index in stay if index not in merge]
    if not stay and not merge and not compute:
        compute = ((),)
    return Plan(tuple(stay), tuple(merge), compute)


def grouped(names: Sequence[str], weight: Callable[[str], float]) -> list[tuple[str, ...]]:
    """Neighbours together, of about :data:`PORTION` partitions or a :data:`MOST`-th of all."""
    weights = [weight(name) for name in names]
    target = max(PORTION, 2 * sum(weights) / MOST)
    groups: list[list[str]] = []
    total = 0.0
    for name, size in zip(names, weights, strict=True):
        if not groups or total + size > target:
            groups.append([])
            total = 0.0
        groups[-1].append(name)
        total += size
    return [tuple(group) for group in groups]
