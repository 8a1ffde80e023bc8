"""The shares of runs that work on one cluster at the same time: properties that hold for any of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcompute.sharing import TURN_SECONDS, Claim, Party, Share, part_of, split, taken

ONE = {"thread": 1.0}
NAMES = ["thread", "GPU", "MEMORY"]

amounts = st.integers(0, 8).map(float)
rooms_of = st.dictionaries(st.sampled_from([f"w{n}" for n in range(4)]), st.fixed_dictionaries(dict.fromkeys(NAMES, amounts)), max_size=4)
claims = st.builds(
    Claim,
    needs=st.fixed_dictionaries({"thread": st.just(1.0)}, optional={"GPU": st.just(1.0), "MEMORY": st.sampled_from([0.5, 2.0, 3.0])}),
    demand=st.integers(0, 12),
    priority=st.sampled_from([0.0, 10.0]),
    held=st.dictionaries(st.sampled_from([f"w{n}" for n in range(5)]), st.integers(1, 3), max_size=3),
)
parties_of = st.lists(
    st.builds(
        Party,
        run=st.uuids().map(str),
        weight=st.sampled_from([0.5, 1.0, 3.0]),
        spent=st.sampled_from([0.0, 0.0, 0.1, 5.0]),
        claims=st.lists(claims, max_size=2).map(tuple),
        shuns=st.frozensets(st.sampled_from(["w0", "w1"]), max_size=1),
    ),
    max_size=5,
    unique_by=lambda party: party.run,
)


def count(share: Share) -> int:
    return sum(sum(there.values()) for there in share)


def used(parties: list[Party], shares: dict[str, Share], rooms: dict[str, dict[str, float]]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {worker: Counter() for worker in rooms}
    for party in parties:
        for claim, share in zip(party.claims, shares[party.run], strict=True):
            for worker, number in share.items():
                for name, need in claim.needs.items():
                    found[worker][name] += need * number
    return found


@given(parties_of, rooms_of)
def test_no_worker_is_given_away_twice(parties: list[Party], rooms: dict[str, dict[str, float]]) -> None:
    """The shares of all runs together fit on each worker, in each thing that it has, and nobody gets more than he could use."""
    shares = split(parties, rooms)
    for worker, there in used(parties, shares, rooms).items():
        assert all(amount <= rooms[worker].get(name, 0.0) + 1e-6 for name, amount in there.items())
    for party in parties:
        assert all(sum(share.values()) <= claim.demand for claim, share in zip(party.claims, shares[party.run], strict=True))
        assert party.shuns.isdisjoint(worker for share in shares[party.run] for worker in share)


@given(parties_of, rooms_of)
def test_nothing_that_somebody_could_use_is_left(parties: list[Party], rooms: dict[str, dict[str, float]]) -> None:
    """Where a run wants more than its share, no worker that it may use has room for one more of its batches."""
    shares = split(parties, rooms)
    there = used(parties, shares, rooms)
    for party in parties:
        for claim, share in zip(party.claims, shares[party.run], strict=True):
            if sum(share.values()) < claim.demand:
                fits = [
                    worker
                    for worker in rooms
                    if worker not in party.shuns
                    and all(rooms[worker].get(name, 0.0) - there[worker][name] + 1e-9 >= need for name, need in claim.needs.items())
                ]
                assert not fits


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 7.0]), min_size=1, max_size=6), st.integers(1, 40))
def test_weights_are_kept_within_one_slot(weights: list[float], slots: int) -> None:
    """Of runs that could use all, none has so much that without its last slot it would still have more for its weight than another."""
    parties = [Party(run=f"r{n}", weight=weight, claims=(Claim(needs=ONE, demand=1000),)) for n, weight in enumerate(weights)]
    shares = split(parties, {f"w{n}": ONE for n in range(slots)})
    had = {party.run: count(shares[party.run]) for party in parties}
    assert sum(had.values()) == slots
    for one in parties:
        assert all((had[one.run] - 1) / one.weight <= had[other.run] / other.weight + 1e-9 for other in parties)
    assert slots < len(parties) or min(had.values()) >= 1


@given(parties_of, rooms_of, st.randoms(use_true_random=False))
def test_all_drivers_find_the_same_shares(parties: list[Party], rooms: dict[str, dict[str, float]], random: object) -> None:
    """The order in which runs and workers are known changes nothing."""
    there = list(rooms.items())
    others = list(parties)
    random.shuffle(others)  # type: ignore[attr-defined]
    random.shuffle(there)  # type: ignore[attr-defined]
    assert split(others, dict(there)) == split(parties, rooms)
    alike = [Party(run=run, claims=(Claim(needs=ONE, demand=1),)) for run in "ab"]
    assert split(alike, {"w": ONE}) == split(reversed(alike), {"w": ONE})


@given(parties_of, rooms_of)
def test_a_lower_priority_changes_nothing_above_it(parties: list[Party], rooms: dict[str, dict[str, float]]) -> None:
    """What classes of the highest priority get is what they would get alone."""
    # what others hold somewhere may change where a batch goes
    parties = [replace(party, claims=tuple(replace(claim, held={}) for claim in party.claims)) for party in parties]
    top = [replace(party, claims=tuple(claim for claim in party.claims if claim.priority == 10)) for party in parties]
    shares, alone = split(parties, rooms), split(top, rooms)
    for party in parties:
        high = tuple(share for claim, share in zip(party.claims, shares[party.run], strict=True) if claim.priority == 10)
        assert [sum(share.values()) for share in high] == [sum(share.values()) for share in alone[party.run]]


@pytest.mark.parametrize("slots", [2, 3, 8])
def test_runs_that_do_not_fit_beside_each_other_take_turns_by_weight(slots: int) -> None:
    """Where shares are no whole slots, over time each run gets by its weight, none waits without end, and turns last seconds."""
    weights = {"a": 3.0, "b": 1.0, "c": 1.0, "d": 1.0}
    rooms = {f"w{n}": ONE for n in range(slots)}
    spent, said, had, last = ({**dict.fromkeys(weights, 0.0)} for _ in range(4))
    now, changes = dict.fromkeys(weights, 0), 0
    for second in range(1200):
        said |= {run: spent[run] for number, run in enumerate(weights) if (second + number) % TURN_SECONDS == 0}
        parties = [Party(run=run, weight=weights[run], spent=said[run], claims=(Claim(needs=ONE, demand=99),)) for run in weights]
        for run, share in split(parties, rooms).items():
            had[run] += count(share)
            changes += now[run] != count(share)
            now[run] = count(share)
            spent[run] = 0.98 * spent[run] + count(share) / slots / weights[run]
            last[run] = second if count(share) else last[run]
            assert second - last[run] < 60
    assert changes < 1600
    for run, weight in weights.items():
        assert had[run] / (1200 * slots) == pytest.approx(weight / 6, rel=0.1)


def test_what_needs_other_workers_is_not_in_the_way() -> None:
    """A run that can use one worker only leaves the others to the rest, however large its weight is."""
    rooms = {"plain": {"thread": 4.0}, "gpu": {"thread": 4.0, "GPU": 1.0}}
    gpu = Party(run="gpu", weight=100, claims=(Claim(needs={"thread": 1, "GPU": 1}, demand=50),))
    cpu = Party(run="cpu", claims=(Claim(needs=ONE, demand=50),))
    shares = split([gpu, cpu], rooms)
    assert (count(shares["gpu"]), count(shares["cpu"])) == (1, 7)


def test_batches_stay_where_they_are() -> None:
    """A share lies on the workers that hold its batches already, as far as it goes, so that no worker has too many and another none."""
    rooms = {"w0": {"thread": 2.0}, "w1": {"thread": 2.0}}
    one = Party(run="a", weight=3, claims=(Claim(needs=ONE, demand=9, held={"w0": 2, "w1": 1}),))
    shares = split([one, Party(run="b", claims=(Claim(needs=ONE, demand=9),))], rooms)
    assert shares == {"a": ({"w0": 2, "w1": 1},), "b": ({"w1": 1},)}


def test_what_others_take_of_a_worker() -> None:
    """It is what their shares need there; where asked for, what they still hold beyond that too."""
    claim = Claim(needs={"thread": 1, "MEMORY": 2}, demand=9, held={"w0": 3})
    parties, shares = [Party(run="a", claims=(claim,)), Party(run="b")], {"a": ({"w0": 1},), "b": ()}
    assert taken(parties, shares, but="b") == {"w0": {"thread": 1, "MEMORY": 2}}
    assert taken(parties, shares, but="b", held=True) == {"w0": {"thread": 3, "MEMORY": 6}}
    assert taken(parties, shares, but="a") == {}


def test_a_batch_is_weighed_by_what_is_scarcest() -> None:
    """A batch with one of two GPUs is half of the cluster, whatever its cores are."""
    rooms = {"w0": {"thread": 8.0, "GPU": 2.0}, "w1": {"thread": 8.0}}
    assert part_of(Claim(needs={"thread": 1, "GPU": 1}, demand=1), rooms) == 0.5
