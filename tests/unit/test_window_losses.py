"""Lost batches, suspects, marks and what a batch leaves undone."""

from __future__ import annotations

from dcompute.records import Kind, Receipt
from dcompute.window import (
    CancelAll,
    Drop,
    End,
    Ended,
    LookForMark,
    Lost,
    Notice,
    Record,
    Send,
    Settled,
    SetupFailed,
    Started,
    Tick,
    WindowConfig,
)
from tests.unit.window_steps import BASE, Run, failed, only, receipt


def test_a_lost_batch_goes_out_again_under_its_id_elsewhere() -> None:
    """The first loss changes nothing but the worker."""
    run = Run(8, config=WindowConfig(request=BASE, batch_size=4))
    one, two = only(run.first, Send)
    run.tell(Started(one.number, "a"))
    run.tell(Ended(two.number, receipt(two, seconds=5)))
    (again,) = run.sends(Lost(one.number, "a"))
    assert (again.number, again.tries, again.again, again.avoid) == (one.number, one.tries, 1, ("a",))


def test_the_mark_is_looked_for_before_items_go_out_under_another_id() -> None:
    """A batch lost twice was written all the same: it counts, and nothing of it is executed again."""
    run = Run(4, config=WindowConfig(request=BASE, batch_size=4))
    (send,) = only(run.first, Send)
    run.tell(Lost(send.number))
    run.marks[send.number] = receipt(send)
    said = run.tell(Lost(send.number))
    assert only(said, LookForMark) == [LookForMark(send.number)]
    assert not only(said, Send)
    assert only(said, Settled)[0].succeeded == 4
    assert said[-1] == End("done")


def test_a_guilty_item_is_found_by_smaller_and_smaller_pieces() -> None:
    """One of 1000 items kills every worker that has it: it ends alone, after five losses, and all others succeed."""
    run = Run(1000, config=WindowConfig(request=BASE, batch_size=1000))
    line, losses, alone = only(run.first, Send), 0, 0
    recorded: list[Record] = []
    while line:
        send = line.pop(0)
        alone += send.alone
        guilty = any(tried.item.position == 617 for tried in send.tries)
        losses += guilty
        said = run.tell(Lost(send.number) if guilty else Ended(send.number, receipt(send, seconds=0.001)))
        line += only(said, Send)
        recorded += only(said, Record)
    assert losses == 5
    assert alone < 10
    (record,) = recorded
    assert (record.tries[0].item.position, record.failures[0].kind, record.final) == (617, Kind.INFRASTRUCTURE, (0,))
    assert run.window.counts().succeeded == 999


def test_the_item_at_work_is_suspected_and_its_neighbours_are_not() -> None:
    """Lost twice with a known item: it leaves a row and goes by itself, the rest stays together and is billed nothing."""
    run = Run(10, {"a": 1}, config=WindowConfig(request=BASE, batch_size=10))
    (send,) = only(run.first, Send)
    run.tell(Lost(send.number, "a", at_work=3))
    said = run.tell(Lost(send.number, "a", at_work=3))
    (record,) = only(said, Record)
    assert (record.tries[0].item.position, record.tries[0].attempt, record.final) == (3, 1, ())
    (first,) = only(said, Send)
    assert [(tried.item.position, tried.attempt, tried.losses) for tried in first.tries] == [(3, 2, 2)]
    (rest,) = run.sends(Ended(first.number, receipt(first, seconds=5)))
    assert {tried.losses for tried in rest.tries} == {0}
    assert len(rest.tries) == 9


def test_a_mark_that_comes_late_counts_only_keys_without_an_outcome() -> None:
    """A frozen worker wakes up and writes the batch that was taken apart: what has an outcome is left out, the rest need not be done."""
    run = Run(4, {"a": 1}, config=WindowConfig(request=BASE, batch_size=4))
    (send,) = only(run.first, Send)
    run.tell(Lost(send.number, times=2))
    (first,) = run.out.values()
    tried = first.tries[0].item.position
    run.tell(Ended(first.number, Receipt(batch="", execution="", holds=((0, 1),), seconds=5, slot_seconds=5)))
    said = run.tell(Ended(send.number, receipt(send)))
    (settled,) = only(said, Settled)
    assert settled.left_out == (tried,)
    assert settled.succeeded == 3
    assert [drop.batch for drop in only(said, Drop)] == [first.number + 1]
    assert said[-1] == End("done")


def test_what_a_late_mark_settled_is_not_executed_when_its_batch_goes_out_again() -> None:
    """The rest of a lost batch is lost once more; meanwhile two of its items turn up in the first batch's mark, cut short."""
    run = Run(6, {"a": 1}, WindowConfig(request=BASE, batch_size=6))
    for _ in range(2):
        run.tell(Lost(1, "a", at_work=5))
    (suspect,) = run.out.values()
    (rest,) = run.sends(Ended(suspect.number, receipt(suspect, seconds=5)))
    run.tell(Ended(1, receipt(Send(1, BASE, suspect.tries * 6), upto=2, seconds=5)))
    (again,) = run.sends(Lost(rest.number, "a", at_work=4))
    assert (again.number, again.exclude) == (rest.number, (0, 1))
    held = Receipt(batch="", execution="", holds=((2, 5),), seconds=5, slot_seconds=5)
    assert run.tell(Ended(rest.number, held))[-1] == End("done")
    assert run.window.counts().succeeded == 6


def test_a_suspect_that_a_late_mark_settles_keeps_no_worker() -> None:
    """The worker that was to fall empty for it serves the others again."""
    run = Run(3, {"a": 1}, WindowConfig(request=BASE, batch_size=1))
    (lost,) = only(run.first, Send)
    (other,) = run.sends(Lost(lost.number, "a", times=4))
    run.tell(Ended(lost.number, receipt(lost)))
    assert len(run.sends(Ended(other.number, receipt(other, seconds=5)))) == 1


def test_a_batch_that_was_cut_short_goes_on_under_another_id() -> None:
    """What a closing worker did not come to goes out again; only the item it was at is billed a loss."""
    run = Run(5, {"a": 1}, WindowConfig(request=BASE, batch_size=5))
    (send,) = only(run.first, Send)
    said = run.tell(Ended(send.number, receipt(send, upto=2, seconds=5)))
    assert only(said, Settled)[0].succeeded == 2
    (rest,) = only(said, Send)
    assert rest.number != send.number
    assert [(tried.item.position, tried.attempt, tried.losses) for tried in rest.tries] == [(2, 1, 1), (3, 1, 0), (4, 1, 0)]


def test_at_most_once_a_batch_that_was_cut_short_goes_on_too() -> None:
    """Its mark holds all that it began, so that the rest goes out again; after a stop that is left for later and no loss."""
    config = WindowConfig(request=BASE, batch_size=5, idempotent=False)
    run = Run(5, {"a": 1}, config)
    (send,) = only(run.first, Send)
    (rest,) = run.sends(Ended(send.number, receipt(send, failed(Kind.INFRASTRUCTURE, 1), upto=2)))
    assert [tried.item.position for tried in rest.tries] == [2, 3, 4]
    run.tell(CancelAll("enough"))
    said = run.tell(Ended(rest.number, receipt(rest, failed(Kind.INFRASTRUCTURE, 0), upto=1)))
    assert said[-1] == End("cancelled", "enough")
    assert not only(said, Record)
    counts = run.window.counts()
    assert (counts.succeeded, counts.failed_by_kind, counts.cancelled) == (1, {Kind.INFRASTRUCTURE: 2}, 2)


def test_a_receipt_told_twice_counts_once() -> None:
    """Receipts come by several ways."""
    run = Run(5, {"a": 1}, WindowConfig(request=BASE, batch_size=5))
    (send,) = only(run.first, Send)
    run.tell(Ended(send.number, receipt(send)))
    assert not run.tell(Ended(send.number, receipt(send)))
    assert run.window.counts().succeeded == 5


def test_at_most_once_means_that_a_lost_batch_is_over() -> None:
    """With idempotent=False a lost batch without a mark ends as infrastructure, finally, and a failure is final whatever its kind."""
    run = Run(4, config=WindowConfig(request=BASE, batch_size=2, idempotent=False))
    one, two = only(run.first, Send)
    said = run.tell(Lost(one.number))
    assert [type(instruction) for instruction in said] == [LookForMark, Record, Notice]
    assert only(said, Record)[0].final == (0, 1)
    said = run.tell(Ended(two.number, receipt(two, failed(Kind.TRANSIENT, 1))))
    assert only(said, Settled)[0].final == (1,)
    assert said[-1] == End("done")
    assert run.window.counts().failed_by_kind == {Kind.INFRASTRUCTURE: 2, Kind.TRANSIENT: 1}


def test_at_most_once_lets_a_batch_go_out_again_that_nobody_began() -> None:
    """Under another id, with a loss billed, so that a batch which never comes to begin is given up in the end."""
    run = Run(2, {"a": 1}, WindowConfig(request=BASE, batch_size=2, idempotent=False), never_began=set(range(1, 100)))
    line, losses = only(run.first, Send), 0
    while line:
        send = line.pop(0)
        losses += 1
        line += run.sends(Lost(send.number))
    assert 2 * 5 >= losses > 5
    assert run.window.counts().failed_by_kind == {Kind.INFRASTRUCTURE: 2}
    run = Run(2, {"a": 1}, WindowConfig(request=BASE, batch_size=2, idempotent=False), never_began={1})
    (again,) = run.sends(Lost(1))
    assert again.number != 1
    assert run.tell(Ended(again.number, receipt(again)))[-1] == End("done")
    assert run.window.counts().succeeded == 2


def test_at_most_once_and_cancelled_waits_for_what_began_at_the_same_moment() -> None:
    """A start that is heard a moment after the stop is waited for; what nobody began is left for later, and is no loss."""
    run = Run(4, {"a": 1, "b": 1}, WindowConfig(request=BASE, batch_size=2, idempotent=False), never_began={1, 2})
    said = run.tell(CancelAll("enough"))
    assert not only(said, LookForMark)
    run.tell(Started(1, "a"))
    said = run.wake()
    assert only(said, LookForMark) == [LookForMark(2)]
    assert run.now < 2
    said = run.tell(Lost(1))
    assert said[-1] == End("cancelled", "enough")
    assert not run.window.counts().failed


def test_a_batch_whose_set_up_failed_goes_out_again_after_a_while() -> None:
    """Under its id, after one second, then two; the count of failures in a row starts anew when a batch ends, and no item is billed."""
    run = Run(3, {"a": 3}, WindowConfig(request=BASE, batch_size=1))
    run.tell(SetupFailed(1, "no model"))
    run.tell(SetupFailed(2, "no model"))
    run.tell(Ended(3, receipt(run.out[3])))
    again = only(run.wake(), Send) + only(run.wake(), Send)
    assert run.now == 2.0
    assert [(send.number, send.again, send.tries[0].attempt) for send in again] == [(1, 1, 1), (2, 1, 1)]
    assert not run.tell(SetupFailed(1, "no model"))


def test_the_third_failure_of_a_set_up_ends_the_run_with_its_text() -> None:
    """What was in flight is dropped, and nothing of it counts as failed."""
    run = Run(40, {"a": 3}, WindowConfig(request=BASE, batch_size=1))
    for send in only(run.first, Send):
        said = run.tell(SetupFailed(send.number, "no model"))
    said += run.tell(Tick(), 10.0)
    assert only(said, End) == [End("initializer", "no model")]
    assert not run.window.counts().failed


def test_a_scratch_folder_that_is_full_is_no_fault_of_the_set_up() -> None:
    """Where no batch can be kept on its worker the run ends after as many tries, and says so by another code."""
    run = Run(40, {"a": 3}, WindowConfig(request=BASE, batch_size=1))
    for send in only(run.first, Send):
        said = run.tell(SetupFailed(send.number, "full", is_scratch=True))
    said += run.tell(Tick(), 10.0)
    assert only(said, End) == [End("scratch", "full")]
