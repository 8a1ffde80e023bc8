"""One driver's right to write: an epoch of the log, held until a higher one is opened."""

from __future__ import annotations

import contextlib
import json
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from dcompute.dataset.adoption import Adopting, IsFinal, JoinSchemas, ReadMark, Rewrite
from dcompute.dataset.checkpoint import Checkpoints, read_state
from dcompute.dataset.entries import FORMAT, Action, Add, Close, Entry, Hide, Open
from dcompute.dataset.identity import Identity, id_in, refuse_headless
from dcompute.dataset.lease import Clock, Heartbeat, Process, Pulse
from dcompute.dataset.log import Log, LostRace
from dcompute.dataset.names import ATTEMPTS, DATASET, is_run_id, new_id
from dcompute.dataset.requests import RequestReader, post_request
from dcompute.dataset.state import State
from dcompute.dataset.store import Store
from dcompute.dataset.succession import Succession, refuse_other_workload
from dcompute.errors import DatasetCorruptError, DatasetNotFoundError, DatasetTakenOver, InternalError, StoreError, UsageError
from dcompute.records import split_batch_id

__all__ = ["RequestReader", "Writer", "open_dataset", "post_request"]

_NOTE_END_EVERY = 32  # entries


def open_dataset(store: Store, create: bool = False, at: int | None = None) -> tuple[str, State]:
    """The id of a dataset and what its log says.

    Parameters
    ----------
    store
        Where it is.
    create
        Whether to create it where there is none, after the storage has proved that it honours exclusive creation.
    at
        Number of the last entry to read; None: all of them.

    Raises
    ------
    DatasetNotFoundError
        There is none, and it was not to be created.
    DatasetCorruptError
        It was damaged: a file cannot be read as what it should be, or there is a log and no ``dataset.json``.
    StoreError
        The storage failed, or cannot be trusted.
    """
    return dataset_id(store, create), read_state(store, at)


def dataset_id(store: Store, create: bool = False) -> str:
    """The id of a dataset; see :func:`open_dataset`."""
    data = store.read_or_none(DATASET)
    if data is None:
        refuse_headless(store)
        data = create_dataset(store) if create else None
    if data is None:
        raise DatasetNotFoundError(f"there is no dataset at {store.url}. Is the path right? dc.map makes one when it first runs")
    return id_in(store, data)


def create_dataset(store: Store) -> bytes:
    """What ``dataset.json`` holds from now on; whoever was faster has made it.

    Raises
    ------
    StoreError
        The storage failed, or does not honour exclusive creation.
    """
    store.prove()
    data = json.dumps({"format": list(FORMAT), "id": new_id(), "created": time.time()}).encode() + b"\n"
    try:
        store.create(DATASET, data)
    except FileExistsError:
        pass
    except StoreError:
        # the answer may be what was lost: whatever stands there is the dataset
        if not store.exists(DATASET):
            raise
    return store.read(DATASET)


class Writer:
    """One driver's right to write to a dataset. Made by :meth:`acquire`; used from the driver's thread only."""

    #: Writers of this process, by run: a run of it that is not here has no driver any more.
    _live: ClassVar[weakref.WeakValueDictionary[str, Writer]] = weakref.WeakValueDictionary()
    #: Runs of this process that open their epoch just now: their entry may be seen before there is a writer.
    _opening: ClassVar[set[str]] = set()

    def __init__(self, store: Store, log: Log, state: State, *, dataset: str, clock: Clock) -> None:
        if state.driver is None:
            raise InternalError("a writer needs an open epoch")
        self.store = store
        self.state = state  #: what the log says, kept up to date
        self.dataset = dataset  #: id
        self.run = state.driver.run
        self.epoch = state.epoch
        self.misfits: tuple[str, ...] = ()  #: batches that :meth:`adopt` had to leave behind
        self._log = log
        self._checkpoints = Checkpoints(log, state.checkpoint)
        self._identity = Identity(store, dataset)
        self._heartbeat = Heartbeat(store, self.run, clock, confirm=self._identity.confirm)
        self._pending: tuple[tuple[Action, ...], str] | None = None
        self._pulse: Pulse | None = None
        self._counts: dict[str, Any] = {}
        self._ended: str | None = None
        self._live[self.run] = self

    @classmethod
    def check(cls, store: Store, workload: str, takeover: bool = False) -> State:
        """What the dataset's log says; raises at once what speaks against writing and needs no waiting.

        Parameters
        ----------
        store
            Where the dataset is, or will be.
        workload
            Name of the workload to run.
        takeover
            Whether a live driver is to be fenced off.

        Raises
        ------
        DatasetMismatchError
            The dataset belongs to another workload.
        DatasetBusy
            A driver is seen alive.
        """
        if store.read_or_none(DATASET) is None:
            return State()
        _, state = open_dataset(store)
        refuse_other_workload(store, state, workload)
        if not takeover:
            Succession(store, cls._drives).refuse_if_alive(state)
        return state

    @classmethod
    def acquire(
        cls,
        store: Store,
        *,
        workload: str,
        run: str,
        takeover: bool = False,
        waiting: Callable[[str, float], None] | None = None,
        clock: Clock = time,
    ) -> Writer:
        """Open the next epoch, when the driver of the last one is gone.

        Parameters
        ----------
        store
            Where the dataset is; created where there is none.
        workload
            Name of the workload to run.
        run
            Id of the run.
        takeover
            Whether a live driver is to be fenced off.
        waiting
            Called with a line of progress and the seconds left while a lease has to run out.
        clock
            Tells the time and sleeps.

        Raises
        ------
        DatasetMismatchError
            The dataset belongs to another workload.
        DatasetBusy
            Another driver is alive, or opened the epoch at the same moment.
        RunCancelled
            While a lease had to run out, its driver was asked to end.
        """
        if not is_run_id(run):
            raise UsageError(f"{run!r} cannot be the id of a run: use letters, digits, '-', '_' and '.'")
        dataset, state = open_dataset(store, create=True)
        log = Log(store, now=clock.time, sleep=clock.sleep)
        succession = Succession(store, cls._drives, waiting=waiting, clock=clock)
        opening = _open(workload, run)
        cls._opening.add(run)
        try:
            while True:
                refuse_other_workload(store, state, workload)
                if state.is_open and not takeover:
                    succession.await_end(state, log)
                try:
                    entry = log.append(state.number + 1, [replace(opening, epoch=state.epoch + 1, at=clock.time())])
                except LostRace as race:
                    succession.read_on(state, race.entry, takeover=takeover)
                    continue
                state.apply(entry)
                writer = cls(store, log, state, dataset=dataset, clock=clock)
                writer._heartbeat.beat("running", {}, now=True)
                return writer
        finally:
            cls._opening.discard(run)

    @classmethod
    def _drives(cls, run: str) -> bool:
        """Whether a run has a driver in this process; one that opens its epoch is in one set before it leaves the other."""
        return run in cls._opening or run in cls._live

    def commit(self, actions: Sequence[Action]) -> int:
        """Commit actions as one entry.

        Returns
        -------
        int
            The entry's number.

        Raises
        ------
        DatasetTakenOver
            A higher epoch was opened: nothing of this was committed, and nothing ever will be.
        DatasetCorruptError
            The dataset was removed, or another one is in its place: nothing of this counts there.
        StoreError
            The storage failed, and whether they are committed is not known: call again with the same actions, and more if there are,
            which then count once; or end the run without :meth:`close`.
        """
        self._refuse_ended()
        self._refuse_foreign(actions)
        if any(isinstance(action, Add) for action in actions):
            # a mark that was found, not made, may not be on the disk yet
            self.store.sync(ATTEMPTS)
        return self._commit(tuple(actions))

    def adopt(
        self, read_mark: ReadMark, is_final: IsFinal, *, join: JoinSchemas | None = None, rewrite: Rewrite | None = None
    ) -> list[str]:
        """Add what was written for earlier drivers and never added, and settle their epochs; before the first batch goes out.

        Parameters
        ----------
        read_mark
            Reads a mark: ``dataset.parts.read_mark``.
        is_final
            Whether a failure of this kind, at this attempt, is final.
        join
            Brings two schemas together: ``dataset.schema.join``.
        rewrite
            Rewrites a batch that does not join; gives the name of the mark that stands for it.

        Returns
        -------
        list[str]
            Ids of the batches added.
        """
        self._refuse_ended()
        epochs = [epoch for epoch in self.state.unsettled if epoch < self.epoch]
        if not epochs:
            return []
        adoption = Adopting(self.store, self.state, epochs, read_mark=read_mark).plan(is_final, join=join, rewrite=rewrite)
        self._commit(adoption.actions)
        self.misfits = adoption.misfits
        return list(adoption.batches)

    def catch_up(self) -> None:
        """Read what others committed meanwhile.

        Raises
        ------
        DatasetTakenOver
            A higher epoch was opened.
        """
        self._refuse_ended()
        while self._pending is None and (entry := self._log.read(self.state.number + 1)) is not None:
            self._read_on(entry)

    def heartbeat(self, counts: dict[str, Any], state: str = "running") -> None:
        """Say that this driver is alive, where that is due (every 5 s), and look whether it was taken over.

        Raises
        ------
        DatasetTakenOver
            A higher epoch was opened.
        DatasetCorruptError
            The dataset was removed, or another one is in its place.
        """
        self._counts = counts
        if self._heartbeat.beat(state, counts) or self._pulse is not None:
            # a storage that fails to be read now is met again at the next commit
            with contextlib.suppress(StoreError):
                self.catch_up()

    def keep_alive(self) -> None:
        """From now on the heartbeat is written by a thread of its own too, with the counts that :meth:`heartbeat` was last given.

        For what keeps the driver's thread busy for longer than its lease: a long log, a plan of millions of items.
        """
        if self._pulse is None and self._ended is None:
            # through a weak reference: a writer that nobody holds is one that ended
            this = weakref.ref(self)
            self._pulse = Pulse(lambda: _beat(this))

    def close(self, outcome: str = "") -> None:
        """Settle the epoch: nothing is in flight, and nothing more will be committed.

        Parameters
        ----------
        outcome
            How the run ended before its work was done: ``cancelled`` or ``failed``.
        """
        if self._ended is None:
            self._commit((Close(epoch=self.epoch, outcome=outcome),))
            self._checkpoints.close(self.state)
            self._note_end()
            self._end("closed", outcome)

    def abandon(self, outcome: str = "") -> None:
        """End without settling the epoch: a successor looks for what is still written; for ``outcome`` see :meth:`close`."""
        if self._ended is None:
            self._end("ended", outcome)

    def _commit(self, actions: tuple[Action, ...]) -> int:
        if self._pending is not None:
            pending, entry_id = self._pending
            number = self._append(pending, entry_id)
            actions = without(actions, pending)
            if not actions:
                return number
        return self._append(actions, new_id())

    def _append(self, actions: tuple[Action, ...], entry_id: str) -> int:
        self._pending = (actions, entry_id)
        entry = None
        try:
            while entry is None:
                self._identity.confirm_near()
                entry = self._append_next(actions, entry_id)
        except DatasetCorruptError as error:
            self._end("ended")
            raise self._identity.reason(error) from None
        self._pending = None
        self.state.apply(entry)
        self._checkpoints.note(self.state)
        if entry.number % _NOTE_END_EVERY == 0:
            self._note_end()
        return entry.number

    def _append_next(self, actions: tuple[Action, ...], entry_id: str) -> Entry | None:
        """The entry under the next number; None where that was somebody else's, which has been read now."""
        try:
            entry = self._log.append(self.state.number + 1, actions, entry_id)
        except LostRace as race:
            self._read_on(race.entry)
            return None
        try:
            self._identity.confirm_near()
        except DatasetCorruptError:
            # the dataset went while this was written: it must not stand in another one's log
            with contextlib.suppress(StoreError):
                self._log.withdraw(entry)
            raise
        return entry

    def _read_on(self, entry: Entry) -> None:
        self._identity.confirm()
        self.state.apply(entry)
        if self.state.epoch != self.epoch:
            self._end("taken over")
            raise self._taken_over()

    def _taken_over(self) -> DatasetTakenOver:
        other = self.state.driver
        who = "" if other is None else f" by run {other.run} on {other.host} (process {other.pid})"
        return DatasetTakenOver(f"{self.store.url} was taken over{who}: this run writes no more. What it had committed stays committed")

    def _refuse_ended(self) -> None:
        if self._ended == "taken over":
            raise self._taken_over()
        if self._ended is not None:
            raise InternalError(f"run {self.run} has {self._ended} its epoch and cannot write any more")

    def _refuse_foreign(self, actions: Sequence[Action]) -> None:
        added = [batch for action in actions if isinstance(action, Add) for batch in action.batches]
        if not added:
            return
        if any(epoch < self.epoch for epoch in self.state.unsettled):
            raise InternalError("batches cannot be added before those of earlier epochs were adopted")
        for batch in added:
            if split_batch_id(batch.id)[:2] != (self.run, self.epoch):
                raise InternalError(f"batch {batch.id} is not of run {self.run}, epoch {self.epoch}")

    def _note_end(self) -> None:
        with contextlib.suppress(StoreError):
            self._log.note_end(self.state.number)

    def _end(self, how: str, outcome: str = "") -> None:
        self._ended = how
        self._live.pop(self.run, None)
        if self._pulse is not None:
            self._pulse.stop()
        with contextlib.suppress(DatasetCorruptError):
            self._heartbeat.beat(how, self._counts, now=True, outcome=outcome)


def _beat(writer: Callable[[], Writer | None]) -> bool:
    alive = writer()
    if alive is not None:
        # the driver's thread meets it at its next beat or commit
        with contextlib.suppress(DatasetCorruptError):
            alive._heartbeat.beat("running", alive._counts)
    return alive is not None


def without(actions: Sequence[Action], committed: Sequence[Action]) -> tuple[Action, ...]:
    """The actions that are left when some are committed: a hide that is repeated after its add would hide what was added."""
    hidden = {(key, action.scope) for action in committed if isinstance(action, Hide) for key in action.keys}
    added = {batch.id for action in committed if isinstance(action, Add) for batch in action.batches}
    left: list[Action] = []
    for action in actions:
        if isinstance(action, Hide):
            keys = tuple(key for key in action.keys if (key, action.scope) not in hidden)
            left += [replace(action, keys=keys)] if keys else []
        elif isinstance(action, Add):
            batches = tuple(batch for batch in action.batches if batch.id not in added)
            left += [replace(action, batches=batches)] if batches else []
        elif action not in committed:
            left.append(action)
    return tuple(left)


def _open(workload: str, run: str) -> Open:
    own = Process.own()
    return Open(epoch=0, run=run, workload=workload, host=own.host, boot=own.boot, pid=own.pid, started=own.started, at=0.0)
