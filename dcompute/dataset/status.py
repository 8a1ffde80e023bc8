"""The reading side of a dataset: open it anywhere, at any time, with no cluster."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from html import escape
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from dcompute.dataset import reading
from dcompute.dataset.lease import Process, read_heartbeat
from dcompute.dataset.log import Log
from dcompute.dataset.outcomes import iter_outcomes
from dcompute.dataset.readable import Readable
from dcompute.dataset.requests import post_request
from dcompute.dataset.state import State, fold
from dcompute.dataset.store import Store
from dcompute.dataset.tallying import tallied
from dcompute.dataset.told import told
from dcompute.dataset.writer import dataset_id, open_dataset
from dcompute.errors import UsageError
from dcompute.records import STREAMS, SUCCEEDED

if TYPE_CHECKING:
    from dcompute.dataset.archive import Copied
    from dcompute.dataset.compaction import Compaction
    from dcompute.dataset.deletion import Deletion
    from dcompute.dataset.explaining import Explanation
    from dcompute.dataset.files import Files
    from dcompute.dataset.frames import Reading
    from dcompute.dataset.logs import Printed
    from dcompute.dataset.releasing import Dropped, Released
    from dcompute.dataset.renaming import Renaming
    from dcompute.dataset.vacuum import Vacuumed

#: A heartbeat from elsewhere as old as this (seconds, by two clocks) says that its driver is gone; for people, no decision rests on it.
STALE_SECONDS = 60.0

DriverState = Literal["idle", "running", "cancelled", "failed", "interrupted"]
_OUTCOMES: tuple[Literal["cancelled", "failed"], ...] = ("cancelled", "failed")

At = int | str | datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far a dataset is; ``str()`` of it is for people."""

    url: str
    workload: str | None  #: name; None where no run has begun
    state: DriverState  #: of its last run, idle: it is done; interrupted: its driver is gone and did not say how it ended
    run: str | None  #: id of the last run
    driver_host: str | None  #: of the last run, while it is not closed
    driver_pid: int | None
    driver_since: float | None  #: seconds since 1970
    succeeded: int  #: items
    failed: int  #: items whose newest attempt failed, final or not
    failed_by_kind: Mapping[str, int] = field(default_factory=dict)
    attempts: int  #: that count, history too
    stored_rows: int  #: in the results parts that count; rows that count no more are among them, until compaction with ``all``
    bytes: int  #: of the results parts that count
    runs: int  #: how many there were
    last_commit: float | None  #: seconds since 1970, on the clock of the driver
    sources: Mapping[str, int] = field(default_factory=dict)  #: datasets that the last run read, and up to which entry of each

    def figures(self) -> dict[str, Any]:
        """All of it by name, for programs."""
        return asdict(self)

    def __str__(self) -> str:
        lines = {field.name.replace("_", " "): told(field.name, getattr(self, field.name)) for field in fields(self)}
        width = max(map(len, lines))
        return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items() if text)


class Dataset(Readable):
    """One dataset to read.

    It shows the dataset as it was when it was first used; :meth:`refresh` reads what was committed since.

    Parameters
    ----------
    store
        Where it is.
    at
        Number of an entry of the log: the dataset as it was then, for good; None: as it is.
    """

    def __init__(self, store: Store, at: int | None = None) -> None:
        self._store = store
        self._at = at
        self._state: State | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return self._store.url

    @property
    def at(self) -> int | None:
        """Number of the last entry of the log that it shows, where it was opened as of an earlier time."""
        return self._at

    @property
    def state(self) -> State:
        """What its log says."""
        if self._state is None:
            self._state = open_dataset(self._store, at=self._at)[1]
        return self._state

    def refresh(self) -> Dataset:
        """This dataset as it is now; one that was opened as of an earlier time stays as it is."""
        if self._state is not None and self._at is None:
            log = Log(self._store)
            last = log.read(self._state.number) if self._state.number else None
            if last is not None and last.id != self._state.entry_id:
                self._state = None  # another dataset is in its place: none of what was read is in that one
            else:
                fold(log.read_all(self._state.number + 1), self._state)
        return self

    def status(self) -> Status:
        """How far it is, as of now, or of the time at which it was opened."""
        return status_of(self._store, self.refresh().state, is_past=self._at is not None)

    def history(self) -> Any:
        """What happened to it: a pandas dataframe with a row for each entry of its log.

        Columns: ``number`` (a position for ``dc.open(url, at=...)``), ``time``, ``run``, ``what``, ``batches`` and in them ``succeeded``,
        ``failed`` and ``rows``, ``hidden`` (keys of which earlier rows count no more), ``replaced`` (results parts).
        """
        from dcompute.dataset.history import history

        return history(self._store, self._at)

    def logs(self, key: str | None = None, *, streams: Sequence[str] = STREAMS) -> Iterator[Printed]:
        """What items printed, one record for each attempt and stream that has something: in the order of commits.

        They have ``item_key``, ``key_kind``, ``attempt``, ``stream``, ``text``, and ``bytes``: of all it printed, where that is long.

        Parameters
        ----------
        key
            Of one item, as text.
        streams
            Of these only.
        """
        from dcompute.dataset.logs import NEEDED, LogParts, printed

        filters = None if key is None else [("item_key", "==", key)]
        return printed(self._attempts(NEEDED, filters), LogParts(self._store), streams)

    def files(self) -> Files:
        """The results parts that count, for any other tool, and whether they alone are the truth; the footer of each is read."""
        from dcompute.dataset.files import files_of

        self._refuse_removed()
        return files_of(self._store, self.state)

    def _results(self, columns: Sequence[str] | None, filters: Any, inputs: bool) -> Reading:
        self._refuse_removed()
        if not inputs:
            return reading.reading_results(self._store, self.state, columns, filters)
        from dcompute.dataset.inputs import with_inputs

        return with_inputs(reading.reading_results(self._store, self.state), columns, filters)

    def _attempts(self, columns: Sequence[str] | None, filters: Any) -> Reading:
        return reading.reading_attempts(self._store, self.state, columns, filters)

    def _failures(self, columns: Sequence[str] | None, filters: Any) -> Reading:
        return reading.reading_failures(self._store, self.state, columns, filters)

    def _quarantine(self, columns: Sequence[str] | None, filters: Any) -> Reading:
        from dcompute.dataset.quarantine import reading_quarantine

        return reading_quarantine(self._store, self.state, columns, filters)

    def _relation(self, connection: Any) -> Any:
        from dcompute.dataset.duck import relation

        self._refuse_removed()
        return relation(connection, self._store, self.state)

    def reproduce(self, key: Any, workload: Any, *, params: Mapping[str, Any] | None = None, value: Any = ...) -> Any:
        """Execute one item here, in this process, as its newest attempt was: with its seed and ``dc.current()``, for a debugger.

        Nothing is written, and what the workload raises comes out as it is. No timeout, memory limit or child process guards it.

        Parameters
        ----------
        key
            As the column ``item_key`` has it; a pair of that and ``key_kind``; or the value that gave it, which is the input then.
        workload
            The function, class or workload: a dataset holds no code.
        params
            As in the run: the dataset holds their digest only, with which these are compared.
        value
            The input, where the key does not hold it: that of a table with a named index, or with ``key=``, and texts with times or missing
            values, of which it is not known whether they were of pandas.

        Returns
        -------
        object
            What the workload returns; a list of what it yields.

        Raises
        ------
        UsageError
            There is no such item, the params are others, or the key does not hold the input.
        """
        from dcompute.reproduction import MISSING, reproduce

        return reproduce(self, key, workload, params=params, value=MISSING if value is ... else value)

    def explain(self) -> Explanation:
        """Why what waits of the run that is at work does not go out, as its driver said in the last seconds; print it."""
        from dcompute.dataset.explaining import explain

        self._refuse_past("explain")
        state = self.refresh().state
        return explain(self._store, state, driver_state(self._store, state))

    def reprioritize(self, priority: int | str) -> str | None:
        """Ask the run that is at work to go by another priority; see :meth:`Run.reprioritize`. Its id; None where no run is at work."""
        from dcompute.dataset.explaining import reprioritize

        self._refuse_past("reprioritize")
        state = self.refresh().state
        if not state.is_open or state.driver is None or driver_state(self._store, state) != "running":
            return None
        reprioritize(self._store, state.driver.run, priority)
        return state.driver.run

    def cancel(self) -> str | None:
        """Ask the run that is at work to stop; its driver looks once a second.

        Returns
        -------
        str or None
            The run's id; None where no run is at work.
        """
        self._refuse_past("cancel")
        state = self.refresh().state
        if not state.is_open or state.driver is None or driver_state(self._store, state) != "running":
            return None
        post_request(self._store, state.driver.run, {"do": "cancel"})
        return state.driver.run

    def compact(self, *, all: bool = False, sort_by: str | None = None, client: Any = None) -> Compaction:
        """Merge small results parts into files of about 128 MB; safe beside a run and readers.

        Parameters
        ----------
        all
            Each file is to have exactly the rows that count; after a :meth:`vacuum` the files alone are the truth then.
        sort_by
            A column by which the rows of each file are sorted.
        client
            A ``distributed.Client`` whose workers do it; else it is done here.
        """
        from dcompute.dataset.compaction import compact

        self._refuse_past("compact")
        done = compact(self._store, all=all, sort_by=sort_by, client=client)
        self.refresh()
        return done

    def vacuum(self, retention: Any = "7 days", *, dry_run: bool = False) -> Vacuumed:
        """Remove files that do not count any more; safe beside a run.

        Parameters
        ----------
        retention
            How long files stay for readers that began before: ``"7 days"``, or seconds.
        dry_run
            Only say which.
        """
        from dcompute.dataset.vacuum import vacuum

        self._refuse_past("vacuum")
        return vacuum(self._store, retention, dry_run=dry_run)

    def delete(self, keys: Iterable[str | tuple[str, str]] | None = None, *, run: str | None = None) -> Deletion:
        """Delete items: they count as never executed. Needs that no run is at work.

        Parameters
        ----------
        keys
            What ``item_key`` has; or pairs of that and ``key_kind``.
        run
            Id of a run: the items whose outcome is that run's.
        """
        from dcompute.dataset.deletion import delete

        self._refuse_past("delete")
        done = delete(self._store, keys, run=run)
        self.refresh()
        return done

    def rename(self, columns: Mapping[str, str]) -> Renaming:
        """Give columns of the results other names, in all that was written so far. Needs that no run is at work.

        Parameters
        ----------
        columns
            Old names and new ones; all at once, so that two columns may change names.
        """
        from dcompute.dataset.renaming import rename

        self._refuse_past("rename")
        done = rename(self._store, columns)
        self.refresh()
        return done

    def release(self, keys: Iterable[str | tuple[str, str]] | None = None, *, check: str | None = None, all: bool = False) -> Released:
        """Make records of the quarantine count, beside whatever run there is: rows are in the results, inputs are executed unchecked.

        Parameters
        ----------
        keys
            What ``item_key`` has; or pairs of that and ``key_kind``.
        check
            Those that did not pass the check of this name.
        all
            All of them.
        """
        from dcompute.dataset.releasing import release

        self._refuse_past("release")
        done = release(self._store, keys, check=check, all=all)
        self.refresh()
        return done

    def drop_quarantined(
        self, keys: Iterable[str | tuple[str, str]] | None = None, *, check: str | None = None, all: bool = False
    ) -> Dropped:
        """Take records out of the quarantine for good; see :meth:`release`. Results and attempts stay as they are."""
        from dcompute.dataset.releasing import drop_quarantined

        self._refuse_past("drop_quarantined")
        done = drop_quarantined(self._store, keys, check=check, all=all)
        self.refresh()
        return done

    def copy(self, to: str | PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> Copied:
        """Copy what counts, now or as of the time it was opened at, to another place, as a dataset of its own; and back from there.

        Parameters
        ----------
        to
            A path or URL where there is no dataset.
        storage_options
            For fsspec, of that place.
        """
        from dcompute.dataset.archive import copy

        self._refuse_removed()
        return copy(self._store, Store.named(to, storage_options), self._at)

    def __repr__(self) -> str:
        workload = self._state.workload if self._state is not None else None
        when = f" as of entry {self._at}" if self._at is not None else ""
        return f"<Dataset {self.url}{f' of {workload}' if workload else ''}{when}>"

    def _refuse_past(self, verb: str) -> None:
        if self._at is not None:
            raise UsageError(f"{verb}(): this is {self.url} as of entry {self._at}, which nothing changes any more: open it without at=")

    def _refuse_removed(self) -> None:
        if self._at is not None:
            from dcompute.dataset.history import refuse_removed

            refuse_removed(self._store, self.state)

    def _repr_html_(self) -> str:
        found = self.status()
        failed = ", ".join(f"{count:,} {kind}" for kind, count in found.failed_by_kind.items()) or "none"
        lines = {
            "workload": found.workload or "none yet",
            "state": found.state,
            "succeeded": f"{found.succeeded:,}",
            "failed": failed,
            "stored rows": f"{found.stored_rows:,}",
        }
        cells = "".join(f"<tr><th style='text-align:left'>{name}</th><td>{escape(text)}</td></tr>" for name, text in lines.items())
        return f"<b>{escape(self.url)}</b><table>{cells}</table>"


def open(url: str | PathLike[str], storage_options: Mapping[str, Any] | None = None, *, at: At = None) -> Dataset:
    """The reading side of one dataset; needs no cluster.

    Parameters
    ----------
    url
        A local path or an fsspec URL.
    storage_options
        For fsspec: credentials, endpoint.
    at
        Read it as it was: the number of an entry of its log (see :meth:`Dataset.history`), or a time, as ``datetime`` or in ISO 8601,
        local where it names no zone.

    Raises
    ------
    DatasetNotFoundError
        There is none.
    UsageError
        The URL names no place.
    """
    store = Store.named(url, storage_options)
    if at is None:
        dataset = Dataset(store)
    else:
        from dcompute.dataset.history import number_at

        dataset_id(store)  # that there is one is said before anything about its log
        dataset = Dataset(store, number_at(Log(store), at))
    _ = dataset.state  # says now what is wrong with it
    return dataset


def status_of(store: Store, state: State, *, is_past: bool = False) -> Status:
    """How far a dataset is.

    Parameters
    ----------
    store
        Where it is.
    state
        What its log says.
    is_past
        Whether it said so earlier: then a driver that had not closed its epoch was at work.
    """
    succeeded, tries, _, _ = state.totals()
    tally = tallied(store, state)
    failed = _failed_by_kind(store, state) if tally is None else tally.by_kind()
    rows, size = state.counted_size()
    driver = state.driver if state.is_open else None
    return Status(
        url=store.url,
        workload=state.workload,
        state=_state_then(state) if is_past else driver_state(store, state),
        run=state.driver.run if state.driver else None,
        driver_host=driver.host if driver else None,
        driver_pid=driver.pid if driver else None,
        driver_since=driver.at if driver else None,
        succeeded=_succeeded(store, state) if tally is None else tally.succeeded,
        failed=sum(failed.values()),
        failed_by_kind=failed,
        attempts=_attempts(store, state, succeeded + sum(tries.values())),
        stored_rows=rows,
        bytes=size,
        runs=len({opened.run for opened in state.opened.values()}),
        last_commit=state.at or None,
        sources=dict(state.run_info.sources) if state.run_info is not None else {},
    )


def _attempts(store: Store, state: State, added: int) -> int:
    # which rows a deletion ended only the attempts themselves say
    return reading.attempts_arrow(store, state, ["item_key"]).num_rows if state.hides_all else added


def driver_state(store: Store, state: State) -> DriverState:
    """What the last driver does, or how its run ended, as far as can be seen from here."""
    if not state.is_open or state.driver is None:
        return _outcome(state.outcome) or "idle"
    alive, beat = Process.of(state.driver).is_alive(), read_heartbeat(store, state.driver.run) or {}
    if beat.get("state") in ("ended", "taken over"):
        return _outcome(beat.get("outcome")) or "interrupted"  # its process may live on: a notebook
    if alive is None:
        alive = abs(time.time() - float(beat.get("time", state.driver.at))) < STALE_SECONDS
    return "running" if alive else "interrupted"


def _state_then(state: State) -> DriverState:
    return "running" if state.is_open else _outcome(state.outcome) or "idle"


def _outcome(said: object) -> Literal["cancelled", "failed"] | None:
    return next((known for known in _OUTCOMES if known == said), None)


def _failed_by_kind(store: Store, state: State) -> dict[str, int]:
    kinds = reading.failures_arrow(store, state, ["kind"]).column("kind").value_counts().to_pylist()
    return {count["values"]: count["counts"] for count in sorted(kinds, key=lambda one: -one["counts"])}


def _succeeded(store: Store, state: State) -> int:
    # what was hidden succeeded before: only the outcomes themselves say which of it did
    return sum(int((chunk.table.column("outcome").to_numpy() == SUCCEEDED).sum()) for chunk in iter_outcomes(store, state, columns=()))
