from __future__ import annotations

import pytest

from dcompute.cost import Cost, cost_of
from dcompute.dataset.entries import AddBatch
from dcompute.records import ItemKey


def batch(succeeded: int, seconds: float, slot_seconds: float = 0.0, final: int = 0, failed: int = 0) -> AddBatch:
    return AddBatch(
        id="b",
        holds=((0, succeeded + failed),),
        succeeded=succeeded,
        final=tuple(ItemKey(str(number), "int") for number in range(final)),
        failed=(("transient", failed),),
        seconds=seconds,
        slot_seconds=slot_seconds,
    )


def test_items_cost_what_the_last_ones_did() -> None:
    """Work and slots are those of an item that ended, times the items; all slots are busy."""
    found = cost_of(100, [batch(4, 8.0, 10.0), batch(6, 12.0, 15.0)], 5)
    assert (found.judged_by, found.seconds, found.slot_seconds, found.wall_seconds) == (10, 200.0, 250.0, 50.0)


def test_failed_attempts_are_paid_by_the_items_that_ended() -> None:
    """What was tried twice costs twice; a failure that is final ended an item."""
    found = cost_of(10, [batch(0, 3.0, failed=3), batch(2, 3.0, final=1, failed=1)], None)
    assert (found.judged_by, found.seconds, found.wall_seconds) == (3, 20.0, None)


@pytest.mark.parametrize(("todo", "slots", "wall"), [(2, 8, 1.0), (8, 2, 4.0), (0, 4, 0.0)])
def test_more_slots_than_items_help_nobody(todo: int, slots: int, wall: float) -> None:
    """An item takes the time that it takes."""
    assert cost_of(todo, [batch(3, 3.0)], slots).wall_seconds == wall


def test_without_history_nothing_is_known() -> None:
    """No batch, or none in which an item ended, tells nothing."""
    for history in ([], [batch(0, 9.0, failed=2)]):
        assert cost_of(7, history, 4) == Cost(items=7, slots=4)
        assert cost_of(7, history, 4).wall_seconds is None
