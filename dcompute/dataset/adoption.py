"""What a successor adds of the batches that were written for earlier drivers and never added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dcompute.dataset.entries import Action, Add, AddBatch, Adopted, Hide, setting
from dcompute.dataset.names import ATTEMPTS, mark_batch
from dcompute.dataset.state import State
from dcompute.dataset.store import Store
from dcompute.errors import SchemaError
from dcompute.records import SUCCEEDED, ItemKey, Receipt, batch_id, split_batch_id

#: The receipt of a mark, and a table with the columns item_key, key_kind, attempt, outcome, kind (``dataset.parts.read_mark``).
ReadMark = Callable[[Store, str], tuple[Receipt, Any]]
#: Whether a failure of this kind, at this attempt, is final.
IsFinal = Callable[[str, int], bool]
#: The schema of both, as text; raises ``SchemaError`` where they cannot meet (``dataset.schema.join``).
JoinSchemas = Callable[[str | None, str | None], str | None]
#: Rewrites a written batch that does not join, and gives the name of the mark that stands for it; None where that cannot be done.
Rewrite = Callable[[Receipt], str | None]


@dataclass(frozen=True, slots=True)
class Mark:
    """A written batch."""

    epoch: int  #: of its items: that of the batch it stands for, where it stands for one
    number: int
    receipt: Receipt
    newest: dict[ItemKey, tuple[int, str, str]]  #: key -> number, outcome and kind of its newest attempt in it


@dataclass(frozen=True, slots=True)
class Adoption:
    """What a successor commits before anything else."""

    actions: tuple[Action, ...]
    batches: tuple[str, ...] = ()  #: ids of the batches it adds
    misfits: tuple[str, ...] = ()  #: ids of written batches whose parts are gone, or do not join: their items are executed again


@dataclass(slots=True)
class _Outcomes:
    """What is known of the items in question so far."""

    first: dict[ItemKey, int] = field(default_factory=dict)  #: lowest epoch with an outcome that counts
    last: dict[ItemKey, int] = field(default_factory=dict)  #: highest one
    final: dict[ItemKey, int] = field(default_factory=dict)  #: highest epoch with a final outcome

    def note(self, key: ItemKey, epoch: int, is_final: bool) -> None:
        self.first[key] = min(epoch, self.first.get(key, epoch))
        self.last[key] = max(epoch, self.last.get(key, epoch))
        if is_final:
            self.final[key] = max(epoch, self.final.get(key, epoch))

    def settles(self, key: ItemKey, epoch: int) -> bool:
        """Whether an attempt of this epoch comes too late: an outcome is final, or of an epoch that knew of a newer input."""
        return self.final.get(key, -1) >= epoch or self.last.get(key, -1) > epoch


class Adopting:
    """Works out what to adopt.

    Parameters
    ----------
    store
        Where the dataset is.
    state
        What the log says now.
    epochs
        Earlier ones that are not settled.
    read_mark
        Reads a mark.
    """

    def __init__(self, store: Store, state: State, epochs: Sequence[int], *, read_mark: ReadMark) -> None:
        self._store = store
        self._state = state
        self._epochs = tuple(sorted(epochs))
        self._read_mark = read_mark
        self._schema = state.schema
        self._misfits: list[str] = []

    def plan(self, is_final: IsFinal, *, join: JoinSchemas | None = None, rewrite: Rewrite | None = None) -> Adoption:
        """The actions that add what can be added and settle the epochs.

        Parameters
        ----------
        is_final
            Whether a failure of this kind, at this attempt, is final.
        join
            Brings two schemas together; None: they are left alone.
        rewrite
            Rewrites what does not join; None: it is left behind.
        """
        marks = [mark for found in self._unadded() if self._is_whole(found) and (mark := self._joined(found, join, rewrite)) is not None]
        outcomes = self._known({key for mark in marks for key in mark.newest})
        actions: list[Action] = []
        batches: list[str] = []
        for epoch in sorted({mark.epoch for mark in marks}):
            hidden, added = _of_epoch((mark for mark in marks if mark.epoch == epoch), outcomes, is_final)
            actions += [Hide(keys=hidden)] if hidden else []
            actions += [Add(batches=added)] if added else []
            batches += [batch.id for batch in added]
        if self._schema is not None and self._schema != self._state.schema and batches:
            actions[:0] = setting(self._schema, self._state.schema)
        return Adoption((*actions, Adopted(epochs=self._epochs)), tuple(batches), tuple(self._misfits))

    def _unadded(self) -> list[Mark]:
        """The marks of these epochs that no entry added, by epoch and number, without those that others stand for."""
        # what was linked and not yet on the disk when its writer died must be there before the log says that it counts
        self._store.sync(ATTEMPTS)
        marks = [self._mark(name) for name in self._store.names(ATTEMPTS) if self._is_unadded(name)]
        stood_for = {mark.receipt.stands_for for mark in marks}
        marks = [mark for mark in marks if mark.receipt.batch not in stood_for and not self._was_added(mark.receipt.stands_for)]
        return sorted(marks, key=lambda mark: (mark.epoch, mark.number))

    def _is_unadded(self, name: str) -> bool:
        batch = mark_batch(name)
        if batch is None:
            return False
        run, epoch, number = batch
        ours = epoch in self._epochs and self._state.opened[epoch].run == run
        return ours and not self._was_added(batch_id(run, epoch, number))

    def _was_added(self, batch: str | None) -> bool:
        return batch is not None and self._state.was_added(batch)

    def _mark(self, name: str) -> Mark:
        receipt, table = self._read_mark(self._store, name)
        _, epoch, number = split_batch_id(receipt.stands_for or receipt.batch)
        return Mark(epoch, number, receipt, _newest(table))

    def _is_whole(self, mark: Mark) -> bool:
        """Whether the parts that a mark names are there: a server may have forgotten them before the mark was written."""
        receipt = mark.receipt
        if all(self._store.exists(part.name) for part in (*receipt.results, *receipt.quarantined)):
            return True
        self._misfits.append(receipt.batch)
        return False

    def _joined(self, mark: Mark, join: JoinSchemas | None, rewrite: Rewrite | None) -> Mark | None:
        if join is None:
            return mark
        try:
            self._schema = join(self._schema, mark.receipt.schema)
        except SchemaError:
            name = rewrite(mark.receipt) if rewrite is not None else None
            if name is not None:
                return self._joined(self._mark(name), join, None)
            self._misfits.append(mark.receipt.batch)
            return None
        return mark

    def _known(self, keys: set[ItemKey]) -> _Outcomes:
        outcomes = _Outcomes()
        for counted in self._state.batches if keys else ():
            _, table = self._read_mark(self._store, counted.mark)
            left_out, final = set(counted.batch.left_out), set(counted.batch.final)
            epoch = split_batch_id(counted.batch.stands_for or counted.batch.id)[1]
            for key, (_, outcome, _) in _newest(table, keys).items():
                if key not in left_out:
                    outcomes.note(key, epoch, outcome == SUCCEEDED or key in final)
        return outcomes


def _of_epoch(marks: Iterable[Mark], outcomes: _Outcomes, is_final: IsFinal) -> tuple[tuple[ItemKey, ...], tuple[AddBatch, ...]]:
    """Keys to hide before the batches of one epoch are added, and these batches."""
    hidden: dict[ItemKey, None] = {}
    added = []
    for mark in marks:
        batch, counting = _batch(mark, outcomes, is_final)
        if not counting:
            continue
        added.append(batch)
        hidden.update(dict.fromkeys(key for key in counting if outcomes.first.get(key, mark.epoch) < mark.epoch))
        for key in counting:
            outcomes.note(key, mark.epoch, key in batch.final or mark.newest[key][1] == SUCCEEDED)
    return tuple(hidden), tuple(added)


def _batch(mark: Mark, outcomes: _Outcomes, is_final: IsFinal) -> tuple[AddBatch, list[ItemKey]]:
    """A mark as a batch to add, and the keys in it that count."""
    counting = [key for key in mark.newest if not outcomes.settles(key, mark.epoch)]
    failed = {key: (kind, attempt) for key in counting for attempt, outcome, kind in [mark.newest[key]] if outcome != SUCCEEDED}
    receipt = mark.receipt
    final = tuple(key for key, (kind, attempt) in failed.items() if is_final(kind, attempt))
    batch = AddBatch(
        id=receipt.batch,
        holds=receipt.holds,
        left_out=tuple(key for key in mark.newest if outcomes.settles(key, mark.epoch)),
        final=final,
        results=receipt.results,
        succeeded=len(counting) - len(failed),
        failed=tuple(sorted(Counter(kind for kind, _ in failed.values()).items())),
        rows=receipt.rows,
        seconds=receipt.seconds,
        slot_seconds=receipt.slot_seconds,
        stands_for=receipt.stands_for,
        quarantined=receipt.quarantined,
        again=tuple(failed.keys() - set(final)) if receipt.quarantined else (),
    )
    return batch, counting


def _newest(table: Any, wanted: set[ItemKey] | None = None) -> dict[ItemKey, tuple[int, str, str]]:
    columns = [table.column(name).to_pylist() for name in ("item_key", "key_kind", "attempt", "outcome", "kind")]
    newest: dict[ItemKey, tuple[int, str, str]] = {}
    for text, key_kind, attempt, outcome, kind in zip(*columns, strict=True):
        key = ItemKey(text, key_kind)
        if (wanted is None or key in wanted) and (key not in newest or newest[key][0] <= attempt):
            newest[key] = (attempt, outcome, kind or "")
    return newest
