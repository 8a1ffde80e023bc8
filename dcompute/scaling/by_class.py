"""Dask's ``Adaptive`` with decisions of our own: for clusters that start and close single workers, or jobs of several.

It runs on the event loop of its cluster, reads at the scheduler what runs tell of their demand, and tells there what it asked for.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from inspect import isawaitable
from typing import Any

from distributed.deploy.adaptive import Adaptive

from dcompute.demand import RUNS, SCALING, Backoff, Hearing, Need, Resting, Unit, need, surplus
from dcompute.resources import WorkerOffer
from dcompute.scaling.view import View, foreign_tasks, offer_of_cluster, prefixes, report

log = logging.getLogger("dcompute.scaling")

#: Seconds for which a worker is idle before it is closed, where nobody says.
PATIENCE = 10.0
#: The same of a job, for which there may be a queue.
PATIENCE_FOR_JOBS = 60.0
#: How often (seconds) it is asked whether jobs are lost whose workers have not come.
ASK_SECONDS = 5.0


class ByClass(Adaptive):  # type: ignore[misc]  # distributed has no types here
    """Scales by what runs could have in flight of each class.

    Parameters
    ----------
    cluster
        Dask's cluster.
    offer
        What a new worker has; None: what the cluster says, and what its workers turn out to have.
    patience
        Seconds for which a worker is idle before it is closed; None: by the kind of cluster.
    options
        Of Dask's ``Adaptive``: ``minimum``, ``maximum``, ``interval``.
    """

    #: Runs tell their demand: they need not fill the scheduler with tasks for it to be seen.
    reads_demand = True

    def __init__(self, cluster: Any, *, offer: WorkerOffer | None = None, patience: float | None = None, **options: Any) -> None:
        jobs = hasattr(cluster, "forget_lost")
        self._given = offer
        self._hearing = Hearing()
        self._resting = Resting(patience if patience is not None else PATIENCE_FOR_JOBS if jobs else PATIENCE)
        self._backoff = Backoff()
        self._leaving: set[str] = set()
        self._seen: set[str] = set()
        self._looking = False
        self._ask_at = 0.0
        self._trouble = ""
        self._number = 0
        self._learnt: WorkerOffer | None = None
        super().__init__(cluster, **options)

    @property
    def offer(self) -> WorkerOffer | None:
        """What a new worker would have, as far as that is known."""
        return self._given or self._learnt or offer_of_cluster(self.cluster)

    async def adapt(self) -> None:
        """Look, decide, and ask for workers or close some."""
        if self._looking:
            return
        self._looking = True
        try:
            await self._look(time.monotonic())
        finally:
            self._looking = False

    async def _look(self, now: float) -> None:
        await self._forget_lost(now)
        view = await self._view()
        new = self.offer
        runs = await self.scheduler.get_metadata(keys=[RUNS], default={})
        demand = self._hearing.sum(runs, now)
        wanted = need(demand, new, view.own, view.others) if new is not None else Need(workers=self.minimum)
        want = wanted.workers + await self._want_of_others(runs, bool(demand), new)
        want = int(min(self.maximum, max(self.minimum, want)))
        units = [unit for unit in view.units if not unit.leaving]
        await self._grow(want, units, now)
        await self._shrink(want, view, wanted, now)
        self._number += 1
        asked = sum(unit.size for unit in units)
        told = report(new, wanted, want=want, asked=asked, have=len(view.own), most=self.maximum, trouble=self._trouble)
        await self.scheduler.set_metadata(keys=[SCALING], value={"number": self._number, **told})

    async def _view(self) -> View:
        identity = await self.scheduler.identity()
        processing = await self.scheduler.processing()
        view = View.of(self.cluster.worker_spec, identity["workers"], processing, self._leaving)
        self._leaving &= {unit.name for unit in view.units}
        if view.own:
            self._learnt = max(view.own, key=lambda offer: (offer.nthreads, offer.address))
        came = {offer.address for offer in view.own}
        if came - self._seen:
            self._backoff.came()
            self._trouble = ""
        self._seen = came
        return view

    async def _want_of_others(self, runs: Any, ours: bool, new: WorkerOffer | None) -> int:
        """Workers for tasks on this cluster that are not ours, as Dask judges them."""
        if not ours:
            return int(await super().target())
        count = await foreign_tasks(self.cluster, self.scheduler, prefixes(runs))
        if not count:
            return 0
        return min(int(await super().target()), -(-count // (new.nthreads if new is not None else 1)))

    # -- more ------------------------------------------------------------------------------------------------------------------------

    async def _grow(self, want: int, units: list[Unit], now: float) -> None:
        lost = self._lost(units)
        excess = sum(unit.size for unit in units) - want
        for name in list(lost):
            if lost[name].size <= excess:  # nobody wants it any more
                excess -= lost.pop(name).size
                self.cluster.worker_spec.pop(name, None)
        size = len((self.cluster.new_spec or {}).get("group", [""]))
        more = -(-max(0, -excess) // size)
        if now < self._backoff.until or not (lost or more):
            return
        log.info("asking for %d workers", (len(lost) + more) * size, extra={"action": "scale_up"})
        if more:
            # specs of units that leave are still there, and are not to be counted
            result = self.cluster.scale((len(self.cluster.worker_spec) + more) * size)
            if isawaitable(result):
                await result
        await self.cluster

    def _lost(self, units: list[Unit]) -> dict[Any, Unit]:
        """Spec's name -> those that should be there, and of which nothing is: their worker was lost."""
        by_name = {unit.name: unit for unit in units}
        found = {name: by_name.get(str(name)) for name in self.cluster.worker_spec if name not in self.cluster.workers}
        return {name: unit for name, unit in found.items() if unit is not None}

    async def _forget_lost(self, now: float) -> None:
        forget = getattr(self.cluster, "forget_lost", None)
        if forget is None or now < self._ask_at:
            return
        self._ask_at = now + min(ASK_SECONDS, max(self.interval or 0.0, 0.5) * 5)
        refusal = self.cluster.refusal()
        lost = await forget()
        if lost:
            self._backoff.lost(len(lost), now)
            why = f"Slurm took none: {refusal}" if refusal else "they ended before their worker came: see what they printed"
            self._trouble = f"{len(lost)} jobs are asked for again, in {max(0.0, self._backoff.until - now):.0f} s ({why})"
            log.warning("%s", self._trouble, extra={"action": "jobs_lost"})

    # -- less ------------------------------------------------------------------------------------------------------------------------

    async def _shrink(self, want: int, view: View, wanted: Need, now: float) -> None:
        unwanted = {unit.name: unit for unit in surplus(want, [unit for unit in view.units if not unit.leaving], wanted.kept)}
        closing = [unit.name for unit in view.units if unit.leaving and not unit.busy]
        for name in self._resting.over(unwanted, now):
            unit = unwanted[name]
            if not unit.present:
                closing.append(name)
            elif await self._takes_nothing_new(unit.present):
                # looked at once more before it is closed: a task may have been sent to it in the same moment
                self._leaving.add(name)
        if closing:
            log.info("closing %s", ", ".join(sorted(closing)), extra={"action": "scale_down"})
            names = [name for name in self.cluster.worker_spec if str(name) in closing]
            await self.cluster.scale_down(names)

    async def _takes_nothing_new(self, addresses: frozenset[str]) -> bool:
        """Have workers take no new tasks; False: one holds what nobody else could take over."""
        found: Mapping[str, Any] = {}
        with contextlib.suppress(OSError):
            found = await self.scheduler.retire_workers(workers=sorted(addresses), remove=False, close_workers=False)
        return addresses <= set(found)
