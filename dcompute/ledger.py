"""What a run commits: settled batches as entries of the log, in the order in which they were settled."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dcompute.dataset.claims import Claims
from dcompute.dataset.entries import Add, AddBatch, Hide, RunInfo, Sent, setting
from dcompute.dataset.names import new_id
from dcompute.dataset.parts import attempts_table, mark_name, read_attempts, read_mark, read_receipt, write_attempts
from dcompute.dataset.patience import Patience
from dcompute.dataset.renaming import due_before
from dcompute.dataset.schema import join, join_declared, joins
from dcompute.errors import DatasetCorruptError
from dcompute.keys import item_seed
from dcompute.records import ATTEMPT_COLUMNS, FAILED, SUCCEEDED, Failure, Item, ItemKey, Kind, Outcome, Receipt, Request, RunSpec, batch_id
from dcompute.window import Record, Send, Settled, Try
from dcompute.worker.rewrite import Rewriter, schema_after

if TYPE_CHECKING:
    from dcompute.dataset.renames import Pairs
    from dcompute.dataset.writer import Writer
    from dcompute.retry import Retry

#: Batch numbers from here on are for what is rewritten while earlier epochs are adopted; the window's begin at 1 and never come so far.
_ADOPTING = 90_000_000


class Ledger:
    """The pending commits of one run, and what it has committed.

    Parameters
    ----------
    writer
        The driver's right to write.
    spec
        The run, for rows that the driver writes itself.
    patience
        With a storage that fails, where nothing can go on without its answer.
    now
        Seconds since 1970.
    """

    def __init__(self, writer: Writer, spec: RunSpec, patience: Patience | None = None, *, now: Callable[[], float] = time.time) -> None:
        self.schema: str | None = join_declared(writer.state.schema, spec.schema)
        self.adopted = 0  #: batches of earlier drivers' workers that this run added
        self.rows = 0  #: of results that this run added
        self.dropped = 0  #: items that this run hid because they are no input any more
        self.quarantined = 0  #: records that did not pass a check
        self.requests = 0  #: to an object store, as receipts tell of workers
        self._writer = writer
        self._claims = Claims(writer.store)
        self._spec = spec
        self._patience = patience or Patience()
        self._now = now
        self._pending: list[AddBatch] = []
        self._sent: list[Sent] = []  # keys of batches that wait for their commit to go out
        self._unwritten: dict[str, bytes] = {}  # marks of this driver's own batches among them
        self._to_hide: list[ItemKey] = []
        self._hidden: set[ItemKey] = set()
        self._to_retry: set[ItemKey] = set()  # failed, and not finally, in batches that are being rewritten
        self._overtaken: set[ItemKey] = set()  # those of them of which a later attempt was settled meanwhile
        self._committed_schema = writer.state.schema

    @classmethod
    def opened(cls, writer: Writer, spec: RunSpec, retry: Retry, patience: Patience | None = None, *, renames: Pairs = ()) -> Ledger:
        """The ledger of a run that begins: what earlier drivers left is adopted, and what they can never know is recorded.

        Columns that the workload declares to have other names get them after that, and before the first batch goes out: so all that has
        the old names stands before the renaming.
        """
        insist = (patience or Patience()).insist
        if writer.state.sent:
            # workers whose driver died write what they finished: this tells items that they began from those that they did not
            insist(lambda: Claims(writer.store).await_marks(set(writer.state.sent.values())))
        numbers = itertools.count(_ADOPTING)
        rewriter = Rewriter(writer.store, lambda: batch_id(spec.run, writer.epoch, next(numbers)))
        adopted = insist(
            lambda: writer.adopt(
                read_mark,
                lambda kind, attempt: not spec.idempotent or is_final(retry, kind, attempt),
                join=rewriter.join,
                rewrite=rewriter.rewrite,
            )
        )
        info = RunInfo(
            run=spec.run,
            version=spec.version,
            params_digest=spec.params_digest,
            code_digest=spec.code_digest,
            seed=spec.seed,
            sources=spec.sources,
        )
        renaming = due_before(writer.store, writer.state, renames, schema=spec.schema)
        insist(lambda: writer.commit([info, *renaming]))
        ledger = cls(writer, spec, patience)
        ledger.adopted = len(adopted)
        ledger._record_sent()
        return ledger

    @property
    def is_pending(self) -> bool:
        """Whether something waits for its commit."""
        return bool(self._pending)

    @property
    def batches(self) -> int:
        """How many batches the dataset has."""
        return len(self._writer.state.batches)

    def find_mark(self, number: int) -> Receipt | None:
        """The receipt of a batch of this run that was written, or None where it was not, or not whole."""
        mark = mark_name(self._id(number))
        try:
            return self._patience.insist(lambda: read_receipt(self._writer.store, mark))
        except (FileNotFoundError, DatasetCorruptError):
            return None

    def has_begun(self, number: int) -> bool:
        """Whether a batch of this run that may be executed once only was begun; one that was not never will be."""
        batch = self._id(number)
        return self._patience.insist(lambda: self._claims.has_begun(batch))

    def note_sent(self, send: Send) -> None:
        """Commit the keys of a batch before it goes out, with all that is pending: whatever happens now, they are not sent again."""
        self._sent.append(Sent(batch=self._id(send.number), keys=tuple(attempt.item.key for attempt in send.tries)))
        self._patience.insist(self.commit)

    def fits(self, receipt: Receipt) -> bool:
        """Whether a written batch can be brought together with the schema as it is now."""
        return receipt.joins and joins(self.schema, receipt.schema)

    def settle(self, settled: Settled) -> None:
        """Take a settled batch into the next commit; its schema must fit."""
        receipt = settled.receipt
        if receipt.rows or receipt.quarantined:
            self.schema = join(self.schema, receipt.schema)
        keys = [attempt.item.key for attempt in settled.tries]
        self._hide(settled)
        left_out = set(settled.left_out)
        counting = [failure for failure in receipt.failures if failure.index not in left_out]
        self._pending.append(
            AddBatch(
                id=receipt.batch,
                holds=receipt.holds,
                left_out=tuple(keys[index] for index in settled.left_out),
                final=tuple(keys[index] for index in settled.final),
                results=receipt.results,
                succeeded=settled.succeeded,
                failed=_by_kind(counting),
                rows=receipt.rows,
                seconds=receipt.seconds,
                slot_seconds=receipt.slot_seconds,
                stands_for=receipt.stands_for,
                quarantined=receipt.quarantined,
                again=tuple(keys[index] for index in sorted(_retried(settled))) if receipt.quarantined else (),
            )
        )
        self.rows += receipt.rows
        self.quarantined += sum(part.rows for part in receipt.quarantined)
        self.requests += receipt.requests

    def make_room(self, settled: Settled) -> None:
        """Join what can be joined of a batch that is rewritten now, so that it joins when it comes, whatever is settled meanwhile."""
        if self._spec.schema is None:
            self.schema = schema_after(self.schema, settled.receipt.schema)
        self._to_retry.update(settled.tries[index].item.key for index in _retried(settled))

    def settle_rewritten(self, settled: Settled, number: int, receipt: Receipt) -> tuple[Failure, ...]:
        """Take a rewritten batch into the next commit in place of the one it stands for; the failures that it made of successes."""
        known = {failure.index for failure in settled.receipt.failures}.union(settled.left_out)
        turned = {failure.index: failure for failure in receipt.failures if failure.index not in known}
        # a later attempt is committed already, and what is committed last is an item's outcome
        retried = {index: settled.tries[index].item.key for index in _retried(settled)}
        late = {index for index, key in retried.items() if key in self._overtaken}
        self._to_retry.difference_update(retried.values())
        self._overtaken.difference_update(retried.values())
        left_out = tuple(sorted(late.union(settled.left_out)))
        self.settle(Settled(number, receipt, left_out, tuple(sorted({*turned, *settled.final})), settled.tries))
        return tuple(turned.values())

    def record(self, record: Record) -> None:
        """Take outcomes that no worker could write into the next commit, which writes them first."""
        batch = self._id(record.batch)
        receipt = Receipt(
            batch=batch,
            execution=new_id(),
            holds=((0, len(record.tries)),),
            failures=record.failures,
        )
        table = attempts_table([self._row(one, failure, batch) for one, failure in zip(record.tries, record.failures, strict=True)])
        buffer = io.BytesIO()
        write_attempts(buffer, table, receipt)
        self._unwritten[mark_name(batch)] = buffer.getvalue()
        self.settle(Settled(record.batch, receipt, (), record.final, record.tries))

    def drop(self, keys: Sequence[ItemKey]) -> None:
        """Commit that items are no input any more: what they gave counts no longer, their attempts stay as history."""
        self._patience.insist(lambda: self._writer.commit([Hide(keys=tuple(keys))]))
        self.dropped += len(keys)

    def commit(self) -> None:
        """Write one entry with all that is pending.

        Raises
        ------
        StoreError
            The storage failed: all stays pending, in its order, and counts once however often it is tried.
        DatasetTakenOver
            Another driver opened a higher epoch: nothing of this run counts any more that is not committed yet.
        """
        if not self._pending and not self._sent:
            return
        self._write_marks()
        actions: list[Any] = [Hide(keys=tuple(self._to_hide))] if self._to_hide else []
        if self.schema is not None and self.schema != self._committed_schema:
            actions += setting(self.schema, self._committed_schema)
        if self._pending:
            actions.append(Add(batches=tuple(self._pending)))
        self._writer.commit([*actions, *self._sent])
        self._committed_schema = self.schema
        self._pending, self._sent, self._to_hide = [], [], []

    def _write_marks(self) -> None:
        for name, data in list(self._unwritten.items()):
            # nobody else has this batch number: one that is there is a write whose answer was lost
            with contextlib.suppress(FileExistsError):
                self._writer.store.create(name, data)
            del self._unwritten[name]

    def outcomes(self, start: int) -> tuple[Iterator[Outcome], int]:
        """Outcomes of batches that this run committed, from the ``start``-th batch of the dataset on; and where to go on."""
        batches = self._writer.state.batches
        end = len(batches)
        own = (counted.batch for counted in batches[start:end] if counted.epoch == self._writer.epoch)
        return (outcome for batch in own for outcome in self._outcomes_of(batch)), end

    def _outcomes_of(self, batch: AddBatch) -> Iterator[Outcome]:
        left_out, final = set(batch.left_out), set(batch.final)
        columns = ("item_key", "key_kind", "attempt", "outcome", "kind", "error", "message")
        for row in read_attempts(self._writer.store, mark_name(batch.id), columns).to_pylist():
            key = ItemKey(row["item_key"], row["key_kind"])
            succeeded = row["outcome"] == SUCCEEDED
            if key not in left_out and (succeeded or key in final):
                yield Outcome(
                    key=key, attempt=row["attempt"], succeeded=succeeded, kind=row["kind"], error=row["error"], message=row["message"]
                )

    def _id(self, number: int) -> str:
        return batch_id(self._spec.run, self._writer.epoch, number)

    def _record_sent(self) -> None:
        """Items that may go out once only, in batches that were begun and left no mark: they count as lost, finally."""
        known = self._writer.state.sent
        begun = {batch for batch in set(known.values()) if self._patience.insist(functools.partial(self._claims.has_begun, batch))}
        sent = {key: batch for key, batch in known.items() if batch in begun}
        if not sent:
            return
        tries = tuple(Try(item=Item(key, None, "", -1, 0), attempt=1, request=Request()) for key in sent)
        text = "it was sent, may be executed once only, and its worker or driver was lost before it said how it ended"
        failures = tuple(
            Failure(index=index, kind=Kind.INFRASTRUCTURE, error="Lost", message=f"{text} (batch {batch})")
            for index, batch in enumerate(sent.values())
        )
        self.record(Record(batch=0, tries=tries, failures=failures, final=tuple(range(len(tries)))))
        self._patience.insist(self.commit)

    def _hide(self, settled: Settled) -> None:
        """A changed or retried item is hidden by the entry that adds its first new attempt, and by no later one."""
        left_out, waiting = set(settled.left_out), _retried(settled)
        held = (index for start, stop in settled.receipt.holds for index in range(start, stop) if index not in left_out)
        for index in held:
            item = settled.tries[index].item
            if item.key in self._to_retry:
                self._overtaken.add(item.key)
            if not item.replaces:
                continue
            if item.key not in self._hidden:
                self._to_hide.append(item.key)
            # only an item that will be tried again comes back: no other needs to be remembered
            if index in waiting:
                self._hidden.add(item.key)
            else:
                self._hidden.discard(item.key)

    def _row(self, attempt: Try, failure: Failure, batch: str) -> tuple[Any, ...]:
        spec = self._spec
        known = {
            "item_key": attempt.item.key.text,
            "key_kind": attempt.item.key.kind,
            "attempt": attempt.attempt,
            "fingerprint": attempt.item.fingerprint,
            "params_digest": spec.params_digest,
            "code_digest": spec.code_digest,
            "version": spec.version,
            "outcome": FAILED,
            "kind": failure.kind,
            "error": failure.error,
            "message": failure.message,
            "started": self._now(),
            "rows": 0,
            "batch": batch,
            "run": spec.run,
            "workload": spec.workload,
            "seed": item_seed(spec.seed, attempt.item.key),
        }
        return tuple(known.get(name) for name in ATTEMPT_COLUMNS)


def _retried(settled: Settled) -> set[int]:
    """Indexes of the failures that count and are not final."""
    return {failure.index for failure in settled.receipt.failures}.difference(settled.final, settled.left_out)


def is_final(retry: Retry, kind: str, attempt: int) -> bool:
    """Whether a policy tries a failure of this kind no more, by what a mark alone says of it."""
    if not retry.is_by_kind:
        # exceptions, exit codes and predicates may each know better: tried once too often is better than never again
        return False
    failure = Failure(index=0, kind=kind, error="")
    return not retry.decide(failure, attempt, random.Random(0)).again  # noqa: S311  the wait does not matter


def _by_kind(failures: list[Failure]) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = {}
    for failure in failures:
        counts[failure.kind] = counts.get(failure.kind, 0) + 1
    return tuple(sorted(counts.items()))
