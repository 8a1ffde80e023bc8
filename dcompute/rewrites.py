"""Written batches that do not join the schema: a task writes each once more, under a number of its own, which is committed in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dcompute.errors import ClusterError

if TYPE_CHECKING:
    from dcompute.flights import Flights
    from dcompute.ledger import Ledger
    from dcompute.placing import Placing
    from dcompute.window import Settled

#: Lost tasks that rewrite batches, in one run, after which it ends.
LOSSES = 5


class Rewrites:
    """The rewrites of one run that have not ended; everything here is called on the driver's thread.

    Parameters
    ----------
    flights, ledger, placing
        Of the run.
    again
        How an error names the line that goes on.
    """

    def __init__(self, flights: Flights, ledger: Ledger, placing: Placing, *, again: str) -> None:
        self._flights = flights
        self._ledger = ledger
        self._placing = placing
        self._again = again
        self._settled: dict[int, Settled] = {}
        self._workers: dict[int, frozenset[str]] = {}  #: who may do each
        self._losses = 0
        self._sent = 0

    def __len__(self) -> int:
        return len(self._settled)

    def __contains__(self, number: int) -> bool:
        return number in self._settled

    def begin(self, number: int, settled: Settled) -> None:
        """Have a settled batch rewritten under this number."""
        self._settled[number] = settled
        self._workers[number] = frozenset()
        self._ledger.make_room(settled)
        self.look()

    def lost(self, number: int) -> None:
        """A task came to nothing: another one goes out.

        Raises
        ------
        ClusterError
            Too many were lost.
        """
        self._losses += 1
        if self._losses > LOSSES:
            raise ClusterError(f"a batch could not be rewritten: {self._losses} tasks were lost. To go on, {self._again}")
        self._workers[number] = frozenset()
        self.look()

    def ended(self, number: int) -> Settled:
        """What was rewritten under this number."""
        self._flights.forget(number)
        del self._workers[number]
        return self._settled.pop(number)

    def look(self) -> None:
        """Send what nobody who is there may do: who has not shown that it can do the work of this run might lack dcompute."""
        present = self._placing.workers_present
        for number, workers in self._workers.items():
            if present and workers.isdisjoint(present):
                self._sent += 1
                self._workers[number] = present
                old = self._settled[number].receipt.batch
                self._flights.rewrite(number, old, self._ledger.schema, workers=tuple(present), again=self._sent)
