"""Who is to blame when a child died."""

from __future__ import annotations

import signal

import pytest

from dcompute.worker.journal import Header, State
from dcompute.worker.verdict import Death, judge

MIB = 1 << 20


def at_work(index: int = 4, last: int | None = None, calls: int = 0, sequence: int = 9) -> Header:
    last = index if last is None else last
    return Header(
        committed=0, done=4, sequence=sequence, index=index, last=last, calls=calls, started=100.0, state=State.EXECUTING, fraction=None,
        text="",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "kind", "error"),
    [
        ({"signal": signal.SIGSEGV}, "crash", "SIGSEGV"),
        ({"signal": signal.SIGKILL}, "crash", "SIGKILL"),
        ({"signal": 64}, "crash", "SIGRTMAX"),
        ({"exit_code": 3}, "crash", "exit code 3"),
        ({"exit_code": 0}, "crash", "exit code 0"),
        ({"signal": 9, "killed_for": "timeout", "timeout": 2.0}, "timeout", "timeout"),
        ({"signal": 9, "killed_for": "memory", "memory_limit": MIB, "peak_memory": 2 * MIB}, "memory", "memory"),
        ({"signal": 9, "oom_killed": True}, "memory", "memory"),
        ({"signal": 9, "memory_limit": 100, "peak_memory": 85}, "memory", "memory"),
        ({"signal": 9, "memory_limit": 100, "peak_memory": 75}, "crash", "SIGKILL"),
        ({"signal": 11, "oom_killed": True}, "crash", "SIGSEGV"),
        ({"signal": 9, "killed_for": "lost"}, "crash", "connection lost"),
    ],
)
def test_item_at_work_is_convicted(facts, kind, error):
    """The one item at work gets the kind that the facts prove."""
    verdict = judge(Death(header=at_work(), at=102.5, **facts))
    assert verdict is not None
    assert verdict.index == 4
    assert (verdict.failure["kind"], verdict.failure["error"]) == (kind, error)
    assert verdict.figures.duration == 2.5
    assert (verdict.failure["signal"] is None) == (kind != "crash" or "signal" not in facts)


def test_nobody_at_work_nobody_convicted():
    """A child that dies between two items, or is stopped by its worker, convicts nobody."""
    assert judge(Death(header=at_work(sequence=8), signal=11)) is None
    assert judge(Death(header=at_work(), signal=9, killed_for="stop")) is None


def test_group_is_never_convicted():
    """Whatever a group dies of, its items are executed again."""
    for facts in ({"signal": 11}, {"killed_for": "timeout", "timeout": 1.0}, {"killed_for": "memory"}):
        verdict = judge(Death(header=at_work(2, 7), **facts))
        assert (verdict.index, verdict.last, verdict.failure) == (2, 7, None)


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"killed_for": "memory", "signal": 9}, "memory"),
        ({"signal": 11}, "crash"),
        ({"exit_code": 3}, "crash"),
        ({"killed_for": "lost", "signal": 9}, "crash"),
    ],
)
def test_death_of_a_used_child_convicts_nobody(facts, kind):
    """Only in a process that made no other call memory and crash are the item's own: else an earlier item may have left a timer behind."""
    assert judge(Death(header=at_work(calls=1), **facts)).failure is None
    assert judge(Death(header=at_work(calls=0), **facts)).failure["kind"] == kind


def test_time_and_damage_are_the_items_own_in_a_used_child_too():
    """Nobody but the item at work passes its timeout, or damages the journal while it is watched."""
    assert judge(Death(header=at_work(calls=1), killed_for="timeout", timeout=1.0)).failure["kind"] == "timeout"
    assert judge(Death(header=at_work(calls=1), killed_for="damage", signal=9)).failure["kind"] == "crash"


def test_death_of_the_guardian_is_nobodys_fault():
    """The item at work is executed again; one that must not be is billed to the infrastructure."""
    facts = {"signal": 9, "guardian_died": True}
    assert judge(Death(header=at_work(), **facts)).failure is None
    assert judge(Death(header=at_work(), idempotent=False, **facts)).failure["kind"] == "infrastructure"


def test_second_death_of_a_guardian_of_its_own_is_a_crash():
    """The item that was at work each time, with nothing else below that guardian, is to blame."""
    facts = {"signal": 9, "guardian_died": True}
    assert judge(Death(header=at_work(), guardian_deaths=1, **facts)).failure is None
    assert judge(Death(header=at_work(), guardian_deaths=2, **facts)).failure["kind"] == "crash"


def test_item_that_must_not_run_twice_is_convicted():
    """With ``idempotent=False`` the death of a used child is final: the call had begun."""
    for facts, kind in (({"killed_for": "memory"}, "memory"), ({}, "crash")):
        verdict = judge(Death(header=at_work(calls=5), signal=9, idempotent=False, **facts))
        assert verdict.failure["kind"] == kind


def test_item_that_was_stopped_counts_as_begun_where_it_must_not_run_twice():
    """It is nobody's fault and final; between two items nothing was begun."""
    verdict = judge(Death(header=at_work(), signal=9, killed_for="stop", idempotent=False))
    assert (verdict.index, verdict.failure["kind"], verdict.failure["error"]) == (4, "infrastructure", "stopped")
    assert judge(Death(header=at_work(sequence=8), signal=9, killed_for="stop", idempotent=False)) is None


def test_message_says_limit_and_measure():
    """The message of a memory kill names what was held and what is allowed."""
    verdict = judge(Death(header=at_work(), killed_for="memory", signal=9, peak_memory=312 * MIB, memory_limit=300 * MIB))
    assert verdict.failure["message"] == "killed at 312 MiB: its limit is 300 MiB, for its process and all below it"
