"""Columns of a batch on their way to a worker's child."""

from __future__ import annotations

import gc
import pickle
import threading

from hypothesis import given
from hypothesis import strategies as st

from dcompute.garbage import uncollected
from dcompute.keys import item_seed, item_seeds
from dcompute.packed import Column, Fingerprints, Keys, Numbers
from dcompute.records import BatchSpec, ItemKey

KEYS = st.lists(st.builds(ItemKey, st.text(max_size=8), st.sampled_from(["str", "int", "tuple"])), max_size=20)
PRINTS = st.lists(st.one_of(st.text(max_size=40), st.binary(min_size=16, max_size=16).map(bytes.hex)), max_size=20)


def _there(column: Column) -> Column:
    return pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(column))))


@given(KEYS)
def test_keys_come_out_as_they_went_in(keys: list[ItemKey]) -> None:
    """Whatever stands in the texts, what separates them included, and whether the kinds are alike or not."""
    there = _there(Keys.of(keys))

    assert (tuple(there), len(there)) == (tuple(keys), len(keys))
    assert all(type(key) is ItemKey for key in there)


@given(PRINTS)
def test_fingerprints_come_out_as_they_went_in(prints: list[str]) -> None:
    """Hex digits, no fingerprint at all, and any text of somebody's own."""
    assert list(_there(Fingerprints.of(prints))) == prints


@given(st.lists(st.integers(1, 3), max_size=20))
def test_numbers_come_out_as_they_went_in(numbers: list[int]) -> None:
    """Alike or not."""
    assert list(_there(Numbers.of(numbers))) == numbers


def test_fingerprints_that_only_look_like_ours_keep_their_spelling() -> None:
    """Upper case and blanks are hex digits for Python, and another text."""
    odd = ["AB" * 16, "ab " * 10 + "ab"]

    assert list(_there(Fingerprints.of(odd))) == odd


def test_many_alike_take_few_bytes() -> None:
    """A batch of ten thousand integers travels in 25 bytes an item beside its values."""
    count = 10_000
    batch = BatchSpec(
        id="r-000001-00000001",
        keys=Keys.of([ItemKey(str(number), "int") for number in range(count)]),
        attempts=Numbers.of([1] * count),
        fingerprints=Fingerprints.of([f"{number:032x}" for number in range(count)]),
        values=b"",
    )

    assert len(pickle.dumps(batch)) < 25 * count
    assert len(pickle.loads(pickle.dumps(batch))) == count


def test_a_column_equals_the_tuple_it_was_made_of() -> None:
    """Readers need not know which of both they have."""
    keys = (ItemKey("a", "str"), ItemKey("b", "str"))

    assert Keys.of(keys) == keys
    assert Keys.of(keys)[1] == keys[1]
    assert Keys.of(keys)[:1] == keys[:1]
    assert hash(Keys.of(keys)) == hash(keys)
    assert Numbers.of([1, 1]) != (1, 2)


@given(st.integers(0, 2**63), KEYS)
def test_seeds_of_many_are_those_of_each(seed: int, keys: list[ItemKey]) -> None:
    """A seed is the same however it is computed: it is recorded, and compared later."""
    assert item_seeds(seed, keys) == [item_seed(seed, key) for key in keys]


def test_collection_is_off_until_the_last_block_ends() -> None:
    """Blocks of several threads overlap; afterwards it is as it was."""
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with uncollected():
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=stay)
    with uncollected():
        other.start()
        assert inside.wait(10)
    assert not gc.isenabled()
    leave.set()
    other.join(10)
    assert gc.isenabled()


def test_collection_that_was_off_stays_off() -> None:
    """Who turned it off finds it so."""
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
