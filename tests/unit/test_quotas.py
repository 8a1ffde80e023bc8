"""Named limits and priorities, as users write them."""

from __future__ import annotations

from typing import Any

import pytest

from dcompute.errors import UsageError, WorkloadError
from dcompute.priority import PRIORITIES, aged, name_priority, parse_priority
from dcompute.quotas import Quota, check_uses, parse_quota, parse_quotas


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        (3, Quota(3)),
        ("3", Quota(3)),
        (0.5, Quota(0.5)),
        ("20/s", Quota(20, 1)),
        ("20 / sec", Quota(20, 1)),
        ("100/min", Quota(100, 60)),
        ("1,000 per hour", Quota(1000, 3600)),
        ("1e6/day", Quota(1e6, 86400)),
        ("5/10s", Quota(5, 10)),
        (Quota(2), Quota(2)),
    ],
)
def test_a_limit_is_a_number_or_a_rate(text: Any, quota: Quota) -> None:
    """With the spellings that people use, and shown so that it can be read again."""
    assert parse_quota(text) == quota
    assert parse_quota(str(quota)) == quota


@pytest.mark.parametrize(
    "text", ["", "many", 0, -1, "0/s", "20/", "20/fortnight", True, None, float("inf"), float("nan"), "3 licences", [3]]
)
def test_what_is_no_limit_is_refused_by_name(text: Any) -> None:
    """The error says which limit it is, and how one is written."""
    with pytest.raises(UsageError, match=r"limits\['api'\]=.*\"20/s\""):
        parse_quotas({"api": text})


def test_a_limit_of_the_settings_is_refused_as_one() -> None:
    """Whoever set it looks for it there."""
    with pytest.raises(UsageError, match=r"^dcompute\.limits\['api'\]="):
        parse_quotas({"api": "20/x"}, "dcompute.limits")


@pytest.mark.parametrize("limits", [["api"], "api=3", {3: 3}, {"": 3}])
def test_limits_are_names_and_amounts(limits: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(UsageError, match="say names and how much there is"):
        parse_quotas(limits)


def test_a_rate_measures_by_the_second() -> None:
    """So that drivers with different periods can share one."""
    assert Quota(120, 60).measure == 2.0
    assert Quota(3).measure == 3.0
    assert Quota(3).rate is None


def test_what_no_allowance_could_permit_is_refused() -> None:
    """A name of which nobody says how much there is, and an item that needs more than there ever is."""
    check_uses([("licence", 3)], {"licence": Quota(3)})
    with pytest.raises(UsageError, match="'licence', and nothing says how much of it there is \\(there are api\\)"):
        check_uses([("licence", 1)], {"api": Quota(3)})
    with pytest.raises(WorkloadError, match="uses 4 of 'licence', and the limit is 3"):
        check_uses([("licence", 4)], {"licence": Quota(3)})
    with pytest.raises(WorkloadError, match="the limit is 20/s"):
        check_uses([("api", 21)], {"api": Quota(20, 1)})


@pytest.mark.parametrize(("text", "number"), [*PRIORITIES.items(), ("HIGH ", 10), (7, 7), ("-3", -3)])
def test_a_priority_is_a_number_or_a_name(text: Any, number: int) -> None:
    """A higher number goes first, and so do the names in their order."""
    assert parse_priority(text) == number
    assert list(PRIORITIES.values()) == sorted(PRIORITIES.values(), reverse=True)


@pytest.mark.parametrize(("text", "hint"), [("hihg", "is 'high' meant"), (1.5, "whole number"), (True, "whole number"), (10**9, "between")])
def test_what_is_no_priority_is_refused(text: Any, hint: str) -> None:
    """With what may be said instead."""
    with pytest.raises(UsageError, match=hint):
        parse_priority(text)


def test_what_waits_gains_a_level_at_a_time() -> None:
    """From one name to the next after each span; nothing without one."""
    assert [aged(-10, waited, 60) for waited in (0, 59, 60, 119, 120)] == [-10, -10, 0, 0, 10]
    assert aged(5, 1e9, None) == 5
    assert [name_priority(number) for number in (20, 7)] == ["urgent", "7"]
