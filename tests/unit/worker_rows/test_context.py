"""What an item may ask about itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dcompute.errors import UsageError
from dcompute.keys import item_seed
from dcompute.records import ItemKey
from dcompute.worker import context
from dcompute.worker.context import MOST_METRICS, Context, current

KEY = ItemKey("a/b.csv", "str")


@pytest.fixture(autouse=True)
def _nobody_at_work() -> Iterator[None]:
    yield
    context.end()


def _begin(**changed: Any) -> Context:
    known: dict[str, Any] = {"params": {"window": 3}, "seed": 7}
    return context.begin(KEY, 2, "run-1", **{**known, **changed})


def test_outside_an_item_everything_is_harmless() -> None:
    """A workload that is called plainly gets defaults, and what it reports goes nowhere."""
    here = current()
    assert (here.key, here.key_kind, here.attempt, here.run, dict(here.params), here.seed) == (None, None, 1, "", {}, 0)
    here.progress(0.5, "text")
    here.metric("files", 3)
    assert here.metrics == {}
    assert here.scratch.is_dir()


def test_an_item_knows_itself_until_it_ends() -> None:
    """``current()`` is the item that began last, in any thread of the process, and nobody after its end."""
    _begin()
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(current()))
    thread.start()
    thread.join()
    assert seen == [current()]
    assert (current().key, current().attempt, current().run, current().params["window"]) == ("a/b.csv", 2, "run-1", 3)
    context.end()
    assert current().key is None


def test_each_item_of_a_call_has_its_own_key_attempt_and_seed() -> None:
    """One item is told of itself, several in their order, and outside there is none."""
    assert current().items == ()
    item, other = _begin(), ItemKey("2", "int")
    assert item.items == (("a/b.csv", "str", 2, item_seed(7, KEY)),)
    item.join([(other, 3)])
    assert [one.seed for one in item.items] == [item_seed(7, KEY), item_seed(7, other)]
    assert (item.items[1].key, item.items[1].key_kind, item.items[1].attempt) == ("2", "int", 3)


def test_items_of_two_threads_do_not_meet() -> None:
    """With an item a thread, each sees its own, and the end of one leaves the other."""
    _begin(own_thread=True)
    seen: list[Any] = []

    def other() -> None:
        seen.append(current().key)
        context.begin(ItemKey("other", "str"), 1, "r", params={}, seed=0, own_thread=True)
        seen.append(current().key)
        context.end()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [None, "other"]
    assert current().key == "a/b.csv"


def test_scratch_is_made_when_asked_for_and_removed_at_the_end(tmp_path: Path) -> None:
    """An item that asks for no scratch costs no folder; one that does leaves none."""
    root = tmp_path / "items"
    _begin(room=context.Room(str(root)))
    assert not root.exists()
    folder = current().scratch
    (folder / "file").write_text("x")
    assert current().scratch == folder
    assert folder.parent == root
    context.end()
    assert not folder.exists()


def test_the_seed_is_that_of_run_and_key() -> None:
    """The seed is the same on every retry and differs between keys, kinds of keys and run seeds; it fits into 63 bits."""
    seeds = {item_seed(seed, ItemKey(text, kind)) for seed in (0, 1) for text in ("1", "2") for kind in ("str", "int")}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert _begin().seed == item_seed(7, KEY) == 5811727251231989903
    assert np.random.default_rng(current().seed).integers(10) >= 0


def test_progress_is_a_number_from_0_to_1() -> None:
    """Whatever type of number it is; a sum of steps may miss 1 by its rounding."""
    told: list[tuple[float, str]] = []
    _begin(report=lambda fraction, text: told.append((fraction, text)))
    current().progress(0.4, "umap")
    current().progress(np.float32(0.5))
    current().progress(Fraction(1, 4))
    current().progress(sum([0.1] * 10) + 1e-9)
    assert told == [(0.4, "umap"), (0.5, ""), (0.25, ""), (1.0, "")]


@pytest.mark.parametrize("wrong", [5, -1, 1.01, float("nan"), float("inf"), "0.5", None, 10**400, [1]], ids=lambda wrong: repr(wrong)[:6])
@pytest.mark.parametrize("inside", [True, False])
def test_any_other_progress_is_refused(wrong: Any, inside: bool) -> None:
    """With what was said and what is expected, in an item and outside of one: what is tried out alone behaves as it will in a run."""
    told: list[Any] = []
    if inside:
        _begin(report=lambda *said: told.append(said))
    with pytest.raises(UsageError, match=r"progress\(.*from 0 to 1, such as progress\(done / total\)"):
        current().progress(wrong)
    assert told == []


def test_metrics_are_numbers_and_texts() -> None:
    """The last value of a name counts, NumPy numbers become plain, and what is not finite is null: rows of attempts hold JSON."""
    item = _begin()
    current().metric("files", 3)
    current().metric("files", np.int64(4))
    current().metric("note", "x" * 10_000)
    current().metric("loss", float("nan"))
    current().metric("rate", np.float32("inf"))
    assert item.metrics == {"files": 4, "note": "x" * 10_000, "loss": None, "rate": None}
    assert type(item.metrics["files"]) is int


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("rows", [1], "number or a text"),
        ("array", np.arange(3), "number or a text"),
        ("nothing", None, "number or a text"),
        ("text", "x" * 10_001, "10,001 bytes, at most 10,000"),
        ("text", "é" * 5_001, "10,002 bytes"),
        ("count", 2**80, "64 fit"),
        ("", 1, "1 to 100 characters"),
        ("n" * 101, 1, "1 to 100 characters"),
        (7, 1, "1 to 100 characters"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_metric_that_no_row_should_hold_is_refused(name: Any, value: Any, told: str, inside: bool) -> None:
    """No array, no text without end, no name without end; the same outside an item."""
    item = _begin() if inside else current()
    with pytest.raises(UsageError, match=told):
        current().metric(name, value)
    assert item.metrics == {}


def test_an_attempt_has_a_bounded_number_of_metrics() -> None:
    """One name too many is refused; a name that is there may be recorded again."""
    item = _begin()
    for number in range(MOST_METRICS):
        current().metric(f"m{number}", number)
    with pytest.raises(UsageError, match="at most 1,000 metrics"):
        current().metric("one more", 1)
    current().metric("m0", 5)
    assert (len(item.metrics), item.metrics["m0"]) == (1000, 5)
