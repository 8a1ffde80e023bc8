"""Items whose rows turn out not to fit the dataset's schema, after the window had settled them."""

from __future__ import annotations

import pytest

from dcompute.records import Kind
from dcompute.window import CancelAll, End, Ended, Misfit, Send, WindowConfig
from tests.unit.window_steps import BASE, Run, failed, only, receipt


def settled(config: WindowConfig, *, done: bool) -> tuple[Run, Send]:
    """A run of four items in batches of two: one batch is settled, and with ``done`` the other one and the run too."""
    run = Run(4, config=config)
    one, two = only(run.first, Send)
    run.tell(Ended(one.number, receipt(one)))
    if done:
        assert run.tell(Ended(two.number, receipt(two)))[-1] == End("done")
    return run, one


@pytest.mark.parametrize("done", [False, True], ids=["at work", "done"])
def test_a_misfit_is_a_failure_and_no_success(done: bool) -> None:
    """Each item counts once, with the kind of its failure; a run that may go on does, and one that was done stays so."""
    run, one = settled(WindowConfig(request=BASE, batch_size=2), done=done)
    before = run.window.counts()
    said = run.tell(Misfit(one.tries, [failed(Kind.PERMANENT, 1)]))
    counts = run.window.counts()
    assert (counts.succeeded, counts.failed, counts.failed_by_kind) == (before.succeeded - 1, 1, {Kind.PERMANENT: 1})
    assert (counts.ending, only(said, End)) == ("done" if done else "", [])


@pytest.mark.parametrize("done", [False, True], ids=["at work", "done"])
def test_errors_raise_ends_with_a_misfit(done: bool) -> None:
    """The end names the item and its failure, also where the run seemed to be done."""
    run, one = settled(WindowConfig(request=BASE, batch_size=2, errors="raise"), done=done)
    failure = failed(Kind.PERMANENT, 1)
    said = run.tell(Misfit(one.tries, [failure]))
    (end,) = only(said, End)
    assert (end.code, end.tried, end.failure) == ("item", one.tries[1], failure)


@pytest.mark.parametrize("done", [False, True], ids=["at work", "done"])
@pytest.mark.parametrize(("limit", "ends"), [(1, True), (2, False)])
def test_misfits_count_towards_max_failures(done: bool, limit: int, ends: bool) -> None:
    """As all failures do: one more than allowed ends the run."""
    run, one = settled(WindowConfig(request=BASE, batch_size=2, max_failures=limit), done=done)
    said = run.tell(Misfit(one.tries, [failed(Kind.PERMANENT, 0), failed(Kind.PERMANENT, 1)]))
    assert [end.code for end in only(said, End)] == ["failures"] * ends


def test_what_ended_a_run_first_stays_its_end() -> None:
    """A cancelled run was cancelled, whatever fails then."""
    run, one = settled(WindowConfig(request=BASE, batch_size=2, errors="raise"), done=False)
    run.tell(CancelAll("enough"))
    while not run.window.over:
        run.wake()
    assert not only(run.tell(Misfit(one.tries, [failed(Kind.PERMANENT, 0)])), End)
    counts = run.window.counts()
    assert (counts.ending, counts.failed) == ("cancelled", 1)
