from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcompute.errors import ChangedError, DatasetMismatchError, DuplicateKeyError
from dcompute.inputs import Inputs
from dcompute.keys import item_seed
from dcompute.plan import Index, Plan, Policy, reasons
from dcompute.records import FAILED, STAYING_KINDS, SUCCEEDED, Item, ItemKey, Kind

BY_THEMSELVES = frozenset(Kind) - STAYING_KINDS


class Row(NamedTuple):
    """An outcome as a dataset has it."""

    key: ItemKey
    outcome: str = SUCCEEDED
    kind: str | None = None
    final: bool = False
    fingerprint: str = ""
    params_digest: str = "p"
    version: str | None = None
    code_digest: str = "c"
    seed: int | None = None


class Shelf:
    """Outcomes that can be looked up, and the index of them."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows = list(rows)
        self.asked = 0
        self.index = Index()
        self.index.add([row.key.text for row in self.rows], [row.key.kind for row in self.rows], np.arange(len(self.rows), dtype=np.uint64))
        self.index.close()

    def look_up(self, locations: Any) -> list[Row]:
        self.asked += len(locations)
        return [self.rows[int(location)] for location in locations]

    def plan(self, **policy: Any) -> Plan:
        return Plan(self.index, Policy(**{"params_digest": "p", "code_digest": "c", "again": BY_THEMSELVES, **policy}))


def _key(text: object) -> ItemKey:
    return ItemKey(str(text), "int")


def _item(text: object, *, position: int = 0, fingerprint: str = "") -> Item:
    return Item(_key(text), text, fingerprint, position, 8)


def _sift(shelf: Shelf, items: Sequence[Item], **policy: Any) -> tuple[list[Item], Plan]:
    plan = shelf.plan(**policy)
    return plan.sift(items, shelf.look_up), plan


# -------------------------------------------------------------------------------------------------------------------------- index

few_hashes = st.integers(0, 40).map(lambda number: number * 0x0600_0000_0000_0001)


@given(st.lists(st.lists(few_hashes, max_size=30), max_size=12), st.lists(few_hashes, max_size=20), st.booleans())
def test_an_index_finds_all_that_was_put_in_in_its_order(puts: list[list[int]], wanted: list[int], closed: bool) -> None:
    """As a mapping of lists would, however its runs lie; for each wanted hash the older ones first."""
    index, model, value = Index(), {}, 0  # type: tuple[Index, dict[int, list[int]], int]
    for hashes in puts:
        values = np.arange(value, value + len(hashes), dtype=np.uint64)
        index.put(np.array(hashes, dtype=np.uint64), values)
        for one in hashes:
            model.setdefault(one, []).append(value)
            value += 1
    if closed:
        index.close()
    which, found = index.find(np.array(wanted, dtype=np.uint64))
    expected = [(place, one) for place, hashed in enumerate(wanted) for one in model.get(hashed, [])]
    assert list(zip(which.tolist(), found.tolist(), strict=True)) == expected
    assert len(index) == value


def test_an_index_takes_sixteen_bytes_an_entry() -> None:
    """And while it grows little more."""
    count, rng = 400_000, np.random.default_rng(0)
    tracemalloc.start()
    index = Index()
    for _ in range(10):
        index.put(rng.integers(0, 2**64, count // 10, dtype=np.uint64), np.arange(count // 10, dtype=np.uint64))
    index.close()
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 16.5 * count
    assert most < 24 * count


# ------------------------------------------------------------------------------------------------------------------------ going on


def test_without_outcomes_everything_is_to_do() -> None:
    """In its order, as it came."""
    items = [_item(number, position=number) for number in range(5)]
    todo, plan = _sift(Shelf(), items)
    assert todo == items
    assert (plan.tally.met, plan.tally.new, plan.tally.todo) == (5, 5, 5)


def test_succeeded_items_are_skipped() -> None:
    """Those without an outcome stay, in their order."""
    shelf = Shelf(Row(_key(number)) for number in range(0, 10, 2))
    todo, plan = _sift(shelf, [_item(number) for number in range(10)])
    assert [item.value for item in todo] == [1, 3, 5, 7, 9]
    assert (plan.tally.succeeded, plan.tally.new) == (5, 5)
    assert not any(item.replaces for item in todo)


@pytest.mark.parametrize("kind", list(Kind))
def test_which_final_failures_stay(kind: Kind) -> None:
    """Permanent, timeout, memory and crash, unless they are asked for; the others go again by themselves."""
    shelf = Shelf([Row(_key(1), FAILED, kind, final=True)])
    todo, plan = _sift(shelf, [_item(1)])
    assert bool(todo) == (kind not in STAYING_KINDS)
    assert plan.tally.failed == ({kind: 1} if kind in STAYING_KINDS else {})
    for again, expected in ((frozenset(Kind), True), (BY_THEMSELVES | {kind}, True), (None, False)):
        todo, plan = _sift(shelf, [_item(1)], again=again)
        assert bool(todo) == expected
        assert plan.tally.retried == ({kind: 1} if expected else {})
    todo, _ = _sift(shelf, [_item(1)], again=frozenset(Kind))
    assert todo[0].replaces


def test_a_failure_that_was_not_final_goes_on() -> None:
    """With a fresh budget, and nothing is hidden for it; "never" runs no failed item at all."""
    shelf = Shelf([Row(_key(1), FAILED, Kind.CRASH)])
    todo, plan = _sift(shelf, [_item(1)])
    assert (todo[0].replaces, plan.tally.retried) == (False, {"crash": 1})
    assert _sift(shelf, [_item(1)], again=None)[0] == []


CHANGES = [
    ({"fingerprint": "a" * 32}, {"fingerprint": "b" * 32}, {}, "input"),
    ({"params_digest": "p"}, {}, {"params_digest": "q"}, "params"),
    ({"version": "1"}, {}, {"version": "2"}, "version"),
    ({"version": None}, {}, {"version": "2"}, "version"),
    ({"seed": item_seed(0, _key(1))}, {}, {"seed": 1}, "seed"),
    ({"code_digest": "old"}, {}, {"version": "code:c"}, "version"),
]
SAME = [
    ({"fingerprint": ""}, {"fingerprint": "b" * 32}, {}),
    ({"fingerprint": "a" * 32}, {"fingerprint": ""}, {}),
    ({"version": "1"}, {}, {"version": None}),
    ({"version": "1"}, {}, {"version": "1"}),
    ({"seed": item_seed(5, _key(1))}, {}, {"seed": 5}),
    ({"seed": None}, {}, {"seed": 5}),
    ({"code_digest": "c"}, {}, {"version": "code:c"}),
    ({"version": "code:c", "code_digest": "c"}, {}, {"version": "code:c"}),
]


@pytest.mark.parametrize(("stored", "item", "policy", "what"), CHANGES)
@pytest.mark.parametrize("outcome", [{}, {"outcome": FAILED, "kind": Kind.PERMANENT, "final": True}])
def test_what_changed_is_done_again(
    stored: dict[str, Any], item: dict[str, Any], policy: dict[str, Any], what: str, outcome: dict[str, Any]
) -> None:
    """Input, params, version and seed; on_change keeps it or makes an error of it."""
    shelf = Shelf([Row(_key(1), **{**outcome, **stored})])
    todo, plan = _sift(shelf, [_item(1, **item)], **policy)
    assert todo[0].replaces
    assert (plan.tally.redone, plan.tally.redone_by) == (1, {what: 1})
    kept, plan = _sift(shelf, [_item(1, **item)], **policy, on_change="keep")
    assert kept == []
    # a failure that stays is no finished item that is kept
    assert (plan.tally.kept, plan.tally.failed) == (({}, {"permanent": 1}) if outcome else ({what: 1}, {}))
    with pytest.raises(ChangedError, match=f"the {what} of item '1'"):
        _sift(shelf, [_item(1, **item)], **policy, on_change="error")


@pytest.mark.parametrize(("stored", "item", "policy"), SAME)
def test_what_did_not_change_or_cannot_be_told_is_kept(stored: dict[str, Any], item: dict[str, Any], policy: dict[str, Any]) -> None:
    """Declaring the code as the version redoes nothing that this very code made."""
    shelf = Shelf([Row(_key(1), **stored)])
    todo, plan = _sift(shelf, [_item(1, **item)], **policy, on_change="error")
    assert todo == []
    assert (plan.tally.succeeded, plan.tally.kept_changed) == (1, 0)


def test_without_a_version_a_changed_function_keeps_what_succeeded_and_retries_what_failed() -> None:
    """Finished items are counted as made by another form; failures stay until the input or the workload changes."""
    shelf = Shelf([Row(_key(1), code_digest="old"), Row(_key(2), FAILED, Kind.PERMANENT, final=True, code_digest="old")])
    items = [_item(1), _item(2)]
    todo, plan = _sift(shelf, items)
    assert [(item.value, item.replaces) for item in todo] == [(2, True)]
    assert (plan.tally.succeeded, plan.tally.kept_changed, plan.tally.retried) == (1, 1, {"permanent": 1})
    assert _sift(shelf, items, on_change="keep")[0] == []
    assert _sift(shelf, items, again=None)[0] == []
    versioned = Shelf([row._replace(version="1") for row in shelf.rows])
    assert _sift(versioned, items, version="1")[0] == []


@pytest.mark.parametrize(
    "outcome", [{}, {"outcome": FAILED, "kind": Kind.CRASH, "final": True}, {"outcome": FAILED, "kind": Kind.TRANSIENT}], ids=str
)
def test_outcomes_of_another_lambda_are_an_error(outcome: dict[str, Any]) -> None:
    """All lambdas have one name: what was changed and what is another workload look the same, unless a version or a name says more."""
    shelf = Shelf([Row(_key(1), code_digest="old", **outcome)])
    with pytest.raises(DatasetMismatchError, match=r"item '1'.*another dataset.*name=\"<lambda>\".*version="):
        _sift(shelf, [_item(1)], nameless=True)
    assert _sift(shelf, [_item(2)], nameless=True)[1].tally.new == 1
    assert _sift(shelf, [_item(1)], nameless=False)[1].tally.met == 1
    assert _sift(shelf, [_item(1)], nameless=True, version="2")[1].tally.redone == (outcome.get("kind") != Kind.TRANSIENT)
    same = Shelf([Row(_key(1))])
    assert _sift(same, [_item(1)], nameless=True)[1].tally.succeeded == 1


def test_the_newest_outcome_of_a_key_counts() -> None:
    """The one that lies last."""
    shelf = Shelf([Row(_key(1), FAILED, Kind.CRASH), Row(_key(2)), Row(_key(1)), Row(_key(2), FAILED, Kind.TRANSIENT)])
    todo, plan = _sift(shelf, [_item(1), _item(2)])
    assert [item.value for item in todo] == [2]
    assert plan.tally.succeeded == 1


def test_a_hash_alone_calls_nothing_done() -> None:
    """An item is done only if the stored key is its own; what shares its hash does not count, newer or older."""
    shelf = Shelf([Row(_key(1)), Row(_key("other")), Row(_key("another"))])
    shelf.index = Index()
    hashes = np.array([hash(_key(1))] * 3 + [hash(_key(2))], dtype=np.int64).view(np.uint64)
    shelf.index.put(hashes, np.array([0, 1, 2, 1], dtype=np.uint64))
    todo, plan = _sift(shelf, [_item(1), _item(2), _item(3)])
    assert [item.value for item in todo] == [2, 3]
    assert plan.tally.succeeded == 1


@given(
    st.dictionaries(st.integers(0, 30), st.sampled_from([SUCCEEDED, *Kind])), st.lists(st.integers(0, 40), unique=True), st.integers(1, 7)
)
def test_sifting_is_what_one_would_do_by_hand(outcomes: dict[int, str], wanted: list[int], size: int) -> None:
    """However the items are cut into pieces, each is met once and either to do or counted as skipped."""
    rows = [Row(_key(n), SUCCEEDED) if how == SUCCEEDED else Row(_key(n), FAILED, how, final=True) for n, how in outcomes.items()]
    shelf = Shelf(rows)
    plan = shelf.plan()
    todo: list[Item] = []
    items = [_item(number, position=place) for place, number in enumerate(wanted)]
    for start in range(0, len(items), size):
        todo += plan.sift(items[start : start + size], shelf.look_up)
    assert [item.value for item in todo] == [n for n in wanted if outcomes.get(n) not in (SUCCEEDED, *STAYING_KINDS)]
    tally = plan.tally
    assert tally.met == len(wanted) == tally.todo + tally.succeeded + sum(tally.failed.values()) + tally.doubled
    assert sum(reasons(tally).values()) == len(wanted)


# ------------------------------------------------------------------------------------------------------------------------ doubles


def _planned(values: Any, *, size: int = 3, key: Any = None) -> tuple[list[Any], Plan]:
    inputs, plan = Inputs.of(values, key), Plan(Index(), Policy())
    plan.check_counted(inputs)
    items = list(inputs)
    todo = [item for start in range(0, len(items), size) for item in plan.sift(items[start : start + size], lambda _: [])]
    return [item.value for item in todo], plan


@given(st.lists(st.integers(0, 5) | st.sampled_from(["0", "1"]) | st.booleans(), max_size=20), st.booleans(), st.integers(1, 20))
def test_one_key_with_one_value_counts_once(values: list[Any], counted: bool, size: int) -> None:
    """The first one stays, in lists and in streams; 1, True and "1" are three keys."""
    todo, plan = _planned(values if counted else iter(values), size=size)
    typed = [(type(value), value) for value in values]
    assert [(type(value), value) for value in todo] == list(dict.fromkeys(typed))
    assert plan.tally.doubled == len(values) - len(todo)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_one_key_with_two_values_is_an_error(size: int) -> None:
    """With both positions where inputs can be counted, before anything is sifted; in a stream when it is met."""
    values = ["a", "b", "abc", "c"]
    with pytest.raises(DuplicateKeyError, match=r"inputs 0 and 1 .*key '1'") as caught:
        Plan(Index(), Policy()).check_counted(Inputs.of(values, len))
    assert (caught.value.key, caught.value.positions) == ("1", (0, 1))
    with pytest.raises(DuplicateKeyError, match="key '1'") as caught:
        _planned(iter(values), size=size, key=len)
    assert caught.value.positions == ((None, 1) if size == 1 else (0, 1))


def test_values_that_cannot_be_compared_are_not_taken_for_one() -> None:
    """The same object twice is one; two objects without a fingerprint under one key are an error."""
    one, other = complex.__class__, object
    assert _planned([one, one], key=lambda value: 1)[1].tally.doubled == 1
    for values in ([one, other], iter([one, other])):
        with pytest.raises(DuplicateKeyError, match="cannot be told"):
            _planned(values, key=lambda value: 1)


def test_what_cannot_repeat_is_not_looked_at() -> None:
    """A range is not read beforehand."""

    class Watched(Inputs):
        def hashes(self) -> Any:
            raise AssertionError("was read")

    plan = Plan(Index(), Policy())
    plan.check_counted(Watched(Inputs.of(range(5))._source))
    assert len(plan.sift(list(Inputs.of(range(5))), lambda _: [])) == 5


@pytest.mark.parametrize("read", [list, iter], ids=["counted", "stream"])
def test_a_tuple_and_a_list_in_values_with_one_key_are_two_values(read: Callable[[list[Any]], Any]) -> None:
    """JSON writes them alike, and a workload does not take them alike: none is left out without a word."""
    with pytest.raises(DuplicateKeyError, match="different values"):
        _planned(read([{"a": (1, 2)}, {"a": [1, 2]}]))
    assert _planned(read([{"a": (1, 2)}, {"a": (1, 2)}]))[1].tally.doubled == 1


def test_many_doubles_are_found_group_by_group() -> None:
    """More of them than are looked at in one go."""
    values = [number % 3000 for number in range(12_000)]
    todo, plan = _planned(values, size=4096)
    assert todo == list(range(3000))
    assert plan.tally.doubled == 9000


def test_different_keys_with_one_hash_are_no_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """In streams 32 bits of another hash of the key tell them apart."""

    class Alike(ItemKey):
        def __hash__(self) -> int:
            return 7

    items = [Item(Alike(text, "str"), text, "a" * 32, place, 1) for place, text in enumerate("abcab")]
    plan = Plan(Index(), Policy())
    todo = plan.sift(items[:2], lambda _: []) + plan.sift(items[2:], lambda _: [])
    assert [item.value for item in todo] == ["a", "b", "c"]
    assert plan.tally.doubled == 2


def test_a_tally_in_words() -> None:
    """Only what there is."""
    shelf = Shelf([Row(_key(1)), Row(_key(2), FAILED, Kind.CRASH, final=True), Row(_key(3), params_digest="old")])
    _, plan = _sift(shelf, [_item(number) for number in range(5)])
    assert reasons(plan.tally) == {"new": 2, "again, params changed": 1, "done before": 1, "failed before, stays (crash)": 1}
