"""What a call may leave changed in its process, and whom a failure is counted against where it did: pure functions of what was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple, TypeVar

_T = TypeVar("_T")
#: As ``resource.RLIM_INFINITY``.
_NO_LIMIT = -1


class Found(NamedTuple):
    """What a look at the process found, by name."""

    changed: tuple[str, ...] = ()  #: put back as set-up left it
    lost: tuple[str, ...] = ()  #: cannot be put back


class Next(Enum):
    """What comes after a call."""

    GO_ON = "go on"  #: its outcome counts; the next item
    AGAIN = "again"  #: the same item once more, here
    FRESH = "fresh"  #: the same item once more, in a fresh process
    LEAVE = "leave"  #: its outcome counts; the next item in a fresh process


def after_call(*, succeeded: bool, idempotent: bool, found: Found, earlier: bool, spoilt: bool) -> Next:
    """What comes after a call, where the process was looked at when it had ended.

    A failure in a process that an earlier item may have changed is nobody's, and the item is executed again where nothing is changed. An
    item that may be executed once only never is: for it a process that cannot be put back is left at once.

    Parameters
    ----------
    found
        By this look.
    earlier
        Other items were executed since the look before: what was found may be theirs.
    spoilt
        An earlier look found what cannot be put back.
    """
    if not idempotent:
        return Next.LEAVE if spoilt or found.lost else Next.GO_ON
    if succeeded:
        return Next.GO_ON
    if spoilt or (earlier and found.lost):
        return Next.FRESH
    return Next.AGAIN if earlier and found.changed else Next.GO_ON


def variables(was: Mapping[bytes, bytes], now: Mapping[bytes, bytes], *, imported: bool) -> dict[bytes, bytes]:
    """The environment as it shall be.

    Modules set variables when they are imported, once a process: where some were (``imported``), names that are new stay.
    """
    return {**now, **was} if imported else dict(was)


def entries(was: Sequence[_T], now: object, *, imported: bool) -> list[_T]:
    """A list such as ``sys.path`` as it shall be; as with :func:`variables`, what is new in it stays where modules were imported."""
    if not imported or not isinstance(now, list):
        return list(was)
    rest = iter(now)
    return list(now) if all(any(one is other for other in rest) for one in was) else list(was)


def limit(was: tuple[int, int], now: tuple[int, int]) -> tuple[int, int] | None:
    """The limit of a resource (soft, hard) as it shall be; None where it may stay: one that was raised harms nobody."""
    return was if _amount(now[0]) < _amount(was[0]) else None


def within(was: tuple[int, int], now: tuple[int, int]) -> tuple[int, int]:
    """The most of a limit that a process gets back which may not raise its hard one."""
    hard = min(was[1], now[1], key=_amount)
    return min(was[0], hard, key=_amount), hard


def _amount(value: int) -> float:
    return float("inf") if value == _NO_LIMIT else value
