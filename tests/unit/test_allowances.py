"""Named limits of several runs together: what each may use, and the units that say who has what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcompute.allowances import MEET_SECONDS, Allowances, Units, agreed, share_of, spelled
from dcompute.quotas import Quota


def words(
    needed: int, *, weight: float = 1.0, priority: float = 0.0, uses: Mapping[str, float] | None = None, **more: Any
) -> dict[str, Any]:
    """What a run says of itself."""
    classes = [{"uses": uses or {"licence": 1.0}, "needed": needed, "priority": priority}]
    return {"weight": weight, "spent": 0.0, "classes": classes, **more}


class Locks:
    """Locks that all runs of a test have in common, as those of a scheduler."""

    def __init__(self) -> None:
        self.held: dict[str, object] = {}

    def of(self, name: str) -> Any:
        locks = self

        class Lock:
            def acquire(self, timeout: float) -> bool:
                return locks.held.setdefault(name, self) is self

            def release(self) -> None:
                del locks.held[name]

        return Lock()


def test_the_smaller_of_two_statements_counts() -> None:
    """Runs that say different things of one limit keep to the smaller, and hear of it; a rate is not compared with a number."""
    found, news = agreed({"licence": Quota(3), "api": Quota(20, 1)}, {"r2": {"limits": spelled({"licence": Quota(2), "api": Quota(5)})}})
    assert found == {"licence": Quota(2), "api": Quota(20, 1)}
    assert len(news) == 1
    assert "r2 says that there is less of 'licence' (2) than this one does (3)" in news[0]
    assert agreed({"licence": Quota(3)}, {"r2": {"limits": spelled({"licence": Quota(4)})}})[0] == {"licence": Quota(3)}


def test_a_number_is_shared_by_weight_and_priority() -> None:
    """Units go by weight within a priority, higher ones first, and what one does not need the others have."""
    three = Quota(4)
    assert share_of("licence", three, "a", {"a": words(9, weight=3), "b": words(9)}) == 3
    assert share_of("licence", three, "b", {"a": words(9, priority=10), "b": words(9)}) == 0
    assert share_of("licence", three, "b", {"a": words(1, priority=10), "b": words(9)}) == 3
    assert share_of("licence", three, "c", {"a": words(9)}) == 0


def test_a_rate_is_divided_among_those_who_use_it() -> None:
    """By weight; who has nothing to do takes no part."""
    uses = {"api": 1.0}
    table = {"a": words(5, weight=3, uses=uses), "b": words(5, uses=uses), "c": words(0, uses=uses)}
    assert [share_of("api", Quota(20, 1), run, table) for run in "ab"] == [15, 5]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 6)), max_size=40), st.integers(1, 5))
def test_units_are_never_held_by_two(steps: list[tuple[int, int, int]], amount: int) -> None:
    """Whatever runs want and use, in any order: together they hold no more than there is, and what is in use is never given back."""
    locks = Locks()
    runs = [Units("licence", Quota(amount), locks.of) for _ in range(3)]
    for number, want, used in steps:
        units = runs[number]
        units.floor = min(units.held, used)
        units.want = want
        units.take()
        assert units.held >= units.floor
        assert sum(run.held for run in runs) <= amount
        assert len(locks.held) == sum(len(run.names) for run in runs)
    for units in runs:
        units.want, units.floor = 0, 0
        units.take()
    assert not locks.held


def test_fewer_units_are_kept_to_as_soon_as_they_are_not_used() -> None:
    """When the limit shrinks, units beyond it are given back first, and only then when nothing uses them."""
    locks = Locks()
    units = Units("licence", Quota(3), locks.of)
    units.want = 3
    assert units.take()
    units.resize(Quota(1))
    units.want, units.floor = 1, 2
    units.take()
    assert len(locks.held) == 2
    assert "dcompute-licence-1-0" in locks.held
    units.floor = 1
    units.take()
    assert list(locks.held) == ["dcompute-licence-1-0"]


@pytest.mark.parametrize("amount", [1000.0, 257.5, 0.5])
def test_large_and_broken_numbers_have_few_units(amount: float) -> None:
    """However much there is, so many units at most, which together are all of it."""
    locks = Locks()
    units = Units("licence", Quota(amount), locks.of)
    units.want = amount
    units.take()
    assert units.held == amount
    assert len(locks.held) <= 256


def test_a_run_that_meets_others_waits_before_it_uses_a_rate() -> None:
    """Until they have seen it and keep to less; one that is alone may use all at once."""
    quotas = {"api": Quota(20, 1)}
    alone, met = Allowances(None, "a", quotas), Allowances(None, "a", quotas)  # type: ignore[arg-type]
    other = {"b": words(5, uses={"api": 1.0})}
    alone.begin({}, 0.0)
    met.begin(other, 0.0)
    assert (alone.first(), met.first()) == ({"api": 20.0}, {"api": 0.0})
    table = {**other, "a": words(5, uses={"api": 1.0})}
    assert met.reckon(table, {}, MEET_SECONDS - 0.1) == {"api": 0.0}
    assert met.reckon(table, {}, MEET_SECONDS) == {"api": 10.0}
