"""Which outcome of an item counts, in a stream of all and in a look-up of some."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dcompute.dataset import outcomes
from dcompute.dataset.entries import Add
from dcompute.dataset.outcomes import OutcomeReader, iter_outcomes
from dcompute.errors import DatasetCorruptError
from dcompute.records import ItemKey


def stream(scene: Any) -> dict[str, tuple[int, str, bool]]:
    """Key -> attempt, outcome, final; a later chunk wins."""
    found = {}
    for chunk in iter_outcomes(scene.store, scene.state):
        rows = chunk.table.to_pylist()
        assert len(rows) == len(chunk.locations)
        found.update({row["item_key"]: (row["attempt"], row["outcome"], row["final"]) for row in rows})
    return found


def test_an_empty_log_has_no_outcomes(scene: Any) -> None:
    """No batch, no chunk."""
    assert list(iter_outcomes(scene.store, scene.open().state)) == []


def test_the_newest_attempt_counts(scene: Any, did: Any) -> None:
    """A later entry counts for an item, whatever it says."""
    scene.add(did("a", failed="transient"), did("b")).add(did("a", 2))
    assert stream(scene) == {"a": (2, "succeeded", False), "b": (1, "succeeded", False)}


def test_a_later_entry_counts_over_a_higher_attempt(scene: Any, did: Any) -> None:
    """A later run counts its attempts from 1 again: the log's order decides first."""
    scene.add(did("a", 3, failed="transient")).add(did("a", 1, failed="crash"))
    assert stream(scene) == {"a": (1, "failed", False)}
    (chunk,) = iter_outcomes(scene.store, scene.state)
    assert chunk.table.column("kind").to_pylist() == ["crash"]


def test_in_one_entry_the_higher_attempt_counts(scene: Any, did: Any) -> None:
    """Of two batches of one commit the higher attempt is the newer one, in whatever order they stand."""
    second, first = scene.batch(did("a", 2)), scene.batch(did("a", 1, failed="transient"))
    scene.commit(Add(batches=(second, first)))
    assert stream(scene) == {"a": (2, "succeeded", False)}


def test_an_entry_is_never_cut_into_two_chunks(scene: Any, did: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With chunks as small as can be, attempts of one entry still come together."""
    monkeypatch.setattr(outcomes, "CHUNK_ROWS", 1)
    second, first = scene.batch(did("a", 2)), scene.batch(did("a", 1, failed="transient"))
    scene.commit(Add(batches=(second, first))).add(did("b"))
    assert stream(scene) == {"a": (2, "succeeded", False), "b": (1, "succeeded", False)}
    assert len(list(iter_outcomes(scene.store, scene.state))) == 2
    # neither is it cut where reading starts in its middle
    first_chunk = next(iter_outcomes(scene.store, scene.state, since=1))
    assert first_chunk.table.column("attempt").to_pylist() == [2]


def test_keys_left_out_and_hidden_have_no_outcome(scene: Any, did: Any) -> None:
    """A key that its batch left out, or that a later hide ended, is as if it had not been."""
    scene.add(did("a"), did("b"), did("c"), left_out=["a"]).hide("b").add(did("b", failed="crash"))
    assert stream(scene) == {"c": (1, "succeeded", False), "b": (1, "failed", False)}


def test_a_fresh_budget_counts_over_more_attempts_of_old(scene: Any, did: Any) -> None:
    """After a hide attempts count from 1 again: the old input's third attempt is not newer than the new one's first."""
    scene.add(did("a", 3)).hide("a").add(did("a", 1))
    assert stream(scene) == {"a": (1, "succeeded", False)}


def test_only_failures_that_the_log_calls_final_are(scene: Any, did: Any) -> None:
    """A failure is final by its batch; the same key's success in another batch is not."""
    scene.add(did("a", failed="permanent"), did("b", failed="transient"), final=["a"])
    assert stream(scene) == {"a": (1, "failed", True), "b": (1, "failed", False)}


def test_keys_of_another_kind_are_other_items(scene: Any, did: Any) -> None:
    """The text 1 and the number 1 are two items, and hiding one does not touch the other."""
    scene.add(did("1"), did("1", extra={"key_kind": "int"})).hide("1")
    (chunk,) = iter_outcomes(scene.store, scene.state)
    assert chunk.table.select(["item_key", "key_kind"]).to_pylist() == [{"item_key": "1", "key_kind": "int"}]


def test_stored_outcomes_come_in_the_order_asked(scene: Any, did: Any) -> None:
    """A look-up answers in the order of its question, twice where asked twice, across parts and filtered rows."""
    for number in range(5):
        scene.add(*(did(f"{number}-{row}", extra={"fingerprint": f"f{number}{row}"}) for row in range(4)), left_out=[f"{number}-0"])
    locations = np.concatenate([chunk.locations for chunk in iter_outcomes(scene.store, scene.state)])
    asked = np.random.default_rng(1).permutation(np.append(locations, locations))
    reader = OutcomeReader(scene.store, scene.state)
    found = reader.rows(asked)
    expected = {
        location: f"f{number}{row}"
        for location, (number, row) in zip(locations, [(n, r) for n in range(5) for r in (1, 2, 3)], strict=True)
    }
    assert [stored.fingerprint for stored in found] == [expected[location] for location in asked]
    assert found[0].key == ItemKey(found[0].key.text, "str")
    assert reader.rows([]) == []


def test_a_stored_outcome_says_all_that_going_on_asks(scene: Any, did: Any) -> None:
    """Fingerprint, digests, version, seed, kind and finality come with it."""
    extra = {"fingerprint": "f", "params_digest": "p", "code_digest": "c", "version": None, "seed": 7}
    scene.add(did("a", 2, failed="memory", extra=extra), final=["a"])
    (chunk,) = iter_outcomes(scene.store, scene.state)
    (stored,) = OutcomeReader(scene.store, scene.state).rows(chunk.locations)
    assert stored == (ItemKey("a", "str"), 2, "failed", "memory", "f", "p", None, "c", 7, True)


def test_what_is_committed_later_is_found_too(scene: Any, did: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader follows its state as it grows, and forgets what it read when that gets too much."""
    monkeypatch.setattr(outcomes, "_CACHE_BYTES", 1)
    state = scene.add(did("a")).state
    reader = OutcomeReader(scene.store, state)
    assert reader.rows([0])[0].key.text == "a"
    for text in "bcd":
        state.apply(scene.add(did(text)).entries[-1])
    asked = [3 << 32, 1 << 32, 0, 2 << 32, 3 << 32]
    assert [stored.key.text for stored in reader.rows(asked)] == ["d", "b", "a", "c", "d"]
    assert len(reader._kept) == 1


def test_a_counted_part_that_is_gone_stops_the_stream(scene: Any, did: Any) -> None:
    """A lost part is corruption, not an item to do again."""
    scene.add(did("a")).add(did("b"))
    scene.store.remove([scene.state.batches[0].mark])
    with pytest.raises(DatasetCorruptError, match="gone"):
        stream(scene)
