"""Who looks after a dataset beside its driver: reads the log on and commits, and never opens an epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dcompute.dataset.entries import Action, Entry, Vacuum
from dcompute.dataset.log import Log, LostRace
from dcompute.dataset.state import State
from dcompute.dataset.store import Store
from dcompute.dataset.writer import open_dataset


class Keeper:
    """The log of one dataset, to which others commit at the same time.

    Parameters
    ----------
    store
        Where the dataset is.
    state
        What the log says, where it was read already; it is read on in place.

    Raises
    ------
    DatasetNotFoundError
        There is none.
    """

    def __init__(self, store: Store, state: State | None = None) -> None:
        self.store = store
        self.log = Log(store)
        self.state = open_dataset(store)[1] if state is None else state  #: what the log says, as far as it was read
        self.since: list[Entry] = []  #: read or committed since this began
        self.dropped: set[str] = set()  #: names of compacted parts that may not be committed any more

    def catch_up(self) -> None:
        """Read what others committed meanwhile."""
        for entry in self.log.read_all(self.state.number + 1):
            self._apply(entry)

    def counting(self) -> set[str]:
        """Names of the results parts that count."""
        return {part.name for part in self.state.counted_parts()}

    def commit(self, decide: Callable[[], Sequence[Action] | None]) -> Entry | None:
        """Commit under the next number that is free.

        Parameters
        ----------
        decide
            Gives the actions, by :attr:`state` as it is then; asked again whenever somebody else's entry came first. None: there is nothing
            to commit any more.

        Returns
        -------
        Entry or None
            What was committed.

        Raises
        ------
        StoreError
            The storage failed, and whether the entry counts is not known.
        """
        while (actions := decide()) is not None:
            try:
                entry = self.log.append(self.state.number + 1, actions)
            except LostRace as race:
                self._apply(race.entry)
                continue
            self._apply(entry)
            return entry
        return None

    def _apply(self, entry: Entry) -> None:
        self.state.apply(entry)
        self.since.append(entry)
        for action in entry.actions:
            if isinstance(action, Vacuum):
                self.dropped.update(action.dropped)
