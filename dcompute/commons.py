"""What a run has in common with others at its scheduler: slots, named limits, and whose turn it is. Called on the driver's thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dcompute import window as w
from dcompute.allowances import Allowances
from dcompute.neighbours import Neighbours, Stand
from dcompute.presence import Presence, Words

if TYPE_CHECKING:
    from dcompute.assignment import Assignment
    from dcompute.connection import Connection
    from dcompute.flights import Flights
    from dcompute.placing import Placing
    from dcompute.records import Receipt
    from dcompute.resources import WorkerOffer
    from dcompute.standing import Standing

#: A batch more counts so much in what batches take by now.
_NEWEST = 0.2


class Commons:
    """One run among others.

    Parameters
    ----------
    connection, assignment
        Of the run.
    told
        Called on a thread of its own, when it is time for :meth:`look`.
    """

    def __init__(self, connection: Connection, assignment: Assignment, *, told: Callable[[], None]) -> None:
        self._connection = connection
        self._assignment = assignment
        self._run = assignment.spec.run
        self._told = told
        self._allowances = Allowances(connection, self._run, assignment.quotas)
        self._presence = Presence(connection, self._run, told=told, also=self._exchange)
        self._neighbours = Neighbours(self._presence, weight=assignment.options.weight, ageing=assignment.ageing)
        self._fed: dict[str, w.Event] = {}
        self._had_others = False
        self._flights: Flights | None = None
        self.first = w.Allowance({})  #: what the run may use of its limits until more is known
        self._present: Mapping[str, WorkerOffer] = {}
        self._about: Words = {"dataset": assignment.store.url, "workload": assignment.spec.workload}
        self._batch_seconds: float | None = None
        self._second_below = assignment.window_config().second_below

    @property
    def others(self) -> Mapping[str, Words]:
        """What the other runs at the scheduler say of themselves."""
        return self._presence.others

    @property
    def beside(self) -> list[dict[str, Any]]:
        """The other runs at the scheduler, for who asks why this one waits."""
        found = []
        for run, words in sorted(self.others.items()):
            classes = [said for said in words.get("classes", ()) if isinstance(said, Mapping)]
            found.append(
                {
                    "run": run,
                    "workload": words.get("workload"),
                    "weight": words.get("weight"),
                    "priority": max((said.get("priority", 0) for said in classes), default=None),
                    "flying": sum(int(said.get("flying", 0)) for said in classes),
                }
            )
        return found

    def __enter__(self) -> Commons:
        return self

    def __exit__(self, *_: object) -> None:
        # what may still execute keeps what it uses until that times out
        idle = self._flights is None or not self._flights.at_work
        self._allowances.close(give_back=idle and not self._connection.lost)
        self._presence.leave()

    def join(self, placing: Placing) -> None:
        """Make this run known and see the others, before its first batch."""
        request = self._assignment.request
        self._say(Stand(demand={request: 1}, needed={}, flying={}, about={**self._about, **self._allowances.words}), placing)
        self._presence.meet()
        self._allowances.begin(self.others, time.monotonic())
        self._allowances.exchange(self.others)
        self._presence.start()
        placing.limit, placing.beside = self._limited, lambda: bool(self.others)
        self.first = w.Allowance(self._allowances.first())

    def watch(self, flights: Flights) -> None:
        """Take from here what is in flight."""
        self._flights = flights

    def look(self, window: w.Window, placing: Placing, standing: Standing) -> Iterator[w.Event]:
        """Tell the others where the run stands; what its window has to hear."""
        flying = self._flights.placed() if self._flights is not None else {}
        about = {**self._about, **standing.told(), **self._allowances.words}
        self._say(Stand(demand=window.demand(), needed=window.needed(), flying=flying, about=about), placing)
        self._neighbours.weigh(self._run, placing.present)
        if self._allowances:
            table = {**self.others, self._run: self._neighbours.words}
            allowed = self._allowances.reckon(table, window.in_use(), time.monotonic())
            yield from self._changed("allowance", w.Allowance(allowed))
        if self.others or self._had_others:
            self._had_others = bool(self.others)
            yield from self._changed("capacity", placing.capacity(window.classes))

    def _changed(self, what: str, event: w.Event) -> Iterator[w.Event]:
        if self._fed.get(what) != event:
            self._fed[what] = event
            yield event

    def _say(self, stand: Stand, placing: Placing) -> None:
        self._present = placing.present
        self._neighbours.tell(stand, self._present, placing.shunned, time.monotonic())

    def news(self) -> list[str]:
        """What is to be said of limits, once."""
        news, self._allowances.news = self._allowances.news, []
        return news

    def ended(self, receipt: Receipt) -> None:
        """A batch ended: how long batches take tells whether a slot gets a second one."""
        before = self._batch_seconds
        seconds = receipt.slot_seconds
        self._batch_seconds = seconds if before is None else before + _NEWEST * (seconds - before)

    def reprioritize(self, priority: int) -> w.Reprioritized:
        """The run has another priority from now on."""
        self._neighbours.raised = priority - self._assignment.request.priority
        return w.Reprioritized(priority)

    def _limited(self, full: w.Capacity) -> w.Capacity:
        deep = self._batch_seconds is not None and self._batch_seconds < self._second_below
        return self._neighbours.limited(full, self._present, deep=deep)

    def _exchange(self, others: Mapping[str, Words]) -> None:
        if self._allowances.exchange(others):
            self._told()
