"""What is no input any more: found by the plan, and dropped where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcompute.index import Index, Marks
from dcompute.plan import Plan, Policy, reasons
from dcompute.records import FAILED, SUCCEEDED, Item, ItemKey


class Row(NamedTuple):
    """An outcome as a dataset has it."""

    key: ItemKey
    fingerprint: str = ""
    outcome: str = SUCCEEDED
    kind: str | None = None
    final: bool = False
    params_digest: str = ""
    version: str | None = None
    code_digest: str = ""
    seed: int | None = None


class Shelf:
    """Outcomes in the order in which they were added, and those that a hide ended since."""

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self.rows = list(rows)
        self.hidden: set[int] = set()

    def plan(self, **policy: Any) -> Plan:
        index = Index()
        places = [place for place in range(len(self.rows)) if place not in self.hidden]
        keys = [self.rows[place].key for place in places]
        index.add([key.text for key in keys], [key.kind for key in keys], np.array(places, dtype=np.uint64))
        index.close()
        return Plan(index, Policy(**policy))

    def look_up(self, locations: Any) -> list[Row]:
        return [self.rows[int(location)] for location in locations]

    def hide(self, key: ItemKey) -> None:
        self.hidden.update(place for place, row in enumerate(self.rows) if row.key == key)

    def results(self) -> dict[str, str]:
        """The fingerprint that each visible result was made of."""
        return {row.key.text: row.fingerprint for place, row in enumerate(self.rows) if place not in self.hidden}


def key(text: object) -> ItemKey:
    return ItemKey(str(text), "str")


def items(found: dict[str, str]) -> list[Item]:
    return [Item(key(text), text, stamp, place, 8) for place, (text, stamp) in enumerate(found.items())]


def gone(shelf: Shelf, given: Sequence[Item], left: Sequence[Item] = ()) -> set[str]:
    plan = shelf.plan(on_gone="drop")
    plan.sift(given, shelf.look_up)
    plan.end([left] if left else [], shelf.look_up)
    found = [each.text for keys in plan.gone(shelf.look_up) for each in keys]
    assert len(found) == len(set(found)) == plan.tally.gone
    return set(found)


def test_what_has_an_outcome_and_is_no_input_is_gone() -> None:
    """Succeeded or failed: it is gone where no input has its key, and only there."""
    shelf = Shelf([Row(key("a")), Row(key("b")), Row(key("c"), outcome=FAILED, kind="crash", final=True)])
    assert gone(shelf, items({"a": "", "new": ""})) == {"b", "c"}
    assert gone(shelf, items({"a": "", "b": "", "c": ""})) == set()
    assert gone(shelf, []) == {"a", "b", "c"}


def test_what_is_left_for_the_next_run_is_not_gone() -> None:
    """An input that changed a moment ago is there: its old outcome stays."""
    shelf = Shelf([Row(key("a")), Row(key("b"))])
    assert gone(shelf, items({"a": ""}), left=items({"b": "2", "never": "1"})) == set()


def test_of_several_outcomes_of_a_key_the_newest_tells() -> None:
    """An item that was tried in several runs is met once, and gone once."""
    tries = [Row(key("a"), outcome=FAILED, kind="transient"), Row(key("b"), outcome=FAILED, kind="transient"), Row(key("b"))]
    assert gone(Shelf([*tries, Row(key("a"))]), items({"a": ""})) == {"b"}
    assert gone(Shelf([*tries, Row(key("a"))]), items({"b": ""})) == {"a"}


def test_keys_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two keys share a hash, the one that is no input is gone, and the other one is not."""

    class Same(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 7

    keys = [ItemKey(Same(text), Same("str")) for text in "ab"]
    for one, other in (keys, keys[::-1]):
        shelf = Shelf(list(map(Row, keys)))
        plan = shelf.plan(on_gone="drop")
        plan.sift([Item(one, "v", "", 0, 8)], shelf.look_up)
        plan.end([], shelf.look_up)
        assert list(plan.gone(shelf.look_up)) == [[other]]


def test_reasons_say_what_becomes_of_what_is_gone() -> None:
    """The words tell whether it stays."""
    shelf = Shelf([Row(key("a")), Row(key("b"))])
    for on_gone, words in (("keep", "no longer an input, kept"), ("drop", "no longer an input, dropped")):
        plan = shelf.plan(on_gone=on_gone)
        plan.sift(items({"a": ""}), shelf.look_up)
        plan.end([], shelf.look_up)
        assert reasons(plan.tally, on_gone) == {"done before": 1, words: 1}


def test_marks_take_nine_bytes_each() -> None:
    """Words that were marked are not among the others."""
    marks = Marks(np.array([9, 4, 6], dtype=np.uint64))
    marks.put(np.array([6], dtype=np.uint64))
    assert marks.unmet().tolist() == [4, 9]


# ----------------------------------------------------------------------------------------------------- inputs that come and go

inputs = st.dictionaries(st.sampled_from("abcdefg"), st.sampled_from("123"), min_size=1)
runs = st.lists(st.tuples(inputs, st.none() | st.integers(0, 6)), min_size=1, max_size=6)


def commits(shelf: Shelf, found: dict[str, str], on_gone: str) -> Iterator[None]:
    """What a run does to a dataset, stopping after each entry of the log."""
    plan = shelf.plan(on_gone=on_gone)
    given = items(found)
    for start in range(0, len(given), 2):
        for item in plan.sift(given[start : start + 2], shelf.look_up):
            if item.replaces:
                shelf.hide(item.key)
            shelf.rows.append(Row(item.key, item.fingerprint))
            yield
    plan.end([], shelf.look_up)
    if on_gone == "drop":
        for keys in plan.gone(shelf.look_up):
            for each in keys:
                shelf.hide(each)
            yield


@given(history=runs, last=inputs, on_gone=st.sampled_from(["keep", "drop"]))
def test_whatever_came_before_the_results_are_those_of_a_fresh_run(
    history: list[tuple[dict[str, str], int | None]], last: dict[str, str], on_gone: str
) -> None:
    """Inputs appear, change, vanish and come back, runs are killed after any entry: one whole run gives what it would give alone.

    With ``on_gone="keep"`` what vanished is there too, as it was made last.
    """
    shelf = Shelf()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dcompute.plan._DROPPED_AT_ONCE", 2)
        for found, killed in history:
            for number, _ in enumerate(commits(shelf, found, on_gone)):
                if number == killed:
                    break
        list(commits(shelf, last, on_gone))
        if on_gone == "drop":
            assert shelf.results() == last
        else:
            assert shelf.results().items() >= last.items()
        before = len(shelf.rows)
        assert not list(commits(shelf, last, on_gone))
        assert len(shelf.rows) == before
