"""Why what waits of a run does not go out, and a run's other priority: from the dataset's folder alone, with no cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from dcompute.dataset.lease import read_heartbeat
from dcompute.dataset.requests import post_request
from dcompute.dataset.store import Store

if TYPE_CHECKING:
    from dcompute.dataset.state import State

#: A heartbeat holds so many classes and other runs at most, with texts of so many characters.
MOST, MOST_TEXT = 20, 300

_OVER = {
    "idle": "no run is at work: the last one did its work",
    "cancelled": "no run is at work: the last one was cancelled. Run the same line again, and it goes on",
    "failed": "no run is at work: the last one failed. Run the same line again, and it goes on",
    "interrupted": "no run is at work: the driver of the last one is gone. Run the same line again, and it goes on",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why one class waits."""

    asks: str  #: what an item of it asks for
    items: int  #: how many wait
    why: str  #: in one word
    text: str
    seconds: float | None = None  #: until something may change, where that is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a run waits for; ``str()`` of it is for people."""

    url: str
    state: str  #: running, or how the last run ended
    run: str | None
    running: int = 0  #: items at work
    note: str = ""  #: what the whole run does or waits for
    reasons: Sequence[Reason] = ()
    beside: Sequence[Mapping[str, Any]] = ()  #: other runs at its scheduler: run, workload, weight, priority, batches in flight
    age: float | None = None  #: seconds since the driver said so

    def figures(self) -> dict[str, Any]:
        """All of it by name, for programs."""
        return asdict(self)

    def __str__(self) -> str:
        if self.state != "running":
            return _OVER.get(self.state, self.state)
        lines = [self.note] if self.note else []
        lines += [f"{reason.items:,} items ({reason.asks}): {reason.text}{_within(reason.seconds)}" for reason in self.reasons]
        if not lines:
            lines = [f"nothing waits: {self.running:,} items are at work" if self.age is not None else "the run has not said anything yet"]
        lines += [_other(other) for other in self.beside]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a driver says of itself in its heartbeat, beside its counts."""

    note: str = ""
    reasons: Sequence[Reason] = ()
    beside: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        """As a heartbeat holds it: bounded."""
        reasons = [{**asdict(reason), "text": reason.text[:MOST_TEXT]} for reason in self.reasons[:MOST]]
        return {"note": self.note[:MOST_TEXT], "waiting": reasons, "beside": [dict(other) for other in self.beside[:MOST]]}


def explanation(url: str, run: str | None, state: str, counts: Mapping[str, Any], age: float | None = None) -> Explanation:
    """What is known of a run, from what its driver said; what another version said otherwise is left out."""
    return Explanation(
        url=url,
        state=state,
        run=run,
        running=_number(counts.get("running")),
        note=str(counts.get("note") or ""),
        reasons=tuple(reason for said in _mappings(counts.get("waiting")) if (reason := _reason(said)) is not None),
        beside=_mappings(counts.get("beside")),
        age=age,
    )


def explain(store: Store, state: State, now_state: str) -> Explanation:
    """Why what waits does not go out, by the last heartbeat of the run that is at work.

    Parameters
    ----------
    store
        Where the dataset is.
    state
        What its log says.
    now_state
        Whether a run is at work, or how the last one ended.
    """
    run = state.driver.run if state.driver is not None else None
    if run is None or now_state != "running":
        return explanation(store.url, run, now_state, {})
    beat = read_heartbeat(store, run) or {}
    counts, at = beat.get("counts"), beat.get("time")
    known = counts if isinstance(counts, Mapping) else {}
    age = max(0.0, time.time() - float(at)) if known and isinstance(at, int | float) else None
    return explanation(store.url, run, now_state, known, age)


def reprioritize(store: Store, run: str, priority: int | str) -> int:
    """Ask a run to have another priority; the number that it means."""
    from dcompute.priority import parse_priority

    number = parse_priority(priority)
    post_request(store, run, {"do": "priority", "priority": number})
    return number


def _reason(said: Mapping[str, Any]) -> Reason | None:
    try:
        seconds = said.get("seconds")
        return Reason(
            asks=str(said["asks"]),
            items=int(said["items"]),
            why=str(said["why"]),
            text=str(said["text"]),
            seconds=None if seconds is None else float(seconds),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _mappings(value: Any) -> tuple[Mapping[str, Any], ...]:
    return tuple(one for one in value if isinstance(one, Mapping)) if isinstance(value, list | tuple) else ()


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _within(seconds: float | None) -> str:
    return "" if seconds is None else f" ({seconds:.0f} s)"


def _other(other: Mapping[str, Any]) -> str:
    return (
        f"beside it: run {other.get('run')} of {other.get('workload')}, priority {other.get('priority')}, weight {other.get('weight')}, "
        f"{other.get('flying')} batches in flight"
    )
