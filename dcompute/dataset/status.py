"""The reading side of a dataset: open it anywhere, at any time, with no cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from os import PathLike
from typing import Any, Literal

from dcompute.dataset import reading
from dcompute.dataset.hiding import Hides
from dcompute.dataset.lease import Process, read_heartbeat
from dcompute.dataset.log import Log
from dcompute.dataset.outcomes import iter_outcomes
from dcompute.dataset.requests import post_request
from dcompute.dataset.state import State, fold
from dcompute.dataset.store import Store
from dcompute.dataset.writer import open_dataset
from dcompute.records import SUCCEEDED

#: A heartbeat from elsewhere as old as this (seconds, by two clocks) says that its driver is gone; for people, no decision rests on it.
STALE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far a dataset is."""

    url: str
    workload: str | None  #: name; None where no run has begun
    state: Literal["idle", "running", "interrupted"]  #: interrupted: its last driver is gone and did not close
    run: str | None  #: id of the last run
    driver_host: str | None  #: of the last run, while it is not closed
    driver_pid: int | None
    driver_since: float | None  #: seconds since 1970
    succeeded: int  #: items
    failed: int  #: items whose newest attempt failed, final or not
    failed_by_kind: Mapping[str, int] = field(default_factory=dict)
    attempts: int  #: that count, history too
    rows: int  #: of the results parts that count; rows in them that are hidden too
    bytes: int  #: of the results parts that count
    runs: int  #: how many there were
    last_commit: float | None  #: seconds since 1970, on the clock of the driver


class Dataset:
    """One dataset to read.

    It shows the dataset as it was when it was first used; :meth:`refresh` reads what was committed since.

    Parameters
    ----------
    store
        Where it is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state: State | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return self._store.url

    @property
    def state(self) -> State:
        """What its log says."""
        if self._state is None:
            self._state = open_dataset(self._store)[1]
        return self._state

    def refresh(self) -> Dataset:
        """This dataset as it is now."""
        if self._state is not None:
            fold(Log(self._store).read_all(self._state.number + 1), self._state)
        return self

    def status(self) -> Status:
        """How far it is, as of now."""
        return status_of(self._store, self.refresh().state)

    def results(self, columns: Sequence[str] | None = None) -> Any:
        """The results as a Dask dataframe: ``item_key``, ``key_kind`` and the columns that the workload returned.

        Parameters
        ----------
        columns
            These only, in this order.
        """
        return reading.results(self._store, self.state, columns)

    def attempts(self, columns: Sequence[str] | None = None) -> Any:
        """The attempts as a Dask dataframe, one row an attempt: outcome, error, host, cpu, memory, io, bottleneck."""
        return reading.attempts(self._store, self.state, columns)

    def failures(self, by: Literal["kind", "error", "host"] | None = None) -> Any:
        """What failed at last: a Dask dataframe with one row a failed item, its newest attempt.

        Parameters
        ----------
        by
            Group by this; then a pandas dataframe with the number of items and an example.
        """
        if by is None:
            return reading.failures(self._store, self.state)
        return reading.failures_by(self._store, self.state, by)

    def cancel(self) -> str | None:
        """Ask the run that is at work to stop; its driver looks once a second.

        Returns
        -------
        str or None
            The run's id; None where no run is at work.
        """
        state = self.refresh().state
        if not state.is_open or state.driver is None or driver_state(self._store, state) != "running":
            return None
        post_request(self._store, state.driver.run, {"do": "cancel"})
        return state.driver.run

    def __repr__(self) -> str:
        return f"<Dataset {self.url}>"

    def _repr_html_(self) -> str:
        found = self.status()
        failed = ", ".join(f"{count:,} {kind}" for kind, count in found.failed_by_kind.items()) or "none"
        lines = {
            "workload": found.workload or "none yet",
            "state": found.state,
            "succeeded": f"{found.succeeded:,}",
            "failed": failed,
            "rows": f"{found.rows:,}",
        }
        cells = "".join(f"<tr><th style='text-align:left'>{name}</th><td>{escape(text)}</td></tr>" for name, text in lines.items())
        return f"<b>{escape(self.url)}</b><table>{cells}</table>"


def open(url: str | PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Dataset:
    """The reading side of a dataset; needs no cluster.

    Parameters
    ----------
    url
        A local path or an fsspec URL.
    storage_options
        For fsspec: credentials, endpoint.

    Raises
    ------
    DatasetNotFoundError
        There is none.
    """
    dataset = Dataset(Store.at(url, storage_options or {}))
    _ = dataset.state  # says now what is wrong with it
    return dataset


def status_of(store: Store, state: State) -> Status:
    """How far a dataset is.

    Parameters
    ----------
    store
        Where it is.
    state
        What its log says.
    """
    failed = _failed_by_kind(store, state)
    parts = list(state.counted_parts())
    driver = state.driver if state.is_open else None
    return Status(
        url=store.url,
        workload=state.workload,
        state=driver_state(store, state),
        run=state.driver.run if state.driver else None,
        driver_host=driver.host if driver else None,
        driver_pid=driver.pid if driver else None,
        driver_since=driver.at if driver else None,
        succeeded=_succeeded(store, state),
        failed=sum(failed.values()),
        failed_by_kind=failed,
        attempts=_attempts(state),
        rows=sum(part.rows for part in parts),
        bytes=sum(part.size for part in parts),
        runs=len({opened.run for opened in state.opened.values()}),
        last_commit=state.at or None,
    )


def driver_state(store: Store, state: State) -> Literal["idle", "running", "interrupted"]:
    """What the last driver does, as far as can be seen from here."""
    if not state.is_open or state.driver is None:
        return "idle"
    alive, beat = Process.of(state.driver).is_alive(), read_heartbeat(store, state.driver.run) or {}
    if beat.get("state") in ("ended", "taken over"):
        return "interrupted"  # its process may live on: a notebook
    if alive is None:
        alive = abs(time.time() - float(beat.get("time", state.driver.at))) < STALE_SECONDS
    return "running" if alive else "interrupted"


def _failed_by_kind(store: Store, state: State) -> dict[str, int]:
    kinds = reading.failures_arrow(store, state, ["kind"]).column("kind").value_counts().to_pylist()
    return {count["values"]: count["counts"] for count in sorted(kinds, key=lambda one: -one["counts"])}


def _attempts(state: State) -> int:
    return sum(counted.batch.succeeded + sum(count for _, count in counted.batch.failed) for counted in state.batches)


def _succeeded(store: Store, state: State) -> int:
    total = sum(counted.batch.succeeded for counted in state.batches)
    hides = Hides.of(state.hides)
    if not len(hides) or not total:
        return total
    # what was hidden succeeded before: only the outcomes themselves say which of it did
    return sum(int((chunk.table.column("outcome").to_numpy() == SUCCEEDED).sum()) for chunk in iter_outcomes(store, state, columns=()))
