"""Whether the dataset that a driver opened is still the one at its place: folders are removed, renamed and begun anew in mid-run."""

from __future__ import annotations

import json
import re

from dcompute.dataset.entries import FORMAT
from dcompute.dataset.names import DATASET, entry_name
from dcompute.dataset.store import Store
from dcompute.errors import DatasetCorruptError, StoreError

_ENTRY = re.compile(r"log/\d+\.json")


class Identity:
    """The dataset of one driver, told from others by the id in its ``dataset.json``; from any thread.

    Parameters
    ----------
    store
        Where the dataset is.
    dataset
        Its id.
    """

    def __init__(self, store: Store, dataset: str) -> None:
        self._store = store
        self._dataset = dataset
        self._lost: str | None = None  # what happened to it: a dataset that was lost once is not trusted again
        self._is_near = store.is_local or store.is_memory

    def confirm(self) -> None:
        """Ask the storage, with one request.

        Raises
        ------
        DatasetCorruptError
            The dataset was removed or renamed, or another one is in its place.
        StoreError
            The storage failed.
        """
        self._refuse_lost()
        data = self._store.read_or_none(DATASET)
        if data is None:
            self._lost = _gone(self._store)
        elif id_in(self._store, data) != self._dataset:
            self._lost = _replaced(self._store)
        self._refuse_lost()

    def confirm_near(self) -> None:
        """As :meth:`confirm` where that costs microseconds; of an object store this says what was found at the last heartbeat."""
        self._refuse_lost()
        if self._is_near:
            self.confirm()

    def reason(self, error: DatasetCorruptError) -> DatasetCorruptError:
        """What to tell of an error of the log: that the whole dataset is gone, where it is."""
        try:
            self.confirm()
        except DatasetCorruptError as lost:
            return lost
        except StoreError:
            pass
        return error

    def _refuse_lost(self) -> None:
        if self._lost is not None:
            raise DatasetCorruptError(self._lost)


def id_in(store: Store, data: bytes) -> str:
    """The id that a ``dataset.json`` holds.

    Raises
    ------
    DatasetCorruptError
        It is not what dcompute writes, or of another format.
    """
    try:
        about = json.loads(data)
        (major, _), dataset = about["format"], about["id"]
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetCorruptError(f"{store.url}/{DATASET} is not what dcompute writes ({error}): restore the file from a copy") from error
    if major != FORMAT[0]:
        raise DatasetCorruptError(
            f"{store.url} has format {major}, and this dcompute reads format {FORMAT[0]}: use the version of dcompute that wrote it"
        )
    return str(dataset)


def refuse_headless(store: Store) -> None:
    """Raise where there is a log and no ``dataset.json``: a dataset has that before its first entry, so this one was damaged.

    Raises
    ------
    DatasetCorruptError
        It was.
    """
    # elsewhere a listing costs more than asking for the entry that every log has
    has_log = any(_ENTRY.fullmatch(name) for name in store.names("log")) if store.is_local else store.exists(entry_name(1))
    # who creates the dataset at this moment may have been faster
    if has_log and not store.exists(DATASET):
        raise DatasetCorruptError(
            f"{store.url} has the log of a dataset and no {DATASET}: somebody removed that file, removed the dataset while a run wrote to "
            f"it, or a copy to this place was cut short. To go on with it, restore {DATASET} or make the copy again. To begin anew, remove "
            "what is left there or name another place"
        )


def _gone(store: Store) -> str:
    return (
        f"the dataset at {store.url} is not there any more: somebody removed or renamed it while this run wrote to it. The run has ended "
        "and writes nothing more. What it had committed is where the dataset is now: put it back to go on with it. "
        "Without it the same line begins anew"
    )


def _replaced(store: Store) -> str:
    return (
        f"the dataset at {store.url} is not the one that this run opened: somebody removed or renamed that one while this run wrote to it, "
        "and another run began a new one there. This run has ended, and none of its outcomes are in the new one. "
        "What it had committed is where its own dataset is now. The same line goes on with the new one"
    )
