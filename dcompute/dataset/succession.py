"""Whether the driver of the last epoch is gone, so that another one may open the next."""

from __future__ import annotations

import time
from collections.abc import Callable

from dcompute.dataset.entries import Close, Entry, Open, Replace, Vacuum
from dcompute.dataset.lease import Clock, Process, Watch, read_heartbeat
from dcompute.dataset.log import Log
from dcompute.dataset.requests import RequestReader
from dcompute.dataset.state import State
from dcompute.dataset.store import Store
from dcompute.errors import DatasetBusy, DatasetMismatchError, RunCancelled

_LOOK_EVERY = 1.0  # seconds


def refuse_other_workload(store: Store, state: State, workload: str) -> None:
    """Raise ``DatasetMismatchError`` where the dataset belongs to a workload of another name."""
    if state.workload is not None and state.workload != workload:
        raise DatasetMismatchError(
            f"the dataset at {store.url} belongs to the workload {state.workload!r}, and this one is {workload!r}: "
            f"give {workload!r} a dataset of its own, or, where it is the same workload renamed, keep its name with name={state.workload!r}"
        )


class Succession:
    """Judges the driver of the last epoch.

    Parameters
    ----------
    store
        Where the dataset is.
    drives
        Whether a run has a driver in this very process.
    waiting
        Called with a line of progress and the seconds left.
    clock
        Tells the time and sleeps.
    """

    def __init__(
        self, store: Store, drives: Callable[[str], bool], *, waiting: Callable[[str, float], None] | None = None, clock: Clock = time
    ) -> None:
        self._store = store
        self._drives = drives
        self._waiting = waiting
        self._clock = clock

    def refuse_if_alive(self, state: State) -> None:
        """Raise ``DatasetBusy`` where the driver of the last epoch is seen alive."""
        if state.is_open and state.driver is not None and self._is_alive(state.driver):
            raise busy(self._store, state.driver)

    def await_end(self, state: State, log: Log) -> None:
        """Return when the driver of the last epoch is gone.

        A process that is dead on this host is gone at once, one that cannot be seen from here when its heartbeat has not changed for 15 s.

        Raises
        ------
        RunCancelled
            The driver that is waited for is asked to end meanwhile: whoever cancels what is at work on a dataset knows of no other run.
        DatasetBusy
            It lives.
        """
        driver = state.driver
        if driver is None:
            return
        watch = Watch(self._store, driver.run, self._clock)
        requests = RequestReader(self._store, driver.run)
        requests.skip()
        while state.is_open and (alive := self._is_alive(driver)) is not False:
            if alive or watch.has_changed():
                raise busy(self._store, driver)
            if (entry := log.read(state.number + 1)) is not None:
                self.read_on(state, entry)
                continue
            if (reason := requests.cancel_reason()) is not None:
                raise RunCancelled(f"the run was cancelled while it waited for the dataset ({reason}). To go on, run the same line again")
            left = watch.seconds_left()
            if left <= 0:
                return
            self._tell(driver, left)
            self._clock.sleep(min(_LOOK_EVERY, left))

    def read_on(self, state: State, entry: Entry, *, takeover: bool = False) -> None:
        """Fold an entry that somebody else wrote while this driver tried to open its epoch.

        Raises
        ------
        DatasetBusy
            It shows a live driver: another one opened the epoch, or, unless that is to be fenced off, the last one goes on.
        """
        state.apply(entry)
        opened = any(isinstance(action, Open) for action in entry.actions)
        worked = not all(isinstance(action, Replace | Vacuum | Close) for action in entry.actions)
        # an entry after a close that opens nothing is no driver's: somebody deleted
        if state.driver is not None and (opened or (worked and state.is_open and not takeover)):
            raise busy(self._store, state.driver)

    def _is_alive(self, driver: Open) -> bool | None:
        process = Process.of(driver)
        if process == Process.own():
            return self._drives(driver.run)
        alive = process.is_alive()
        if alive:
            heartbeat = read_heartbeat(self._store, driver.run) or {}
            # a notebook whose run ended without closing: its process lives on, its driver does not
            return None if heartbeat.get("state") in ("ended", "taken over") else True
        return alive

    def _tell(self, driver: Open, left: float) -> None:
        if self._waiting is not None:
            self._waiting(f"waiting for the driver on {driver.host} (process {driver.pid}), which is silent", left)


def busy(store: Store, driver: Open) -> DatasetBusy:
    """The error that names a live driver."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(driver.at))
    return DatasetBusy(
        f"another driver writes to {store.url}: run {driver.run} on {driver.host}, process {driver.pid}, since {since}. "
        "Wait for it to end, cancel it (dcompute cancel), or fence it off by a run with takeover=True",
        host=driver.host,
        pid=driver.pid,
        since=driver.at,
        run=driver.run,
    )
