"""The retry policy: one decision a failure, by table and by what a workload says."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcompute.errors import WorkloadError
from dcompute.records import Failure, Kind
from dcompute.retry import FINAL, TABLE, Decision, Retry, Rule


def failure(kind: str = Kind.PERMANENT, error: str = "ValueError", **more: object) -> Failure:
    return Failure(index=0, kind=kind, error=error, **more)


def attempts(policy: Retry, what: Failure) -> int:
    """How many attempts an item gets that always fails so, where its memory can always be raised; at most 20."""
    rng = random.Random(0)
    return next((attempt for attempt in range(1, 20) if not policy.decide(what, attempt, rng).again), 20)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("transient", 5),
        ("recoverable", 3),
        ("permanent", 1),
        ("timeout", 1),
        ("memory", 20),
        ("crash", 2),
        ("cancelled", 1),
        ("infrastructure", 1),
    ],
)
def test_the_table_holds_where_nothing_is_said(kind: str, count: int) -> None:
    """So many attempts by kind; memory goes on as long as it can be raised; losses are never decided here."""
    assert attempts(Retry(), failure(kind)) == count


@pytest.mark.parametrize("kind", sorted(TABLE))
@pytest.mark.parametrize("retries", [0, 3])
def test_a_number_means_so_many_more_attempts_for_every_kind(kind: str, retries: int) -> None:
    """``retries=N`` counts exceptions, timeouts, memory and crashes alike."""
    assert attempts(Retry.times(retries), failure(kind)) == retries + 1


def test_a_number_keeps_the_manner_of_the_table() -> None:
    """Doubled memory, running alone and back-off stay; with a number of its own memory need not be raised to be tried again."""
    rng = random.Random(0)
    policy = Retry(3)
    memory = policy.decide(failure(Kind.MEMORY), 1, rng)
    assert (memory.memory, memory.only_larger) == (2.0, False)
    assert policy.decide(failure(Kind.CRASH), 1, rng).alone
    assert Retry().decide(failure(Kind.MEMORY), 1, rng).only_larger


@given(st.integers(1, 2000), st.integers(0, 2**32))
def test_a_wait_is_anything_up_to_the_back_off(attempt: int, seed: int) -> None:
    """Full jitter: between nothing and ``delay * factor ** (attempt - 1)``, at most ``longest``; far attempts do not overflow."""
    rule = TABLE[Kind.TRANSIENT]
    assert 0 <= rule.wait(attempt, random.Random(seed)) <= min(300.0, 2.0 ** min(attempt - 1, 60))


def test_without_jitter_waits_are_exact() -> None:
    """1, 2, 4 and so on, at most the longest."""
    rule = Rule(retries=9, delay=1, factor=2, longest=5, jitter=False)
    assert [rule.wait(attempt, random.Random(0)) for attempt in (1, 2, 3, 4)] == [1, 2, 4, 5]


class Throttled(ConnectionError):
    """Somebody's own error."""


@pytest.mark.parametrize(
    ("name", "hit"),
    [
        ("lab.Throttled", True),
        ("Throttled", True),
        ("ConnectionError", True),
        ("builtins.ConnectionError", True),
        (ConnectionError, True),
        ("requests.exceptions.ConnectionError", False),
        (TimeoutError, False),
    ],
)
def test_an_exception_is_known_by_class_or_name_and_by_its_bases(name: str | type[BaseException], hit: bool) -> None:
    """A rule for a class holds for what is derived from it, and for nothing that only has the same last name."""
    policy = Retry(exceptions={name: 7})
    assert attempts(policy, failure(error="lab.Throttled", bases=("ConnectionError", "OSError"))) == (8 if hit else 1)


def test_a_built_in_class_does_not_stand_for_its_namesake() -> None:
    """The built-in ConnectionError is not that of requests."""
    assert attempts(Retry(exceptions={ConnectionError: 7}), failure(error="requests.exceptions.ConnectionError", bases=("OSError",))) == 1


def test_the_most_special_rule_decides() -> None:
    """Exit code before signal before exception (its own before its bases) before kind before the number."""
    policy = Retry(1, kinds={"crash": 2}, exceptions={"Base": 3, "Own": 4}, signals={"SIGBUS": 5}, exit_codes={75: 6})
    crash = {"kind": Kind.CRASH}
    assert attempts(policy, failure(Kind.TIMEOUT)) == 2
    assert attempts(policy, failure(**crash)) == 3
    assert attempts(policy, failure(**crash, error="Other", bases=("Base",))) == 4
    assert attempts(policy, failure(**crash, error="Own", bases=("Base",))) == 5
    assert attempts(policy, failure(**crash, error="Own", signal=int(signal.SIGBUS))) == 6
    assert attempts(policy, failure(**crash, error="Own", signal=int(signal.SIGBUS), exit_code=75)) == 7


def test_a_predicate_has_the_first_word() -> None:
    """True gives a budget where the rule has none, False ends it, None leaves it to the rules."""
    answers = {"yes": True, "no": False, "none": None}
    policy = Retry(2, predicate=lambda what: answers[what.message])
    assert attempts(policy, failure(message="none")) == 3
    assert attempts(policy, failure(message="no")) == 1
    assert attempts(Retry(predicate=lambda what: answers[what.message]), failure(message="yes")) == 5
    assert attempts(policy, failure(message="yes")) == 3


def test_a_predicate_that_raises_is_no_opinion() -> None:
    """The rules decide, and the decision carries what was wrong."""
    policy = Retry(predicate=lambda what: bool(1 / 0))
    decision = policy.decide(failure(), 1, random.Random(0))
    assert decision == Decision(again=False, problem="the retry predicate raised ZeroDivisionError: division by zero")


def course(policy: Retry, *failures: Failure) -> list[bool]:
    """Whether an item that fails so, one after another, is tried again after each; it ends with the first that is final."""
    billed: list[str] = []
    found: list[bool] = []
    for what in failures:
        budget = policy.budget(what)
        found.append(policy.decide(what, billed.count(budget) + 1, random.Random(0)).again)
        billed.append(budget)
        if not found[-1]:
            break
    return found


LOST, GONE, CRASH = failure(Kind.TRANSIENT), failure(Kind.RECOVERABLE), failure(Kind.CRASH)


def test_failures_of_one_kind_leave_the_budgets_of_the_others_alone() -> None:
    """A crash is executed once more whatever failed before it; each kind ends with its own number."""
    assert course(Retry(), LOST, CRASH, CRASH) == [True, True, False]
    assert course(Retry(), LOST, LOST, GONE, GONE, GONE) == [True, True, True, True, False]
    assert course(Retry(), CRASH, LOST, LOST, LOST, LOST, LOST) == [True, True, True, True, True, False]
    assert course(Retry(), LOST, failure(Kind.TIMEOUT)) == [True, False]


def test_a_number_counts_failures_of_all_kinds_together() -> None:
    """``retries=2`` is two more attempts, not two of each kind."""
    assert course(Retry(2), LOST, CRASH, GONE) == [True, True, False]


def test_each_rule_counts_what_it_decides() -> None:
    """A class with all that is derived from it has one budget; a number beside rules counts what none of them knows."""
    base, derived = failure(error="lab.Base"), failure(error="lab.Own", bases=("lab.Base",))
    policy = Retry(1, exceptions={"lab.Base": 2}, exit_codes={75: 1}, signals={"SIGBUS": 1}, kinds={"timeout": 1})
    assert course(policy, base, derived, base) == [True, True, False]
    others = [failure(Kind.CRASH, exit_code=75), failure(Kind.CRASH, signal=int(signal.SIGBUS)), failure(Kind.TIMEOUT), LOST]
    assert course(policy, base, derived, *others, CRASH) == [True] * 6 + [False]
    for once in others[:3]:
        assert course(policy, once, once) == [True, False]


@given(st.lists(st.sampled_from([LOST, GONE, CRASH, failure(), failure(Kind.TIMEOUT), failure(error="Own")]), min_size=30, max_size=30))
def test_no_item_goes_round_for_ever(failures: list[Failure]) -> None:
    """It has at most as many attempts as the budgets together, whatever it fails of and however eager the predicate."""
    assert len(course(Retry(), *failures)) <= 1 + 4 + 2 + 1
    assert len(course(Retry(exceptions={"Own": 3}, predicate=lambda _: True), *failures)) <= 1 + 4 + 2 + 1 + 4 + 4 + 3


def test_of_takes_all_that_a_workload_may_say() -> None:
    """None, a number or a policy."""
    policy = Retry(2)
    assert Retry.of(policy) is policy
    assert attempts(Retry.of(4), failure()) == 5
    assert Retry.of(None).decide(failure(), 1, random.Random(0)) == FINAL


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: Retry(-1), "retries=-1"),
        (lambda: Retry(2.5), "retries=2.5"),
        (lambda: Retry(True), "retries=True"),
        (lambda: Retry(Retry(1)), "retries=Retry("),
        (lambda: Retry(kinds={"infrastructure": 3}), "kinds={'infrastructure': ...}"),
        (lambda: Retry(kinds={Kind.INFRASTRUCTURE: 3}), "kinds={'infrastructure': ...}"),
        (lambda: Retry(kinds={"slow": 3}), "kinds={'slow': ...}"),
        (lambda: Retry(kinds={3: 3}), "kinds={3: ...}"),
        (lambda: Retry(kinds="timeout"), "kinds='timeout': say what is tried again"),
        (lambda: Retry(kinds=["timeout"]), "kinds=['timeout']: say what is tried again"),
        (lambda: Retry(kinds={"timeout": -1}), "kinds['timeout']=-1: say a whole number"),
        (lambda: Retry(kinds={"timeout": "2"}), "kinds['timeout']='2': say a whole number"),
        (lambda: Retry(kinds={"timeout": None}), "kinds['timeout']=None: say a whole number"),
        (lambda: Retry(exceptions={3: 3}), "exceptions={3: ...}"),
        (lambda: Retry(exceptions={"": 3}), "exceptions={'': ...}"),
        (lambda: Retry(exceptions={int: 3}), "exceptions={<class 'int'>: ...}"),
        (lambda: Retry(exceptions=OSError), "exceptions=<class 'OSError'>: say what is tried again"),
        (lambda: Retry(exceptions={OSError: 1.5}), "exceptions[<class 'OSError'>]=1.5"),
        (lambda: Retry(exit_codes={"a": 1}), "exit_codes={'a': ...}"),
        (lambda: Retry(exit_codes={"75": 1}), "exit_codes={'75': ...}"),
        (lambda: Retry(exit_codes={True: 1}), "exit_codes={True: ...}"),
        (lambda: Retry(exit_codes={-9: 1}), "signals={9: ...}"),
        (lambda: Retry(exit_codes=75), "exit_codes=75: say what is tried again"),
        (lambda: Retry(exit_codes={75: True}), "exit_codes[75]=True"),
        (lambda: Retry(signals={"SIGWRONG": 3}), "signals={'SIGWRONG': ...}"),
        (lambda: Retry(signals={True: 3}), "signals={True: ...}"),
        (lambda: Retry(signals={None: 3}), "signals={None: ...}"),
        (lambda: Retry(signals=[9]), "signals=[9]: say what is tried again"),
        (lambda: Retry(predicate="yes"), "predicate='yes'"),
        (lambda: Retry(predicate=bool), "predicate=<class 'bool'>"),
        (lambda: Retry(predicate=answers_later), "is asynchronous"),
        (lambda: Rule(retries=None), "retries=None ends only where"),
        (lambda: Rule(retries="3"), "retries='3'"),
        (lambda: Rule(delay=-1), "delay=-1"),
        (lambda: Rule(delay="1 s"), "delay='1 s': say a number of 0 or more, seconds"),
        (lambda: Rule(delay=float("nan")), "delay=nan"),
        (lambda: Rule(longest=float("inf")), "longest=inf"),
        (lambda: Rule(factor=0.5), "factor=0.5"),
        (lambda: Rule(factor=True), "factor=True"),
        (lambda: Rule(memory="2 GiB"), "memory='2 GiB': say a number of 1 or more, by which"),
        (lambda: Rule(memory=0.5), "memory=0.5"),
        (lambda: Rule(jitter=1), "jitter=1"),
        (lambda: Rule(alone="yes"), "alone='yes'"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(wrong: Callable[[], object], told: str) -> None:
    """Where it is written, with the name of the argument and what was given."""
    with pytest.raises(WorkloadError, match=re.escape(told)):
        wrong()


async def answers_later(_: Failure) -> bool:
    return True
