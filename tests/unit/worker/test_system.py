"""Processes are found and killed, whatever session they are in."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from dcompute.worker import system
from dcompute.worker.leftovers import Leftovers

pytestmark = pytest.mark.skipif(not system.LINUX, reason="/proc")

NESTED = "import subprocess, sys; p = subprocess.Popen(['sleep', '60'], start_new_session=True); print(p.pid, flush=True); p.wait()"


@pytest.fixture
def nested():
    """A process with another one below it, in a session of its own."""
    parent = subprocess.Popen([sys.executable, "-c", NESTED], stdout=subprocess.PIPE, text=True)
    below = int(parent.stdout.readline())
    yield parent.pid, below
    for pid in (parent.pid, below):
        system.kill(pid)
    parent.wait()
    parent.stdout.close()


def test_descendants(nested):
    """Both levels are found, the upper first; a process that is gone has none."""
    found = system.descendants(os.getpid())
    assert [pid for pid in found if pid in nested] == list(nested)
    assert system.descendants(2**22 + 1) == []


def test_scan_finds_the_same(nested):
    """Kernels without ``children`` files are scanned."""
    assert nested[1] in system._children_by_scan(nested[0])


def test_leftovers_spare_what_setup_started(nested):
    """What was there before the batch stays, with all below it; what came after is counted once and killed."""
    leftovers = Leftovers()
    leftovers.spare_all()
    stray = subprocess.Popen(["sleep", "60"], start_new_session=True)
    assert leftovers.count() == 1
    assert leftovers.count() == 0
    leftovers.kill()
    assert not system.is_alive(stray.pid)
    assert all(system.is_alive(pid) for pid in nested)
    stray.wait()


def test_kill_below(nested):
    """Everything below a process is killed, and the count of it told."""
    assert system.kill_below(nested[0]) == 1
    assert not system.is_alive(nested[1])


def test_kill_marked():
    """A process is found by its environment when nobody knows it any more."""
    stray = subprocess.Popen(["sleep", "60"], env={"DCOMPUTE_TREE": "test-mark-1"}, start_new_session=True)
    deadline = time.monotonic() + 5
    while not system.kill_marked(b"DCOMPUTE_TREE=test-mark-1"):  # the environment is there from its exec on
        assert time.monotonic() < deadline
    assert stray.wait(5) == -9


def test_memory_counts_what_is_held():
    """Anonymous memory counts; split between sharers it is not more."""
    before = system.memory([os.getpid()])
    held = bytearray(b"x") * (64 << 20)
    grown = system.memory([os.getpid()]) - before
    assert 60 << 20 < grown < 80 << 20
    assert system.shared_memory([os.getpid()]) <= system.memory([os.getpid()]) + (1 << 20)
    assert len(held) == 64 << 20


def test_zombie_is_not_alive():
    """A process that ended and was not waited for holds nothing."""
    process = subprocess.Popen(["true"])
    deadline = time.monotonic() + 5
    while system.is_alive(process.pid):
        assert time.monotonic() < deadline
    assert process.wait() == 0


def test_limits_are_numbers():
    """Machine and cgroups tell a size, or nothing; the kernel's counter of kills never fails."""
    assert system.machine_memory() > 1 << 28
    limit = system.cgroup_memory_limit()
    assert limit is None or limit > 1 << 20
    assert system.oom_kills() >= 0
