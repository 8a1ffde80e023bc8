"""Checkpoints of a log: its sum up to a number, in one file beside it, so that opening a long log reads few files.

A checkpoint is never truth: one that is missing, damaged, of another version or of another log costs time, and nothing else.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Collection

from dcompute.dataset.log import Log
from dcompute.dataset.names import checkpoint_name
from dcompute.dataset.state import State, fold
from dcompute.dataset.store import Store
from dcompute.errors import DcomputeError

logger = logging.getLogger("dcompute.dataset")

#: A driver that closes its epoch leaves a checkpoint where more entries than this came since the last one.
AT_CLOSE = 100
# a log of a million entries gets one every 10,000: all that is ever written stays within a hundred times the last one
_SHARE = 100
# parts that may be read for the tally in a checkpoint from an object store, where a run has few requests to spare
_MOST_REQUESTS = 1000


def read_state(store: Store, at: int | None = None) -> State:
    """What the log says, up to its end or up to an entry.

    Parameters
    ----------
    store
        The dataset's.
    at
        Number of an entry that is there; None: the end.
    """
    log = Log(store)
    state = State()
    for number in reversed([known for known in log.hint().checkpoints if at is None or known <= at]):
        if (found := read_checkpoint(log, number)) is not None:
            state = found
            break
    return fold(log.read_all(state.number + 1, at), state)


def read_checkpoint(log: Log, number: int) -> State | None:
    """The state of a checkpoint; None where it cannot be used."""
    name = checkpoint_name(number)
    try:
        data = log.store.read_or_none(name)
        if data is None:
            return None  # its driver removed it as too old meanwhile, or a copy of the dataset has none
        state, entry = _opened(data), log.read(number)
    except DcomputeError as error:
        _warn(log, name, str(error))
        return None
    if state is None or entry is None or (state.number, state.entry_id) != (number, entry.id):
        _warn(log, name, "it is damaged, of another version or of another log")
        return None
    state.checkpoint = number
    return state


class Checkpoints:
    """Writes the checkpoints of one driver, in a thread beside its work; one that fails is a line in the program's log.

    Parameters
    ----------
    log
        The dataset's.
    last
        Number of the newest one there is; 0: none.
    """

    def __init__(self, log: Log, last: int) -> None:
        self._log = log
        self._last = last
        self._thread: threading.Thread | None = None
        self._written: State | None = None  # what the last one holds, until it is handed on

    def note(self, state: State) -> None:
        """Begin one where it is due; the state is that after an entry of this driver."""
        if self._thread is not None and not self._thread.is_alive():
            self._end(state)
        if self._thread is None and self._is_due(state.number):
            self._begin(state)

    def close(self, state: State) -> None:
        """Write the one that a closed epoch leaves."""
        self._end(state)
        if state.number - self._last > AT_CLOSE:
            self._begin(state)
            self._end(state)

    def _is_due(self, number: int) -> bool:
        since = number - self._last
        if since <= number // _SHARE:
            return False
        from dcompute.config import settings

        return since >= settings().driver.checkpoint

    def _begin(self, state: State) -> None:
        self._last = state.number
        self._thread = threading.Thread(target=self._write, args=(state.copy(),), name="dcompute-checkpoint", daemon=True)
        self._thread.start()

    def _end(self, state: State) -> None:
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        if self._written is not None:
            # what is on storage takes a tenth of the memory as columns
            state.batches.seal(self._written.batches.columns())
            state.keep_tally(self._written.tally)
            self._written = None

    def _write(self, state: State) -> None:
        from dcompute.dataset.checkpoint_file import to_bytes
        from dcompute.dataset.tallying import tallied, unread

        store = self._log.store
        try:
            if store.is_local or store.is_memory or unread(state) <= _MOST_REQUESTS:
                tallied(store, state)
            with contextlib.suppress(FileExistsError):
                store.create(checkpoint_name(state.number), to_bytes(state))
            self._written = state
            self._thin(state.number)
        except Exception as error:  # noqa: BLE001  whatever it is, the run goes on without
            logger.warning("no checkpoint of %s was written at entry %d: %s", store.url, state.number, error)

    def _thin(self, number: int) -> None:
        known = {*self._log.hint().checkpoints, number}
        gone = known.difference(staying(known))
        # first the hint, then the file: who reads the hint finds what it names
        self._log.note_end(number, checkpoints=[number], gone=gone)
        self._log.store.remove([checkpoint_name(each) for each in gone])


def _opened(data: bytes) -> State | None:
    """The state of a checkpoint's content; None where there is none in it."""
    from pyarrow import ArrowException

    from dcompute.dataset.checkpoint_file import from_bytes

    try:
        return from_bytes(data)
    except (ArrowException, DcomputeError, OSError, ValueError, TypeError, LookupError, AttributeError):
        return None


def _warn(log: Log, name: str, why: str) -> None:
    logger.warning("%s/%s cannot be used, and the log is read in its place: %s", log.store.url, name, why)


def staying(numbers: Collection[int]) -> list[int]:
    """Which checkpoints stay: the newest two, the oldest, and between them those that leave no gap longer than it is far from the newest.

    So there are few, about two at each doubling of the distance. A gap stays as long as it is while the newest moves away from it: reading
    as of an older number goes on from one that is hardly farther from it than it is from the end.
    """
    newest, *older = sorted(numbers, reverse=True)
    kept = [newest]
    for number, next_older in itertools.pairwise([*older, None]):
        if number is not None and (next_older is None or newest - next_older > 2 * (newest - kept[-1])):
            kept.append(number)
    return kept[::-1]
