from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dcompute.worker import allotment

FOUR = dict.fromkeys("abcd", "nvidia")


def test_whole_devices_are_those_that_nobody_has() -> None:
    """Not even a share of one is had by somebody else; where there are too few, none."""
    assert allotment.devices(2, {"a": 0.5, "b": 0.0, "c": 1.0, "d": 0.0}, FOUR) == ("b", "d")
    assert allotment.devices(1, {"a": 0.25, "b": 1.0}, FOUR) is None


def test_shares_fill_a_device_before_they_begin_another() -> None:
    """So that whole ones stay for those who need one whole."""
    assert allotment.devices(0.5, {"a": 0.0, "b": 0.5, "c": 1.0}, FOUR) == ("b",)
    assert allotment.devices(0.5, {"a": 0.6, "b": 1.0}, FOUR) is None
    assert allotment.devices(1 / 3, {"a": 2 / 3}, FOUR) == ("a",)


def test_devices_of_one_batch_are_of_one_kind() -> None:
    """A program uses the one or the other."""
    kinds = {"a": "nvidia", "b": "amd", "c": "amd"}
    assert allotment.devices(2, dict.fromkeys("abc", 0.0), kinds) == ("b", "c")
    assert allotment.devices(3, dict.fromkeys("abc", 0.0), kinds) is None


def test_cores_are_had_by_one_while_there_are_enough() -> None:
    """The least used first, the process's own among equals; a part of a core takes one."""
    assert allotment.cores(2, {0: 1.0, 1: 0.0, 2: 0.0, 3: 0.0}) == (1, 2)
    assert allotment.cores(1, {0: 0.0, 1: 0.0, 2: 0.0}, before=(2,)) == (2,)
    assert allotment.cores(1.5, {0: 1.0, 1: 0.0, 2: 0.5}) == (1, 2)
    assert allotment.cores(0.5, {0: 0.5, 1: 0.0}) == (1,)
    assert allotment.cores(8, {0: 0.0, 1: 0.0}) == (0, 1)


@given(st.lists(st.tuples(st.sampled_from([0.25, 1 / 3, 0.5, 1.0, 2.0]), st.booleans()), max_size=60))
def test_no_device_is_had_by_two_more_than_it_has_room_for(steps: list[tuple[float, bool]]) -> None:
    """Whatever is asked for and given back, in whatever order: a whole one is had by one, and shares sum up to one at most."""
    taken: dict[str, list[float]] = {id: [] for id in FOUR}
    lent: list[tuple[tuple[str, ...], float]] = []
    for wanted, gives_back in steps:
        if gives_back and lent:
            ids, share = lent.pop(0)
            for id in ids:
                taken[id].remove(share)
        chosen = allotment.devices(wanted, {id: sum(shares) for id, shares in taken.items()}, FOUR)
        if chosen is not None:
            share = min(wanted, 1.0)
            assert len(set(chosen)) == len(chosen) == max(1, round(wanted))
            lent.append((chosen, share))
            for id in chosen:
                taken[id].append(share)
        assert all(sum(shares) <= 1.0001 and (len(shares) <= 1 or max(shares) < 1) for shares in taken.values())
