"""What a window could have in flight, and why what waits does not go out: asked from outside, computed when it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dcompute.records import Request
from dcompute.window.core import Core
from dcompute.window.queues import ItemClass
from dcompute.window.slots import Batch
from dcompute.window.taking import Taker
from dcompute.window.waiting import Waiting, Why, words


class Explainer:
    """Answers questions about one window; changes nothing."""

    def __init__(self, core: Core, taker: Taker) -> None:
        self._core = core
        self._taker = taker

    def demand(self) -> Mapping[Request, int]:
        """Batches that each class could have in flight now, wherever there was room; those in flight are among them."""
        core = self._core
        flying = core.slots.flying
        if core.end is not None:
            return {request: count for request, count in flying.items() if count}
        if core.pause.why is not None:
            return self._of_probes()
        return {found.request: self._wanted(found) for found in core.queues.classes.values()}

    def needed(self) -> Mapping[Request, int]:
        """As :meth:`demand`, if there was enough of all named limits."""
        core = self._core
        if core.end is not None or core.pause.why is not None:
            return self.demand()
        return {found.request: core.slots.flying.get(found.request, 0) + self._batches(found) for found in core.queues.classes.values()}

    def in_use(self) -> Mapping[str, float]:
        """How much of each named limit that is a number at once is in use."""
        return self._core.quotas.held(self._core.now)

    def _of_probes(self) -> Mapping[Request, int]:
        core = self._core
        wanted = {found.request: core.slots.flying.get(found.request, 0) for found in core.queues.classes.values()}
        waits = [found for found in core.queues.classes.values() if found.ready or found.alone]
        if waits and core.pause.probe is None:
            wanted[waits[0].request] += 1
        return wanted

    def _wanted(self, found: ItemClass) -> int:
        core = self._core
        flying, waiting = core.slots.flying.get(found.request, 0), self._batches(found)
        if not waiting or not found.request.uses:
            return flying + waiting
        if not core.quotas.permitted(found.request, 1, core.now):
            return flying
        most = core.quotas.most(found.request, core.now)
        return flying + waiting if most is None else min(flying + waiting, most)

    def _batches(self, found: ItemClass) -> int:
        """Batches that what waits of a class would make."""
        core = self._core
        left = found.loose
        if not core.exhausted and found.request == core.config.request:
            left += core.remaining or 0
        loose = -(-left // self._taker.size(found))
        return loose + len(found.waiting) + len(found.pieces) + len(found.alone)

    def reasons(self) -> list[Waiting]:
        """For each class of which something waits: how much, and why."""
        core = self._core
        if core.end is not None:
            return []
        found = [waiting for each in core.queues.classes.values() for waiting in self._of(each)]
        return found + list(self._backing_off())

    def _of(self, found: ItemClass) -> Iterator[Waiting]:
        alone = len(found.alone)
        ready = found.count - alone
        for items, why in ((ready, found.why), (alone, found.why_alone)):
            if items:
                yield self._reason(found, items, self._why(found, why))

    def _why(self, found: ItemClass, last: Why | None) -> Why:
        core = self._core
        if core.pause.why is not None:
            return Why.PAUSED
        return Why.UNMEASURED if found.request not in core.slots.slots else last or Why.BUSY

    def _backing_off(self) -> Iterator[Waiting]:
        core = self._core
        counts: dict[Request, int] = {}
        first: dict[Request, float] = {}
        for due, what in core.queues.later.waiting():
            counts[what.request] = counts.get(what.request, 0) + (len(what.tries) if isinstance(what, Batch) else 1)
            first[what.request] = min(due, first.get(what.request, due))
        for request, items in counts.items():
            text = f"in back-off after a failure: the next attempt in {max(0.0, first[request] - core.now):.3g} s"
            yield Waiting(request=request, items=items, why=Why.BACK_OFF, text=text, until=first[request])

    def _reason(self, found: ItemClass, items: int, why: Why) -> Waiting:
        core = self._core
        until: float | None = None
        if why is Why.PAUSED:
            until = core.pause.due if core.pause.probe is None else None
        elif why is Why.PROBING and found.first_sent is not None:
            until = found.first_sent + core.config.probe_wait
        elif why is Why.LIMIT and found.lack is not None:
            until = found.lack.until
        return Waiting(request=found.request, items=items, why=why, text=self._text(found, why), until=until)

    def _text(self, found: ItemClass, why: Why) -> str:
        core = self._core
        served = core.slots.served(found.request)
        match why:
            case Why.PAUSED:
                kind, error = core.pause.why or ("", "")
                return f"the run pauses: nearly everything failed with {error} ({kind}), and single items probe"
            case Why.NO_WORKER:
                return f"no worker has room for {words(found.request)}"
            case Why.BUSY:
                return f"all {served:,} slots for it are taken"
            case Why.KEPT:
                return f"{len(core.slots.kept):,} workers are kept free until what needs one whole has room"
            case Why.LIMIT if found.lack is not None:
                return found.lack.text
            case Why.SHARE:
                return f"the run has the {core.slots.count:,} batches in flight that are its share"
            case _:
                return _PLAIN[why]


_PLAIN: Mapping[Why, str] = {
    Why.UNMEASURED: "what the cluster offers it is looked up",
    Why.ALONE: "items that run alone wait for a worker that has nothing else of this run",
    Why.SHRUNK: "workers left, and more is in flight than those that are there have room for",
    Why.PROBING: "the first items are on their way to be measured",
    Why.FILLING: "a batch that is not full waits a moment for more items",
}
