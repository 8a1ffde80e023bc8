"""Scaling of what is no cluster of Dask's own: an object that can be told how many workers it is to have."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import Any, Protocol

from dcompute.connection import offer_from, open_client, place_of
from dcompute.demand import RUNS, SCALING, Hearing, Resting, need
from dcompute.resources import WorkerOffer
from dcompute.scaling.view import report

log = logging.getLogger("dcompute.scaling")


class Scalable(Protocol):
    """What can be scaled."""

    scheduler_address: str  #: or another of the attributes by which a Client finds its scheduler

    def scale(self, n: int) -> Any:
        """Have so many workers; it may take its time. Fewer are asked for only while none has anything to do."""


class Scaler(threading.Thread):
    """Tells an object how many workers the runs on its scheduler can use.

    Parameters
    ----------
    cluster
        What is told.
    offer
        What a new worker has.
    minimum, maximum
        Workers at least, and at most.
    interval, patience
        Seconds between two looks, and for which nothing is to be done before there are fewer.
    """

    def __init__(self, cluster: Any, offer: WorkerOffer, *, minimum: int, maximum: int, interval: float, patience: float) -> None:
        super().__init__(name="dcompute-scaler", daemon=True)
        self.offer = offer
        self.minimum, self.maximum = minimum, maximum
        self._cluster = cluster
        self._interval = interval
        self._hearing = Hearing()
        self._resting = Resting(patience)
        self._told: int | None = None
        self._number = 0
        self._stopped = threading.Event()
        place = place_of(cluster)
        self._client = open_client(place.address, place.security)
        self.start()

    def stop(self) -> None:
        """Ask for nothing more; what was asked for stays."""
        self._stopped.set()
        if threading.current_thread() is not self:
            self.join(10)
        with contextlib.suppress(Exception):
            self._client.close(timeout=3)

    def run(self) -> None:
        """Look, decide, and tell, until it is stopped or the scheduler is gone."""
        while not self._stopped.wait(self._interval):
            if self._client.status in ("closed", "closing"):
                return
            try:
                self._look(time.monotonic())
            except Exception as error:  # noqa: BLE001  the next look may find a scheduler, or a cluster that does as it is told
                log.warning("the cluster could not be scaled: %s", error, extra={"action": "scaling_failed"})

    def _look(self, now: float) -> None:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        busy = any(self._client.processing().values())
        own = [offer_from(address, info) for address, info in workers.items()]
        demand = self._hearing.sum(self._client.get_metadata([RUNS], default={}), now)
        wanted = need(demand, own[0] if own else self.offer, own)
        want = min(self.maximum, max(self.minimum, wanted.workers))
        asked = self._told if self._told is not None else len(own)
        fewer = self._resting.over(["all"] if want < asked and not busy else [], now)
        if want > asked or fewer or self._told is None:
            asked = want if want > asked or fewer else asked
            log.info("asking for %d workers in all", asked, extra={"action": "scale"})
            self._cluster.scale(asked)
            self._told = asked
        self._number += 1
        told = report(self.offer, wanted, want=want, asked=asked, have=len(own), most=self.maximum, trouble="")
        self._client.set_metadata([SCALING], {"number": self._number, **told})
