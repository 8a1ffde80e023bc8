"""Whole runs of the window on a simulated cluster: what must hold whatever happens in whatever order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcompute.affinity import apart, off, on, together
from dcompute.records import Affinity
from dcompute.window import End
from tests.component.window.window_cluster import Scenario, finished

CONDUCT = (
    "ok",
    "permanent",
    "transient:2",
    "transient:9",
    "recoverable:1",
    "timeout",
    "crash:1",
    "crash",
    "memory:2",
    "memory:4",
    "memory:9",
    "kills",
)

AFFINITIES = (
    (on(zone="a"),),
    (apart(),),
    (together(),),
    (apart(), together()),
    (off(zone="a", hard=False), apart(hard=False)),
    (on(zone="b"), together(hard=False)),
)

scenarios = st.builds(
    Scenario,
    seed=st.integers(0, 2**32),
    items=st.integers(0, 60),
    workers=st.integers(1, 4),
    batch_size=st.sampled_from([None, None, 1, 7]),
    idempotent=st.sampled_from([True, True, False]),
    twice=st.booleans(),
    trouble=st.sampled_from([0, 5, 30]),
    stuck=st.sampled_from([0, 3]),
    zombies=st.booleans(),
    at_work=st.booleans(),
    target=st.sampled_from([None, None, 5]),
    most=st.sampled_from([None, None, 1, 3]),
    licences=st.sampled_from([None, None, 1, 2]),
    rate=st.sampled_from([None, None, "3/s", "40/s", "20/min"]),
    affinity=st.sampled_from([(), (), *AFFINITIES]),
    conduct=st.lists(st.sampled_from(CONDUCT), min_size=1, max_size=6).map(lambda some: ("ok", *some)),
)

calm = settings(suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@calm
@given(scenarios)
def test_every_item_ends_with_exactly_one_outcome(scenario: Scenario) -> None:
    """Whatever happens in whatever order, a run ends, and then every item has one final outcome and no more."""
    cluster = finished(scenario)
    assert cluster.ended == End("done")
    assert len(cluster.outcomes) == scenario.items
    assert cluster.window.counts().cancelled == 0


@calm
@given(scenarios, st.integers(1, 200))
def test_a_cancelled_run_sends_nothing_more_and_ends(scenario: Scenario, after: int) -> None:
    """After a cancel nothing goes out, what was written still counts once, and the rest is counted as cancelled."""
    cluster = finished(replace(scenario, cancel_after=after))
    counts = cluster.window.counts()
    assert cluster.ended.code in {"done", "cancelled"}
    assert counts.cancelled == counts.offered - len(cluster.outcomes)


@calm
@given(scenarios)
def test_the_same_events_and_seed_give_the_same_instructions(scenario: Scenario) -> None:
    """A run can be repeated: nothing in the window depends on anything but its events and its random numbers."""
    assert finished(scenario).log == finished(scenario).log


@calm
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([None, 1, 7, 60]))
def test_an_item_that_kills_its_workers_is_lost_five_times_and_harms_nobody(seed: int, items: int, batch_size: int | None) -> None:
    """Without a word about which item was at work: killers end as infrastructure after at most 5 losses, all others succeed."""
    kills = ("ok",) * 15 + ("kills",)
    cluster = finished(Scenario(seed, items=items, batch_size=batch_size, trouble=0, zombies=False, at_work=False, conduct=kills))
    assert max(cluster.lost.values(), default=0) <= 5
    for key, conduct in cluster.conduct.items():
        assert cluster.outcomes[key] == ("succeeded" if conduct == "ok" else "infrastructure")


@calm
@given(scenarios)
def test_an_item_that_must_not_run_twice_never_does(scenario: Scenario) -> None:
    """With idempotent=False nothing that may have begun goes out a second time: after no failure, no loss, no batch cut short."""
    cluster = finished(replace(scenario, idempotent=False))
    assert max(cluster.begun.values(), default=0) <= 1


@calm
@given(scenarios, st.integers(1, 200))
def test_an_item_that_was_not_begun_is_not_lost(scenario: Scenario, after: int) -> None:
    """With idempotent=False a batch that was cut short loses the item at work; all others are executed, or left for later."""
    cluster = finished(replace(scenario, idempotent=False, cancel_after=after))
    unmarked = {tried.item.key for number in cluster.unmarked for tried in cluster.tries[number]}
    assert {key for key, losses in cluster.condemned.items() if losses < 5} <= unmarked


@pytest.mark.parametrize("conduct", ["transient:9", "permanent", "recoverable", "kills"])
def test_a_run_in_which_everything_fails_ends(conduct: str) -> None:
    """A pause is no end: items that all fail with one error all get their outcome."""
    cluster = finished(Scenario(7, items=120, trouble=0, conduct=(conduct,)))
    assert set(cluster.outcomes.values()) == {"infrastructure" if conduct == "kills" else conduct.partition(":")[0]}


@calm
@given(scenarios)
def test_errors_raise_ends_with_the_first_final_failure(scenario: Scenario) -> None:
    """With errors="raise" the run stops at a final failure and names the item; without one it is done."""
    cluster = finished(replace(scenario, errors="raise"))
    failed = {key for key, outcome in cluster.outcomes.items() if outcome != "succeeded"}
    if cluster.ended.code == "item":
        assert cluster.ended.tried.item.key in failed
    else:
        assert not failed


@pytest.mark.parametrize("rules", AFFINITIES, ids=lambda rules: "-".join(f"{rule.kind}{'' if rule.hard else '?'}" for rule in rules))
@pytest.mark.parametrize("batch_size", [1, None])
def test_hard_rules_are_never_broken_and_everything_ends(rules: tuple[Affinity, ...], batch_size: int | None) -> None:
    """Wherever workers come and go, batches are lost and items run alone: no batch where it must not be, and none left over."""
    for seed in range(12):
        scenario = Scenario(seed, items=50, workers=4, batch_size=batch_size, trouble=30, stuck=3, conduct=CONDUCT, affinity=rules)
        assert len(finished(scenario).outcomes) == 50
