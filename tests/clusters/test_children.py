"""Warm children of several runs beside each other, and what a child is given of its machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dcompute.worker.children import Child, GuardianHandle, Idle
from dcompute.worker.device import Device
from dcompute.worker.holdings import Cores, Loan
from tests.processes import until


@pytest.fixture
def guardian() -> Iterator[GuardianHandle]:
    handle = GuardianHandle()
    yield handle
    handle.close()


def waiting(idle: Idle, *runs: tuple[GuardianHandle, str, int]) -> list[Child]:
    """Children without work, each of a run, that hold so many bytes."""
    children = []
    for owner, run, held in runs:
        child = Child(owner, (run,))
        idle.put(child, held)
        children.append(child)
    return children


def test_children_of_other_runs_stay_while_they_hold_little(guardian: GuardianHandle) -> None:
    """Those that waited longest end first, until what is left holds no more than it may."""
    idle = Idle(most_memory=100)
    first, second, third = waiting(idle, (guardian, "a", 60), (guardian, "b", 60), (guardian, "c", 30))
    assert idle.take(("d",)) is None
    assert len(idle) == 2
    until(lambda: first.exit is not None, 20, "the end of the oldest child")
    assert (second.exit, third.exit) == (None, None)
    assert idle.take(("b",)) is second
    second.retire()
    idle.retire()


def test_a_child_of_another_run_ends_at_once_where_none_may_stay(guardian: GuardianHandle) -> None:
    """Without room for them there is one child a slot; asked not to end any, none is."""
    idle = Idle()
    (child,) = waiting(idle, (guardian, "a", 1))
    assert idle.take(("b",), ends_another=False) is None
    assert len(idle) == 1
    assert idle.take(("b",)) is None
    assert len(idle) == 0
    until(lambda: child.exit is not None, 20, "its end")


def test_only_a_child_with_devices_is_ended_for_its_devices(guardian: GuardianHandle) -> None:
    """And they are given back when it is gone, not before."""
    idle, given = Idle(most_memory=100), []
    waiting(idle, (guardian, "a", 0))
    child = Child(guardian, ("b",), loan=Loan((Device(id="x"),), {}, (), lambda: given.append(child.exit)))
    idle.put(child)
    assert idle.end_one_with_devices()
    assert not idle.end_one_with_devices()
    assert len(idle) == 1
    until(lambda: given, 20, "what it had")
    assert given[0] is not None
    idle.retire()


def test_a_child_is_bound_to_its_cores_until_its_batch_is_over(guardian: GuardianHandle) -> None:
    """All its threads are; the cores of the batch before are given back."""
    given = []
    child = Child(guardian, ("a",))
    core = min(os.sched_getaffinity(0))
    child.bind(Cores((core,), lambda: given.append("first")))
    threads = os.listdir(f"/proc/{child.pid}/task")
    assert [os.sched_getaffinity(int(thread)) for thread in threads] == [{core}] * len(threads)
    child.bind(Cores((), lambda: given.append("second")))
    assert given == ["first"]
    child.kill("stop")
    until(lambda: given == ["first", "second"], 20, "what it had last")
    child.close()


def test_a_child_and_its_guardian_hold_locks_until_it_is_gone(guardian: GuardianHandle) -> None:
    """A file that stands for a device: its other end is closed when nobody has it any more."""
    ours, theirs = os.pipe()
    child = Child(guardian, ("a",), loan=Loan(locks=(theirs,)))
    os.close(theirs)
    os.set_blocking(ours, False)
    with pytest.raises(BlockingIOError):
        os.read(ours, 1)
    child.kill("stop")
    until(lambda: child.exit is not None, 20, "its end")
    assert until(lambda: _is_closed(ours), 5, "the end of the file")
    child.close()
    os.close(ours)


def _is_closed(descriptor: int) -> bool:
    try:
        return os.read(descriptor, 1) == b""
    except BlockingIOError:
        return False
