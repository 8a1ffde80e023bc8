"""What a call left changed: what is put back, and whom a failure is counted against."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcompute.worker.conditions import Found, Next, after_call, entries, limit, variables, within

CHANGED, LOST = Found(changed=("locale",)), Found(lost=("limits",))
ALL_FOUND = (Found(), CHANGED, LOST, Found(("locale",), ("limits",)))


@pytest.mark.parametrize(
    ("found", "earlier", "spoilt", "expected"),
    [
        (Found(), True, False, Next.GO_ON),
        (CHANGED, False, False, Next.GO_ON),
        (CHANGED, True, False, Next.AGAIN),
        (LOST, False, False, Next.GO_ON),
        (LOST, True, False, Next.FRESH),
        (Found(("locale",), ("limits",)), True, False, Next.FRESH),
        (Found(), False, True, Next.FRESH),
    ],
)
def test_a_failure_counts_where_no_earlier_item_can_be_the_cause(found, earlier, spoilt, expected):
    """It is the item's own where nothing is changed or only it was called since; else it is called again where nothing is changed."""
    assert after_call(succeeded=False, idempotent=True, found=found, earlier=earlier, spoilt=spoilt) is expected


def test_what_succeeded_is_never_called_again():
    """Whatever was found: the outcome counts."""
    for found, earlier, spoilt in itertools.product(ALL_FOUND, (False, True), (False, True)):
        assert after_call(succeeded=True, idempotent=True, found=found, earlier=earlier, spoilt=spoilt) is Next.GO_ON


def test_what_may_run_once_is_never_called_again():
    """Its outcome counts, and a process that cannot be put back is left before the next item."""
    for found, earlier, spoilt, succeeded in itertools.product(ALL_FOUND, (False, True), (False, True), (False, True)):
        following = after_call(succeeded=succeeded, idempotent=False, found=found, earlier=earlier, spoilt=spoilt)
        assert following is (Next.LEAVE if spoilt or found.lost else Next.GO_ON)


NAMES = st.dictionaries(st.sampled_from([b"A", b"B", b"C", b"D"]), st.binary(max_size=2))


@given(NAMES, NAMES, st.booleans())
def test_variables_are_as_they_were(was, now, imported):
    """What was there has its value; what is new stays only where modules were imported."""
    wanted = variables(was, now, imported=imported)
    assert {name: wanted[name] for name in was} == was
    assert {name: value for name, value in wanted.items() if name not in was} == (
        {name: value for name, value in now.items() if name not in was} if imported else {}
    )


def test_entries_are_as_they_were():
    """New ones stay where modules were imported and nothing was removed or reordered; anything else is put back."""
    was = ["a", "b"]
    assert entries(was, ["x", "a", "y", "b"], imported=True) == ["x", "a", "y", "b"]
    assert entries(was, ["x", "a", "b"], imported=False) == was
    for now in (["b", "a"], ["a"], [], None, ("a", "b", "c")):
        assert entries(was, now, imported=True) == was


UNLIMITED = -1


@pytest.mark.parametrize(
    ("was", "now", "wanted", "possible"),
    [
        ((100, 200), (50, 200), (100, 200), (100, 200)),
        ((100, 200), (50, 50), (100, 200), (50, 50)),
        ((100, 200), (50, 150), (100, 200), (100, 150)),
        ((UNLIMITED, UNLIMITED), (50, UNLIMITED), (UNLIMITED, UNLIMITED), (UNLIMITED, UNLIMITED)),
        ((UNLIMITED, UNLIMITED), (50, 60), (UNLIMITED, UNLIMITED), (60, 60)),
        ((100, UNLIMITED), (UNLIMITED, UNLIMITED), None, None),
        ((100, 200), (200, 200), None, None),
        ((100, 200), (100, 100), None, None),
    ],
)
def test_lowered_limits_are_raised_as_far_as_can_be(was, now, wanted, possible):
    """A limit that was raised, or of which only the hard one was lowered, stays: it hurts nobody."""
    assert limit(was, now) == wanted
    assert wanted is None or within(was, now) == possible
