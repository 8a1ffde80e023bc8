"""What the log says, folded: which parts count, from where on keys are hidden, which epochs are open. No storage, no clock."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence

from dcompute.dataset.batches import Batches
from dcompute.dataset.counted import CountedBatch, CountedPart
from dcompute.dataset.entries import (
    Action,
    Add,
    AddBatch,
    Adopted,
    Close,
    Drop,
    Entry,
    Files,
    Hide,
    Open,
    Release,
    Rename,
    Replace,
    RunInfo,
    Sent,
    SetSchema,
    Vacuum,
)
from dcompute.dataset.growing import Names, Positions
from dcompute.dataset.renames import Renames
from dcompute.dataset.tally import Tally
from dcompute.errors import DatasetCorruptError
from dcompute.records import ItemKey

__all__ = ["POSITION_BITS", "CountedBatch", "CountedPart", "State", "fold"]

Ranges = Sequence[tuple[int, int]]
Records = Sequence[tuple[str, Ranges]]

#: A position in the log is ``entry number << POSITION_BITS | place of the action in its entry``: they compare as actions follow each other.
POSITION_BITS = 24


class State:
    """The fold of a log up to :attr:`number`.

    A results row counts when its part is among :meth:`counted_parts`, its key is not left out, and ``hides`` has no later position for its
    key. An attempts row counts when its batch is among :attr:`batches`, its key is not left out, and ``hides_all`` has no later position.
    """

    def __init__(self) -> None:
        self.number = 0  #: of the last entry
        self.checkpoint = 0  #: number of the checkpoint that it goes on from; 0: none
        self.entry_id = ""  #: its random id
        self.at = 0.0  #: its time
        self.epoch = 0  #: the last one opened; 0: none
        self.driver: Open | None = None  #: who opened it
        self.workload: str | None = None  #: name; None while no driver was there
        self.run_info: RunInfo | None = None  #: of the last run that gave one
        self.opened: dict[int, Open] = {}  #: all drivers there were, by epoch
        self.settled: set[int] = set()  #: epochs of which nothing more will be added
        self.outcome = ""  #: how the last driver's run ended, as its close says it
        self.closed: set[int] = set()  #: those of them that their own drivers closed
        self.schema: str | None = None  #: of the results; None while there are none
        self.renames = Renames()  #: of its columns
        self.batches = Batches()  #: in the order in which they were added
        self.hidden_at = 0  #: position of the newest hide; 0: nothing was ever hidden
        self.sent: dict[ItemKey, str] = {}  #: batch id of items sent at most once that have no outcome yet
        self.sent_batches: dict[str, tuple[ItemKey, ...]] = {}  #: the keys of batches sent at most once that were not added yet
        self.replaced = Names()  #: results parts that gave way to others
        self.compacted: list[CountedPart] = []  #: what was written in their place, whether it still counts or not
        self.vacuumed = 0  #: parts that this entry or an earlier one replaced may be gone; 0: all are there
        self.positions = {"results": Positions(), "all": Positions()}  #: of the newest hide of a key, by what it ends
        self.added = Names()  #: ids of the batches that count, and of those that they stand for
        self.tally: Tally | None = Tally()  #: of the outcomes, as of some entry; None: too much failed, or was never counted
        self.later_hides: list[tuple[int, tuple[ItemKey, ...]]] = []  #: positions and keys of the hides after that entry
        self.ended: dict[str, tuple[tuple[int, int], ...]] = {}  #: rows of quarantine parts that were released or dropped, as ranges
        self.released_at = 0  #: position of the newest release; 0: nothing was ever released
        self.admitted: dict[ItemKey, str] = {}  #: fingerprints of inputs that were released: they are executed unchecked
        self._final: dict[ItemKey, int] = {}
        self._final_from = 0

    @property
    def hides(self) -> dict[ItemKey, int]:
        """Position of the newest hide of a key, of either scope: for results."""
        return self.positions["results"].mapping()

    @property
    def hides_all(self) -> dict[ItemKey, int]:
        """Position of the newest hide of a key that ends attempt rows too."""
        return self.positions["all"].mapping()

    @property
    def is_open(self) -> bool:
        """Whether the last driver has not closed its epoch: it lives, or it died."""
        return self.epoch > 0 and self.epoch not in self.settled

    @property
    def unsettled(self) -> tuple[int, ...]:
        """Epochs whose written batches may still have to be added, the open one too."""
        return tuple(epoch for epoch in sorted(self.opened) if epoch not in self.settled)

    def is_over(self, run: str, epoch: int) -> bool:
        """Whether no entry will ever add what a run wrote in an epoch: it is settled, or another run has it, in a dataset here before."""
        return epoch in self.settled or (epoch in self.opened and self.opened[epoch].run != run)

    def was_added(self, batch_id: str) -> bool:
        """Whether a batch counts, or one that stands for it."""
        return batch_id in self.added

    def counted_parts(self) -> Iterator[CountedPart]:
        """The results parts that count, with the positions from which on hides hit them; compacted ones last."""
        for position, left_out, parts in self.batches.results():
            for part in parts:
                if part.name not in self.replaced:
                    yield CountedPart(position, part.name, part.size, part.rows, left_out)
        yield from (part for part in self.compacted if part.name not in self.replaced)

    def quarantine_parts(self) -> Iterator[CountedPart]:
        """The parts of the quarantine that count; of some of their rows :attr:`ended` says that they were released or dropped."""
        for counted in self.batches.quarantined():
            batch = counted.batch
            for part in batch.quarantined:
                if sum(stop - start for start, stop in self.ended.get(part.name, ())) < part.rows:
                    yield CountedPart(counted.position, part.name, part.size, part.rows, (*batch.left_out, *batch.again))

    def is_final(self, key: ItemKey) -> bool:
        """Whether the log calls a failure of this item final, and nothing came after it that hides it."""
        for counted in self.batches[self._final_from :]:
            self._final.update(dict.fromkeys(counted.batch.final, counted.position))
        self._final_from = len(self.batches)
        position = self._final.get(key)
        return position is not None and self.hides.get(key, -1) < position

    def totals(self) -> tuple[int, dict[str, int], int, float]:
        """Sums over all batches added: items succeeded, attempts failed by kind, rows, seconds of items. Hidden ones are in them."""
        from dcompute.dataset.columns import totals_of

        return totals_of(self.batches.columns())

    def counted_size(self) -> tuple[int, int]:
        """Rows and bytes of the results parts that count; rows in them that are hidden too."""
        from dcompute.dataset.columns import size_of

        rows, size = size_of(self.batches.columns(), self.replaced.array())
        compacted = [part for part in self.compacted if part.name not in self.replaced]
        return rows + sum(part.rows for part in compacted), size + sum(part.size for part in compacted)

    def keep_tally(self, tally: Tally | None) -> None:
        """Go on from a tally of an entry that was read."""
        self.tally = tally
        last = self.number if tally is None else tally.number
        self.later_hides = [hide for hide in self.later_hides if hide[0] >> POSITION_BITS > last]

    def copy(self) -> State:
        """One that stays as it is now."""
        other = State.__new__(State)
        for name, value in vars(self).items():
            setattr(other, name, copy.copy(value))
        other.positions = {scope: copy.copy(positions) for scope, positions in self.positions.items()}
        return other

    def apply(self, entry: Entry) -> None:
        """Fold the next entry in.

        Raises
        ------
        DatasetCorruptError
            The entry cannot follow what came before it.
        """
        if entry.number != self.number + 1:
            raise DatasetCorruptError(f"entry {entry.number} of the log cannot follow entry {self.number}")
        for place, action in enumerate(entry.actions):
            self._act(action, entry.number << POSITION_BITS | place)
        self.number, self.entry_id, self.at = entry.number, entry.id, entry.at

    def _act(self, action: Action, position: int) -> None:  # noqa: C901  one branch an action
        match action:
            case Add():
                for batch in action.batches:
                    self._add(batch, position)
            case Hide():
                self._hide(action, position)
            case Open():
                self._open(action)
            case Close():
                self.closed.add(action.epoch)
                self.outcome = action.outcome
                self._settle((action.epoch,))
            case Adopted():
                self._settle(action.epochs)
            case SetSchema():
                self.schema = action.schema
            case Rename():
                self.renames = self.renames.then(position, action.columns)
            case Files():
                pass  # the schema knows which
            case Sent():
                self.sent.update(dict.fromkeys(action.keys, action.batch))
                self.sent_batches[action.batch] = action.keys
            case RunInfo():
                self.run_info = action
            case Replace():
                self._replace(action)
            case Release():
                self._release(action, position)
            case Drop():
                self._leave(action.records)
            case Vacuum():
                self.vacuumed = max(self.vacuumed, action.until)

    def _open(self, action: Open) -> None:
        if action.epoch != self.epoch + 1:
            raise DatasetCorruptError(f"epoch {action.epoch} of the log cannot follow epoch {self.epoch}")
        self.epoch, self.driver, self.workload, self.outcome = action.epoch, action, action.workload, ""
        self.opened[action.epoch] = action

    def _settle(self, epochs: Iterable[int]) -> None:
        self.settled.update(epochs)

    def _add(self, batch: AddBatch, position: int) -> None:
        # a batch counts once, and never beside one that stands for it
        if batch.id in self.added or (batch.stands_for is not None and batch.stands_for in self.added):
            return
        self.added.update((batch.id,) if batch.stands_for is None else (batch.id, batch.stands_for))
        self.batches.append(CountedBatch(position, batch))
        if self.sent:
            self._resolve_sent(batch)

    def _resolve_sent(self, batch: AddBatch) -> None:
        # what was sent under one id may be written again under another, which stands for it
        sent_as = batch.stands_for or batch.id
        # what its mark does not hold was not begun and never will be: no second execution of a batch begins, and none where a mark is
        for key in self.sent_batches.pop(sent_as, ()):
            if self.sent.get(key) == sent_as:
                del self.sent[key]
        for key in batch.final:
            self.sent.pop(key, None)

    def _hide(self, action: Hide, position: int) -> None:
        hidden = dict.fromkeys(action.keys, position)
        self.positions["results"].update(hidden)
        if action.scope == "all":
            self.positions["all"].update(hidden)
            for key in action.keys if self.admitted else ():
                self.admitted.pop(key, None)
        if hidden:
            self.hidden_at = position
        if hidden and self.tally is not None:
            self.later_hides.append((position, action.keys))

    def _replace(self, action: Replace) -> None:
        counting = {part.name for part in self.counted_parts()}
        if not counting.issuperset(action.parts):
            return
        self.replaced.update(action.parts)
        # hides that the compaction had not read must still hit its rows
        position = ((action.read_at + 1) << POSITION_BITS) - 1
        self.compacted.extend(CountedPart(position, part.name, part.size, part.rows) for part in action.by)

    def _release(self, action: Release, at: int) -> None:
        if not self._leave(action.records):
            return
        self.released_at = at
        # hides that the release had not read must still hit its rows
        position = ((action.read_at + 1) << POSITION_BITS) - 1
        self.compacted.extend(CountedPart(position, part.name, part.size, part.rows) for part in action.by)
        self.admitted.update((ItemKey(text, kind), fingerprint) for text, kind, fingerprint in action.admitted)

    def _leave(self, records: Records) -> bool:
        """Whether these records are in the quarantine no more since now: not where one of them was not any more before."""
        if any(overlap(self.ended.get(name, ()), ranges) for name, ranges in records):
            return False
        self.ended.update((name, (*self.ended.get(name, ()), *ranges)) for name, ranges in records)
        return True


def overlap(some: Ranges, others: Ranges) -> bool:
    """Whether half-open ranges have a number in common with others."""
    return any(start < end and begin < stop for start, stop in some for begin, end in others)


def fold(entries: Iterable[Entry], state: State | None = None) -> State:
    """The state after entries, in their order.

    Parameters
    ----------
    entries
        From the one after ``state`` on.
    state
        Goes on from there, in place; None: from the beginning.
    """
    state = State() if state is None else state
    for entry in entries:
        state.apply(entry)
    return state
