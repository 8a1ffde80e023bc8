"""The tally of a log: what a status says by it is what the outcomes themselves say, wherever it goes on from."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcompute.dataset import tallying
from dcompute.dataset.checkpoint_file import from_bytes, to_bytes
from dcompute.dataset.entries import Action, Add, Hide
from dcompute.dataset.parts import read_attempts
from dcompute.dataset.reading import failed_rows
from dcompute.dataset.state import State, fold
from dcompute.dataset.status import Status, status_of
from dcompute.dataset.store import Store
from dcompute.dataset.tallying import tallied, unread
from dcompute.records import ItemKey

KEYS = "abcdef"
STEPS = 9
KINDS = ("crash", "transient", "timeout")


class Life:
    """Commits as drivers and deletions do, and knows how each item stands."""

    def __init__(self, scene: Any, did: Any, seed: int) -> None:
        self.scene, self.did, self.random = scene, did, random.Random(seed)
        self.stands: dict[str, str] = {}  # key -> "", a kind, or a kind and "!" where it is final
        scene.open()

    def step(self) -> None:
        if self.random.random() < 0.15 and self.stands:
            self.delete()
        else:
            self.run()

    def delete(self) -> None:
        keys = self.random.sample(sorted(self.stands), self.random.randint(1, len(self.stands)))
        # who deletes at the same moment as another deletes what is gone
        self.scene.commit(*(Hide(keys=tuple(map(key_of, keys)), scope="all") for _ in range(self.random.randint(1, 2))))
        for key in keys:
            del self.stands[key]

    def run(self) -> None:
        keys = self.random.sample(KEYS, self.random.randint(1, 4))
        hidden = [key for key in keys if key in self.stands and (self.stands[key] in ("", *ends()) or self.random.random() < 0.3)]
        actions: list[Action] = [Hide(keys=tuple(map(key_of, hidden)))] if hidden else []
        left_out = [key for key in KEYS if key not in keys and key in self.stands][: self.random.randint(0, 2)]
        first = [self.attempt(key, 1) for key in keys]
        retried = [key for key in keys if self.stands[key] in KINDS and self.random.random() < 0.5]
        batches = [self.batch(first, keys, left_out)]
        if retried:
            batches.append(self.batch([self.attempt(key, 2) for key in retried], retried, []))
            self.random.shuffle(batches)
        self.scene.commit(*actions, Add(batches=tuple(batches)))

    def attempt(self, key: str, number: int) -> Any:
        failed = self.random.choice(["", "", *KINDS])
        self.stands[key] = failed + self.random.choice(["", "!"]) if failed else ""
        return self.did(key, number, failed=failed or None)

    def batch(self, dids: list[Any], keys: list[str], left_out: list[str]) -> Any:
        doubles = [self.did(key, failed=self.random.choice([None, "crash"])) for key in left_out]
        final = [key for key in keys if self.stands[key].endswith("!")]
        return self.scene.batch(*doubles, *dids, left_out=left_out, final=final)


def ends() -> list[str]:
    return [f"{kind}!" for kind in KINDS]


def key_of(text: str) -> ItemKey:
    return ItemKey(text, "str")


def without_tally(entries: list[Any]) -> State:
    """A state whose status is read from the outcomes of all batches."""
    state = fold(entries)
    state.tally = None
    return state


def figures(status: Status) -> tuple[int, int, dict[str, int], int]:
    return status.succeeded, status.failed, dict(status.failed_by_kind), status.attempts


@settings(max_examples=12)
@given(st.integers(0, 2**32), st.integers(0, STEPS))
def test_a_status_by_tally_is_that_of_the_outcomes(new_scene: Any, did: Any, seed: int, cut: int) -> None:
    """Through retries, final failures, changed inputs and deletions: from nothing, from a checkpoint, and step by step."""
    store = Store.at(f"memory://{uuid.uuid4().hex}")
    life = Life(new_scene(store), did, seed)
    growing = fold(life.scene.entries)
    for _ in range(STEPS):
        life.step()
        growing.apply(life.scene.entries[-1])
        tallied(store, growing)
    entries = life.scene.entries
    kinds = [stand.rstrip("!") for stand in life.stands.values()]
    expected = {kind: kinds.count(kind) for kind in set(kinds) - {""}}

    first = fold(entries[:cut])
    tallied(store, first)
    resumed = fold(entries[cut:], from_bytes(to_bytes(first)))
    assert resumed.tally is not None
    rows = failed_rows(store, without_tally(entries))
    for state in (without_tally(entries), fold(entries), growing, resumed):
        found = status_of(store, state)
        assert (found.succeeded, dict(found.failed_by_kind)) == (kinds.count(""), expected)
        assert state.tally is None or failed_rows(store, state) == rows


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the attempts parts that are read."""
    names: list[str] = []

    def read(store: Any, name: str, columns: Any) -> Any:
        names.append(name)
        return read_attempts(store, name, columns)

    monkeypatch.setattr("dcompute.dataset.outcomes.read_attempts", read)
    return names


def test_only_parts_that_can_change_it_are_read(scene: Any, did: Any, reads: list[str]) -> None:
    """No part where nothing failed; with final failures theirs; with others theirs and all that come after."""
    state = fold(scene.open().add(did("a")).add(did("b")).entries)
    assert unread(state) == 0
    assert figures(status_of(scene.store, state)) == (2, 0, {}, 2)
    assert reads == []
    for entry in scene.add(did("c", failed="crash"), final=["c"]).add(did("d")).entries[3:]:
        state.apply(entry)
    assert unread(state) == 1
    assert figures(status_of(scene.store, state)) == (3, 1, {"crash": 1}, 4)
    assert reads == [state.batches[2].mark]
    for entry in scene.add(did("e", failed="transient")).add(did("f")).add(did("e", 2)).entries[5:]:
        state.apply(entry)
    reads.clear()
    assert figures(status_of(scene.store, state)) == (5, 1, {"crash": 1}, 7)
    assert reads == [state.batches[ordinal].mark for ordinal in (4, 5, 6)]
    # what is known is not read again
    assert figures(status_of(scene.store, state)) == (5, 1, {"crash": 1}, 7)
    assert len(reads) == 3


def test_a_part_that_is_gone_leaves_the_tally_as_it_was(scene: Any, did: Any) -> None:
    """A status that fails says so again when it is asked again, and is right once the part is back."""
    state = fold(scene.open().add(did("c")).add(did("a", failed="transient")).add(did("a", 2), did("b")).entries)
    mark = state.batches[1].mark
    data = scene.store.read(mark)
    scene.store.remove([mark])
    for _ in range(2):
        with pytest.raises(Exception, match="gone"):
            status_of(scene.store, state)
    scene.store.write(mark, data)
    assert figures(status_of(scene.store, state)) == (3, 0, {}, 4)


def asked_after_each(scene: Any) -> list[tuple[int, int]]:
    """Items succeeded and failed, by one state that grows and is asked after each entry."""
    state, found = State(), []
    for entry in scene.entries:
        state.apply(entry)
        status = status_of(scene.store, state)
        found.append((status.succeeded, status.failed))
    return found


def test_a_failure_that_is_not_final_ends_with_the_next_attempt(scene: Any, did: Any) -> None:
    """Although nothing failed since, and nothing was hidden."""
    scene.add(did("a", failed="transient")).add(did("a", 2))
    assert asked_after_each(scene) == [(0, 1), (1, 0)]


def test_what_was_deleted_and_done_again_can_be_hidden_again(scene: Any, did: Any) -> None:
    """A second hide of what is gone takes nothing away, and one of what came back does."""
    scene.add(did("a"), did("b")).hide("a", scope="all").hide("a", scope="all").add(did("a")).hide("a").add(did("a", failed="crash"))
    assert asked_after_each(scene) == [(2, 0), (1, 0), (1, 0), (2, 0), (1, 0), (1, 1)]


def test_where_too_much_failed_none_is_kept(scene: Any, did: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status then is read from the outcomes, and says the same; a checkpoint says that there is none."""
    monkeypatch.setattr(tallying, "MOST_FAILED", 1)
    state = fold(scene.open().add(did("a", failed="crash"), did("b", failed="crash"), did("c")).hide("c").entries)
    assert figures(status_of(scene.store, state)) == (0, 2, {"crash": 2}, 3)
    assert state.tally is None
    again = from_bytes(to_bytes(state))
    assert again.tally is None
    assert figures(status_of(scene.store, again)) == (0, 2, {"crash": 2}, 3)


def test_a_checkpoint_keeps_a_tally_of_its_own_entry_only(scene: Any, did: Any) -> None:
    """One that stands at an earlier entry would go on without the hides in between."""
    state = fold(scene.open().add(did("a")).hide("a").entries)
    assert from_bytes(to_bytes(state)).tally is None
    tallied(scene.store, state)
    kept = from_bytes(to_bytes(state)).tally
    assert kept == state.tally
    assert (kept.succeeded, kept.gone) == (0, {key_of("a")})
