"""Who is alive: told from the process where it can be seen, else from the heartbeat and one's own clock."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import uuid

import pytest

from dcompute.dataset.lease import Heartbeat, Process, Pulse, Watch, read_heartbeat
from dcompute.dataset.names import heartbeat_name
from dcompute.dataset.store import Store
from dcompute.testing import Fault, FaultStore, ManualClock


@pytest.fixture
def store():
    return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))


@pytest.fixture
def clock():
    return ManualClock()


def test_own_process_is_alive():
    """This process lives, as others would see it."""
    assert Process.own().is_alive() is True


def test_ended_process_is_dead():
    """A process that ended is dead, also while its parent has not asked for it."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    from dcompute.dataset import lease

    process = dataclasses.replace(Process.own(), pid=child.pid, started=lease._started(child.pid))
    assert process.is_alive() is True
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet asked for
    assert process.is_alive() is False
    child.wait()
    assert process.is_alive() is False


def test_process_id_that_was_used_again_is_dead():
    """The same id with another start time is another process."""
    assert dataclasses.replace(Process.own(), started=1.0).is_alive() is False


@pytest.mark.parametrize("changed", [{"host": "elsewhere"}, {"boot": "another"}, {"boot": ""}])
def test_process_elsewhere_cannot_be_told(changed):
    """Another host, another boot or another process namespace: from here nobody knows."""
    assert dataclasses.replace(Process.own(), **changed).is_alive() is None


def test_heartbeat_is_written_when_due(store, clock):
    """A heartbeat is written at most every 5 s, and says who, what and how often."""
    heartbeat = Heartbeat(store, "r1", clock)
    assert [heartbeat.beat("running", {"done": 1}) for _ in range(3)] == [True, False, False]
    clock.advance(5)
    assert heartbeat.beat("running", {"done": 7})
    found = read_heartbeat(store, "r1")
    assert (found["state"], found["counts"], found["beat"], found["pid"], found["time"]) == (
        "running",
        {"done": 7},
        2,
        os.getpid(),
        clock.now,
    )
    assert heartbeat.beat("closed", {}, now=True)


def test_caller_that_comes_every_5_s_misses_no_beat(store, clock):
    """A caller whose rounds are 5 s long, give or take what a beat takes, writes one each round."""
    heartbeat = Heartbeat(store, "r1", clock)
    written = []
    for _ in range(3):
        written.append(heartbeat.beat("running", {}))
        clock.advance(4.99)
    assert written == [True] * 3


def test_pulse_beats_until_it_is_stopped():
    """A pulse beats from its own thread, again and again, and not after it was stopped."""
    twice, beats = threading.Event(), []

    def beat():
        beats.append(threading.current_thread())
        if len(beats) == 2:
            twice.set()
        return True

    pulse = Pulse(beat, every=0.001)
    assert twice.wait(10)
    pulse.stop()
    assert threading.current_thread() not in beats
    assert beats[0] not in threading.enumerate()


def test_pulse_ends_with_what_it_beats_for():
    """A pulse whose driver is gone ends by itself."""
    pulse = Pulse(lambda: False, every=0.001)
    pulse._thread.join(10)
    assert not pulse._thread.is_alive()


def test_storage_that_fails_stops_no_driver(store, clock):
    """A heartbeat that cannot be written is left out: it is a hint."""
    store.faults = [Fault("write")]
    assert Heartbeat(store, "r1", clock).beat("running", {}) is False


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
def test_damaged_heartbeat_is_none(store, data):
    """A heartbeat that a power cut damaged is like none."""
    store.write(heartbeat_name("r1"), data)
    assert read_heartbeat(store, "r1") is None


def test_watch_counts_on_its_own_clock(store, clock):
    """15 s unchanged on the clock of who watches, whatever time the heartbeat claims; a new beat is seen at once."""
    Heartbeat(store, "r1", ManualClock(now=9e9)).beat("running", {})
    watch = Watch(store, "r1", clock)
    assert watch.seconds_left() == 15
    clock.advance(14)
    assert (watch.seconds_left(), watch.has_changed()) == (1, False)
    clock.advance(1)
    assert watch.seconds_left() == 0
    Heartbeat(store, "r1", ManualClock(now=9e9 + 5)).beat("running", {})
    assert watch.has_changed()
