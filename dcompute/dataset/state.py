"""What the log says, folded: which parts count, from where on keys are hidden, which epochs are open. No storage, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dcompute.dataset.entries import Action, Add, AddBatch, Adopted, Close, Entry, Hide, Open, Replace, RunInfo, Sent, SetSchema
from dcompute.errors import DatasetCorruptError
from dcompute.records import ItemKey, split_batch_id

#: A position in the log is ``entry number << POSITION_BITS | place of the action in its entry``: they compare as actions follow each other.
POSITION_BITS = 24


@dataclass(frozen=True, slots=True)
class CountedBatch:
    """A batch that was added."""

    position: int  #: of the action that added it
    batch: AddBatch

    @property
    def mark(self) -> str:
        """The name of its attempts part."""
        return f"attempts/{self.batch.id}.parquet"

    @property
    def epoch(self) -> int:
        """The epoch that wrote it."""
        return split_batch_id(self.batch.id)[1]


@dataclass(frozen=True, slots=True)
class CountedPart:
    """A results part that counts."""

    position: int  #: hides of a later position hit its rows
    name: str
    size: int  #: bytes
    rows: int
    left_out: tuple[ItemKey, ...] = ()  #: keys in it that do not count


class State:
    """The fold of a log up to :attr:`number`.

    A results row counts when its part is among :meth:`counted_parts`, its key is not left out, and ``hides`` has no later position for its
    key. An attempts row counts when its batch is among :attr:`batches`, its key is not left out, and ``hides_all`` has no later position.
    """

    def __init__(self) -> None:
        self.number = 0  #: of the last entry
        self.at = 0.0  #: its time
        self.epoch = 0  #: the last one opened; 0: none
        self.driver: Open | None = None  #: who opened it
        self.workload: str | None = None  #: name; None while no driver was there
        self.run_info: RunInfo | None = None  #: of the last run that gave one
        self.opened: dict[int, Open] = {}  #: all drivers there were, by epoch
        self.settled: set[int] = set()  #: epochs of which nothing more will be added
        self.closed: set[int] = set()  #: those of them that their own drivers closed
        self.schema: str | None = None  #: of the results; None while there are none
        self.batches: list[CountedBatch] = []  #: in the order in which they were added
        self.hides: dict[ItemKey, int] = {}  #: position of the newest hide of a key, of either scope: for results
        self.hides_all: dict[ItemKey, int] = {}  #: position of the newest hide of a key that ends attempt rows too
        self.sent: dict[ItemKey, str] = {}  #: batch id of items sent at most once that have no outcome yet
        self._sent_batches: dict[str, tuple[ItemKey, ...]] = {}
        self._added: set[str] = set()
        self._replaced: set[str] = set()
        self._compacted: list[CountedPart] = []
        self._final: dict[ItemKey, int] = {}
        self._final_from = 0

    @property
    def is_open(self) -> bool:
        """Whether the last driver has not closed its epoch: it lives, or it died."""
        return self.epoch > 0 and self.epoch not in self.settled

    @property
    def unsettled(self) -> tuple[int, ...]:
        """Epochs whose written batches may still have to be added, the open one too."""
        return tuple(epoch for epoch in sorted(self.opened) if epoch not in self.settled)

    def was_added(self, batch_id: str) -> bool:
        """Whether a batch counts, or one that stands for it."""
        return batch_id in self._added

    def counted_parts(self) -> Iterator[CountedPart]:
        """The results parts that count, with the positions from which on hides hit them; compacted ones last."""
        for counted in self.batches:
            for part in counted.batch.results:
                if part.name not in self._replaced:
                    yield CountedPart(counted.position, part.name, part.size, part.rows, counted.batch.left_out)
        yield from (part for part in self._compacted if part.name not in self._replaced)

    def is_final(self, key: ItemKey) -> bool:
        """Whether the log calls a failure of this item final, and nothing came after it that hides it."""
        for counted in self.batches[self._final_from :]:
            self._final.update(dict.fromkeys(counted.batch.final, counted.position))
        self._final_from = len(self.batches)
        position = self._final.get(key)
        return position is not None and self.hides.get(key, -1) < position

    def totals(self) -> tuple[int, dict[str, int], int, float]:
        """Sums over all batches added: items succeeded, attempts failed by kind, rows, seconds of items. Hidden ones are in them."""
        failed: dict[str, int] = {}
        for counted in self.batches:
            for kind, count in counted.batch.failed:
                failed[kind] = failed.get(kind, 0) + count
        added = [counted.batch for counted in self.batches]
        return sum(b.succeeded for b in added), failed, sum(b.rows for b in added), sum(b.seconds for b in added)

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
        self.number, self.at = entry.number, entry.at

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
                self._settle((action.epoch,))
            case Adopted():
                self._settle(action.epochs)
            case SetSchema():
                self.schema = action.schema
            case Sent():
                self.sent.update(dict.fromkeys(action.keys, action.batch))
                self._sent_batches[action.batch] = action.keys
            case RunInfo():
                self.run_info = action
            case Replace():
                self._replace(action)

    def _open(self, action: Open) -> None:
        if action.epoch != self.epoch + 1:
            raise DatasetCorruptError(f"epoch {action.epoch} of the log cannot follow epoch {self.epoch}")
        self.epoch, self.driver, self.workload = action.epoch, action, action.workload
        self.opened[action.epoch] = action

    def _settle(self, epochs: Iterable[int]) -> None:
        self.settled.update(epochs)

    def _add(self, batch: AddBatch, position: int) -> None:
        # a batch counts once, and never beside one that stands for it
        if batch.id in self._added or (batch.stands_for is not None and batch.stands_for in self._added):
            return
        self._added.add(batch.id)
        if batch.stands_for is not None:
            self._added.add(batch.stands_for)
        self.batches.append(CountedBatch(position, batch))
        if self.sent:
            self._resolve_sent(batch)

    def _resolve_sent(self, batch: AddBatch) -> None:
        # what was sent under one id may be written again under another, which stands for it
        sent_as = batch.stands_for or batch.id
        keys = self._sent_batches.pop(sent_as, ())
        held = [key for start, stop in batch.holds for key in keys[start:stop]]
        for key in held:
            if self.sent.get(key) == sent_as:
                del self.sent[key]
        for key in batch.final:
            self.sent.pop(key, None)

    def _hide(self, action: Hide, position: int) -> None:
        self.hides.update(dict.fromkeys(action.keys, position))
        if action.scope == "all":
            self.hides_all.update(dict.fromkeys(action.keys, position))

    def _replace(self, action: Replace) -> None:
        counting = {part.name for part in self.counted_parts()}
        if not counting.issuperset(action.parts):
            return
        self._replaced.update(action.parts)
        # hides that the compaction had not read must still hit its rows
        position = ((action.read_at + 1) << POSITION_BITS) - 1
        self._compacted.extend(CountedPart(position, part.name, part.size, part.rows) for part in action.by)


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
