"""What becomes of a batch: outcomes that count, further attempts, lost batches, suspects, marks that come late.

A lost batch goes out again under its own id. Lost again, its mark is looked for, and then its items go out under other ids: the item
that was at work by itself, else in smaller and smaller pieces, so that the one which kills its workers is found. No item is condemned
before it was lost alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dcompute.records import OWN_KINDS, Failure, Kind, Receipt, Request
from dcompute.retry import FINAL, LOSSES, Decision
from dcompute.window.core import Core
from dcompute.window.events import Lost, Misfit
from dcompute.window.instructions import Drop, End, Measure, Record, Settled, Try
from dcompute.window.slots import Batch

#: A lost batch is split into so many pieces: with this, one guilty of 10,000 items is alone after three more losses.
_PIECES = 16
#: Seconds before a batch whose set-up failed goes out again; doubled each time.
_SETUP_WAIT = 1.0


class Settler:
    """Outcomes and losses of one window."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # -- receipts --------------------------------------------------------------------------------------------------------------------

    def settle(self, batch: Batch, receipt: Receipt) -> None:
        """A receipt of a batch came, from wherever."""
        core = self._core
        late, flew = batch.where == "left", batch.where == "out"
        core.close(batch)
        if flew and batch.sends > 1:
            core.say(Drop(batch.number))
        if receipt.count:
            core.setups_failed = 0
        if not late:
            core.queues.of(batch.request).sizes.measured(receipt, len(batch.tries))
        core.rows += receipt.rows
        core.seconds += receipt.seconds
        shared = core.split and any(tried.shared for tried in batch.tries)
        if shared or receipt.holds != ((0, len(batch.tries)),):
            self._settle_each(batch, receipt, late)
        else:
            self._settle_whole(batch, receipt)
        core.judge()

    def _settle_whole(self, batch: Batch, receipt: Receipt) -> None:
        """The usual case, at no cost for an item that succeeded."""
        succeeded = len(batch.tries) - len(receipt.failures)
        self._core.succeed(succeeded)
        self._say(batch, receipt, [], self._final(batch, receipt.failures, receipt), succeeded)

    def _settle_each(self, batch: Batch, receipt: Receipt, late: bool) -> None:
        core = self._core
        failures = {failure.index: failure for failure in receipt.failures}
        left_out: list[int] = []
        counted: list[Failure] = []
        succeeded = 0
        for index in (index for start, stop in receipt.holds for index in range(start, stop)):
            tried, failure = batch.tries[index], failures.get(index)
            if core.settled(tried) or (failure is not None and late and self._decide(tried, failure)[0].again):
                left_out.append(index)
            elif failure is not None:
                counted.append(failure)
            else:
                succeeded += 1
                if tried.shared:
                    core.fates.add(tried.item.key)
        core.succeed(succeeded)
        final = self._final(batch, counted, receipt)
        self._say(batch, receipt, left_out, final, succeeded)
        if late:
            self._drop_settled()
        else:
            self._cut_short(batch, batch.unheld(receipt))

    def misfit(self, event: Misfit) -> None:
        """Rows of a settled batch did not fit the schema."""
        for failure in event.failures:
            self._core.turn(event.tries[failure.index], failure)
        self._core.judge()

    def _say(self, batch: Batch, receipt: Receipt, left_out: list[int], final: list[Failure], succeeded: int) -> None:
        core = self._core
        retried = receipt.count - len(left_out) - succeeded - len(final)
        core.say(Settled(batch.number, receipt, tuple(left_out), tuple(failure.index for failure in final), batch.tries, retried))
        for failure in final:
            core.fail(batch.tries[failure.index], failure)
        core.notice(core.pause.ended(batch.number, succeeded, receipt.failures, core.now))

    def _final(self, batch: Batch, failures: Sequence[Failure], receipt: Receipt) -> list[Failure]:
        """Put failed items in line again; the failures that are final."""
        return [failure for failure in failures if not self._again(batch.tries[failure.index], failure, receipt)]

    # -- further attempts ------------------------------------------------------------------------------------------------------------

    def _decide(self, tried: Try, failure: Failure, receipt: Receipt | None = None) -> tuple[Decision, Request]:
        core = self._core
        if not core.config.idempotent:
            return FINAL, tried.request
        if failure.kind not in OWN_KINDS:
            return (FINAL if tried.losses + 1 >= LOSSES and tried.alone else Decision(True)), tried.request
        decision = core.retry.decide(failure, tried.billed.count(core.retry.budget(failure)) + 1, core.rng)
        if decision.problem:
            core.notice(("predicate", f"{decision.problem}; it is left out of account."), once=True)
        if not decision.again or decision.memory <= 1:
            return decision, tried.request
        request = self._larger(tried.request, decision.memory, receipt)
        if request is None:
            return (FINAL if decision.only_larger else decision), tried.request
        return decision, request

    def _again(self, tried: Try, failure: Failure, receipt: Receipt) -> bool:
        core = self._core
        decision, request = self._decide(tried, failure, receipt)
        if not decision.again:
            return False
        if core.end is not None:
            return True
        core.retries += 1
        own = failure.kind in OWN_KINDS
        losses = tried.losses if own else _more(tried, 1)
        alone = decision.alone or losses >= LOSSES - 1
        billed = (*tried.billed, core.retry.budget(failure)) if own else tried.billed
        new = Try(tried.item, tried.attempt + 1, request, losses, billed, alone, tried.shared)
        self._class(request, tried.request)
        if decision.delay > 0:
            core.queues.later.add(core.now + decision.delay, new)
        else:
            core.queues.back(new)
        return True

    def _larger(self, request: Request, factor: float, receipt: Receipt | None) -> Request | None:
        core = self._core
        # A slot without a limit that anyone knows had at least what its largest item took.
        have = request.memory or core.share or (receipt.peak_memory if receipt else 0)
        if not have or core.largest_memory is None or have >= core.largest_memory:
            return None
        return replace(request, memory=min(int(have * factor), core.largest_memory))

    def _class(self, request: Request, parent: Request) -> None:
        core = self._core
        if request not in core.queues.classes:
            core.queues.of(request, parent)
            core.say(Measure(request))

    # -- what a receipt does not hold ------------------------------------------------------------------------------------------------

    def _cut_short(self, batch: Batch, unheld: list[int]) -> None:
        """Items that a worker did not come to before it had to stop. The mark is there: they can go out under another id.

        Also where they may be executed once only: no execution but the one that wrote the mark began any, and its mark holds all it began.
        """
        core = self._core
        rest = [index for index in unheld if not core.settled(batch.tries[index])]
        if not rest:
            return
        first = batch.tries[rest[0]]
        self._requeue([*self._lose([first]), *(batch.tries[index] for index in rest[1:])])

    def _lose(self, tries: Iterable[Try]) -> list[Try]:
        """Bill one loss to each; those that may still be tried."""
        kept: list[Try] = []
        condemned: list[Try] = []
        for tried in tries:
            tried.losses = _more(tried, 1)
            (condemned if tried.losses >= LOSSES else kept).append(tried)
        self._condemn(condemned)
        return kept

    def _requeue(self, tries: Iterable[Try]) -> None:
        core = self._core
        if core.end is not None:
            return
        for tried in tries:
            core.queues.back(_alone(tried) if tried.losses >= LOSSES - 1 else tried)

    def _condemn(self, tries: Sequence[Try]) -> None:
        """Record the final loss of items that no worker could write."""
        core = self._core
        if not tries:
            return
        failures = tuple(_loss(index, tried, core.config.idempotent) for index, tried in enumerate(tries))
        core.say(Record(core.allot(), tuple(tries), failures, tuple(range(len(tries)))))
        for tried, failure in zip(tries, failures, strict=True):
            core.fail(tried, failure)
        core.notice(("condemned", f"{tries[0].item.key.text!r}: {failures[0].message}"), once=True)

    # -- lost batches ----------------------------------------------------------------------------------------------------------------

    def lose(self, batch: Batch, event: Lost) -> None:
        """The task of a batch ended without a receipt."""
        core = self._core
        core.losses += 1
        core.notice(core.pause.ended(batch.number, 0, (), core.now))
        at_work = event.at_work if event.at_work is not None and 0 <= event.at_work < len(batch.tries) else None
        batch.at_work, batch.lost_on = at_work, event.worker or batch.worker
        if core.end is not None or not core.config.idempotent:
            core.look(batch)
            return
        suspects = batch.tries if at_work is None else (batch.tries[at_work],)
        times, batch.deaths = max(event.times, 1) + batch.deaths, 0
        for tried in suspects:
            # Many deaths with many items say little of each.
            tried.losses = _more(tried, times if len(suspects) == 1 else min(times, 2))
        first = batch.again == 0 and all(tried.losses <= 1 for tried in suspects)
        if first or (len(batch.tries) == 1 and (batch.alone or suspects[0].losses < LOSSES - 1) and suspects[0].losses < LOSSES):
            core.wait(batch)
        else:
            core.look(batch)

    def setup_failed(self, batch: Batch, text: str, *, is_scratch: bool = False) -> None:
        """A batch ended before any of its items was executed."""
        core = self._core
        core.setups_failed += 1
        core.notice(core.pause.ended(batch.number, 0, (), core.now))
        if core.end is not None:
            core.close(batch)
            return
        batch.untouched = True
        core.wait(batch, _SETUP_WAIT * 2.0 ** (core.setups_failed - 1))
        if core.setups_failed >= core.config.setup_failures:
            core.stop(End("scratch" if is_scratch else "initializer", text))

    def no_mark(self, batch: Batch, begun: bool) -> None:
        """A lost batch was not written: its items may go out under other ids, where that is not once too often."""
        core = self._core
        core.land(batch)
        batch.where = "left"
        tries = [tried for tried in batch.tries if not core.settled(tried)]
        for tried in tries:
            tried.shared = core.split = True
        if not core.config.idempotent:
            if begun:
                self._condemn(tries)
            else:
                self._requeue(self._lose(tries) if core.end is None else ())
        elif core.end is None:
            self._regroup(batch, tries)
        core.judge()

    def _regroup(self, batch: Batch, tries: list[Try]) -> None:
        core = self._core
        self._condemn([tried for tried in tries if tried.losses >= LOSSES])
        tries = [tried for tried in tries if tried.losses < LOSSES]
        if core.end is not None:
            return
        suspect = None if batch.at_work is None else batch.tries[batch.at_work]
        if suspect is not None and suspect in tries:
            tries = [tried for tried in tries if tried is not suspect]
            self._by_itself(suspect)
        alone = [tried for tried in tries if tried.losses >= LOSSES - 1]
        for tried in alone:
            core.queues.back(_alone(tried))
        rest = [tried for tried in tries if tried.losses < LOSSES - 1]
        # With a known suspect the rest is innocent; without one it is cut up until the guilty item stands by itself.
        length = max(1, len(rest) if suspect is not None else -(-len(rest) // _PIECES))
        pieces = core.queues.of(batch.request).pieces
        pieces.extend(tuple(rest[start : start + length]) for start in range(0, len(rest), length))

    def _by_itself(self, suspect: Try) -> None:
        """The item at work when its worker was lost leaves a row of that attempt and goes out by itself."""
        core = self._core
        core.say(Record(core.allot(), (suspect,), (_loss(0, suspect, True),), ()))
        core.retries += 1
        new = replace(suspect, attempt=suspect.attempt + 1, alone=suspect.alone or suspect.losses >= LOSSES - 1)
        if new.alone:
            core.queues.back(new)
        else:
            core.queues.of(new.request).pieces.append((new,))

    def _drop_settled(self) -> None:
        """Batches in flight whose items all have their outcome by a late mark need not go on."""
        core = self._core
        for batch in [batch for batch in core.out.values() if all(core.settled(tried) for tried in batch.tries)]:
            core.say(Drop(batch.number))
            core.close(batch)


def _more(tried: Try, times: int) -> int:
    """Losses of an item after so many more; only one that ran alone can reach the last."""
    return min(tried.losses + times, LOSSES if tried.alone else LOSSES - 1)


def _alone(tried: Try) -> Try:
    return tried if tried.alone else replace(tried, alone=True)


def _loss(index: int, tried: Try, idempotent: bool) -> Failure:
    message = (
        f"Its worker was lost {tried.losses} times while it was executed or in line there" + (", at last alone." if tried.alone else ".")
        if idempotent
        else "Its batch was lost after it was sent, and idempotent=False allows no second attempt; retry_failed=True runs it again."
    )
    return Failure(index=index, kind=Kind.INFRASTRUCTURE, error="WorkerLost", message=message)
