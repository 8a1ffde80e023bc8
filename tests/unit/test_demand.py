from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcompute.demand import SILENT_SECONDS, Backoff, Hearing, Resting, Unit, heard, need, surplus, told, why_impossible
from dcompute.records import Request
from dcompute.resources import WorkerOffer

GIB = 1 << 30
CPU, GPU, LARGE = Request(), Request(gpus=1), Request(memory=6 * GIB)
NEW = WorkerOffer(address="new", nthreads=4, memory_limit=8 * GIB)
WITH_GPU = WorkerOffer(address="with-gpu", nthreads=4, memory_limit=8 * GIB, resources={"GPU": 2})


@pytest.mark.parametrize(
    ("demand", "new", "expected"),
    [
        ({}, NEW, 0),
        ({CPU: 1}, NEW, 1),
        ({CPU: 4}, NEW, 1),
        ({CPU: 5}, NEW, 2),
        ({LARGE: 3}, NEW, 3),
        ({CPU: 4, LARGE: 1}, NEW, 2),
        ({CPU: 2, LARGE: 1}, NEW, 2),
        ({CPU: 0}, NEW, 0),
        ({GPU: 3}, WITH_GPU, 2),
        ({GPU: 3}, NEW, 0),
        ({GPU: 3, CPU: 4}, NEW, 1),
    ],
)
def test_how_many_workers_a_demand_wants(demand: dict[Request, int], new: WorkerOffer, expected: int) -> None:
    """Each batch takes its part of a new worker; classes that a new one cannot serve want none."""
    assert need(demand, new, []).workers == expected


def test_a_class_that_no_worker_can_serve_is_named() -> None:
    """What neither a present worker nor a new one serves is impossible, and it is said why."""
    found = need({GPU: 3, CPU: 1}, NEW, [])
    assert found.impossible == (GPU,)
    assert why_impossible(GPU, NEW).startswith("needs GPU=1; a new worker has no GPU.")
    assert why_impossible(Request(cpus=9), NEW).startswith("needs CPU=9; a new worker has CPU=4 (threads)")


def test_a_present_worker_that_serves_what_a_new_one_could_not_is_kept() -> None:
    """A worker with a GPU in a cluster whose new ones have none stays while there is work for it, and nothing is asked for in its place."""
    found = need({GPU: 3}, NEW, [NEW, WITH_GPU])
    assert (found.workers, found.kept, found.impossible) == (1, {"with-gpu"}, ())


def test_workers_that_others_started_are_used_first() -> None:
    """What fits on workers of others needs none of the cluster's own."""
    assert need({CPU: 6}, NEW, [], [WITH_GPU]).workers == 1
    assert need({GPU: 2, CPU: 4}, NEW, [], [WITH_GPU]).workers == 1


@given(
    st.dictionaries(st.sampled_from([CPU, GPU, LARGE, Request(cpus=2), Request(cpus=3)]), st.integers(0, 50)),
    st.sampled_from([NEW, WITH_GPU]),
)
def test_what_is_asked_for_is_enough_and_not_idle(demand: dict[Request, int], new: WorkerOffer) -> None:
    """So many new workers have room for every class by itself, and one fewer would not have room for all together."""
    from dcompute.resources import slots

    found = need(demand, new, [])
    possible = {request: count for request, count in demand.items() if slots(request, new, [new])}
    assert all(found.workers * slots(request, new, [new]) >= count for request, count in possible.items())
    assert found.workers - 1 < sum(count / slots(request, new, [new]) for request, count in possible.items()) or not found.workers


def test_demand_is_told_in_built_in_types_and_heard_again() -> None:
    """What is heard is what was told; an entry in another form is left out."""
    demand = {Request(cpus=2, memory=GIB, resources=(("SCRATCH", 3.0),)): 7, GPU: 1, CPU: 0}
    entries = told(demand)
    assert heard(entries) == {request: count for request, count in demand.items() if count}
    assert heard([*entries, {"cpus": "many"}, 3, None]) == heard(entries)
    assert heard("nonsense") == {}


def test_runs_are_summed_and_a_dead_one_is_left_out() -> None:
    """Two runs want as much as both; one that tells nothing new for a while, or has said that it is over, wants nothing."""
    hearing = Hearing()
    first, second = told({CPU: 3}), told({CPU: 4, GPU: 1})
    assert hearing.sum({"a": {"number": 1, "classes": first}, "b": {"number": 1, "classes": second}}, 100.0) == {CPU: 7, GPU: 1}
    late = 100.0 + SILENT_SECONDS
    assert hearing.sum({"a": {"number": 1, "classes": first}, "b": {"number": 2, "classes": second}}, late) == {CPU: 4, GPU: 1}
    assert hearing.sum({"a": {"number": 2, "classes": first}, "b": None}, late + 1) == {CPU: 3}


def test_workers_with_tasks_are_never_surplus() -> None:
    """Those that have not come go first, then idle ones; busy ones and kept ones stay whatever is wanted."""
    waiting, idle = Unit(name="waiting"), Unit(name="idle", present=frozenset({"i"}))
    busy, kept = Unit(name="busy", present=frozenset({"b"}), busy=True), Unit(name="kept", present=frozenset({"k"}))
    units = [busy, idle, kept, waiting]
    assert surplus(4, units) == []
    assert surplus(3, units, {"k"}) == [waiting]
    assert surplus(0, units, {"k"}) == [waiting, idle]


def test_a_job_of_several_workers_goes_as_one() -> None:
    """A job is surplus only when all its workers are."""
    jobs = [Unit(name="a", size=2, present=frozenset({"a0", "a1"})), Unit(name="b", size=2, present=frozenset({"b0"}), busy=True)]
    assert surplus(3, jobs) == []
    assert surplus(2, jobs) == [jobs[0]]


def test_a_moment_without_work_closes_no_worker() -> None:
    """Who was wanted in between begins to rest anew."""
    resting = Resting(10.0)
    assert resting.over(["a", "b"], 0.0) == []
    assert resting.over(["b"], 5.0) == []
    assert resting.over(["a", "b"], 10.0) == ["b"]
    assert resting.over(["a", "b"], 20.0) == ["a", "b"]


def test_what_is_lost_before_it_comes_is_asked_for_ever_later() -> None:
    """The pauses double up to a limit, losses within one pause count once, and a worker that comes ends them."""
    backoff = Backoff(first=2.0, most=5.0)
    pauses = []
    now = 0.0
    for _ in range(4):
        backoff.lost(2, now)
        backoff.lost(1, now + 0.5)
        pauses.append(backoff.until - now)
        now = backoff.until
    assert pauses == [2.0, 4.0, 5.0, 5.0]
    backoff.came()
    assert backoff.until == 0.0
