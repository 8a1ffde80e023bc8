"""What an item may ask about itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
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
    known: dict[str, Any] = {"params": {"window": 3}, "seed": 7, "scratch_root": None}
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


def test_items_of_two_threads_do_not_meet() -> None:
    """With an item a thread, each sees its own, and the end of one leaves the other."""
    _begin(own_thread=True)
    seen: list[Any] = []

    def other() -> None:
        seen.append(current().key)
        context.begin(ItemKey("other", "str"), 1, "r", params={}, seed=0, scratch_root=None, own_thread=True)
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
    _begin(scratch_root=str(root))
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


def test_progress_is_reported_within_its_bounds() -> None:
    """A fraction beyond 0 to 1 is cut, whatever number it is."""
    told: list[tuple[float, str]] = []
    _begin(report=lambda fraction, text: told.append((fraction, text)))
    current().progress(0.4, "umap")
    current().progress(np.float32(7))
    current().progress(-1)
    assert told == [(0.4, "umap"), (1.0, ""), (0.0, "")]


def test_metrics_are_numbers_and_texts() -> None:
    """The last value of a name counts; NumPy numbers become plain; anything else, and too many names, are refused."""
    item = _begin()
    current().metric("files", 3)
    current().metric("files", np.int64(4))
    current().metric("note", "x" * 5000)
    assert item.metrics["files"] == 4
    assert type(item.metrics["files"]) is int
    assert len(str(item.metrics["note"])) == 1024
    with pytest.raises(UsageError, match="number or a text"):
        current().metric("rows", [1])
    for number in range(MOST_METRICS - len(item.metrics)):
        current().metric(f"m{number}", number)
    with pytest.raises(UsageError, match=f"at most {MOST_METRICS}"):
        current().metric("one more", 1)
    current().metric("files", 5)
    assert item.metrics["files"] == 5
