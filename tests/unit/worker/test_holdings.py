from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dcompute.testing import FakeDevices
from dcompute.worker.claims import Claims
from dcompute.worker.holdings import Holdings

HOLDER = """
import sys
from dcompute.worker.claims import Claims
claims = Claims(sys.argv[1])
print(all([claims.claim(name) for name in sys.argv[2:]]), flush=True)
sys.stdin.read()
"""


@contextmanager
def other(folder: Path, *names: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has claimed these."""
    command = [sys.executable, "-c", HOLDER, str(folder), *names]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with devices a and b; the folder of the claims."""
    monkeypatch.setenv("FAKE_DEVICES", "a,b")
    monkeypatch.setenv("FAKE_DEVICES_USED", str(tmp_path))
    return tmp_path / "claims"


def holdings(folder: Path) -> Holdings:
    return Holdings([FakeDevices()], Claims(str(folder)), most_left_over=100)


def lent(held: Holdings, gpus: float) -> list[str] | None:
    """Ids of devices that are lent, never given back."""
    loan = held.lend(gpus)
    return None if loan is None else [device.id for device in loan.devices]


def test_what_one_process_has_no_other_gets(two: Path) -> None:
    """Neither a claim that is kept nor one for a single batch; it is free when that process is killed."""
    with other(two, "device-a") as process:
        held = holdings(two)
        assert [device.id for device in held.claim_devices(2)] == ["b"]
        assert lent(held, 1) == ["b"]
        assert held.lend(1) is None
        process.kill()
        process.wait()
        assert lent(held, 1) == ["a"]


def test_a_claim_is_waited_for_while_the_tree_of_its_dead_holder_is_killed(two: Path) -> None:
    """A child that holds the lock longer than its worker keeps the device; who lives is not waited for."""
    slept: list[float] = []
    with other(two, "device-a"):
        claims = Claims(str(two), sleep=slept.append)
        assert not claims.claim("device-a", 1.0)
        assert slept == []
    (two / "device-a.lock").write_text("999999999\n")  # nobody's
    with subprocess.Popen(["flock", str(two / "device-a.lock"), "-c", "echo; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            assert child.stdin is not None
            child.stdin.close()
            child.wait()

        assert Claims(str(two), sleep=sleep).claim("device-a", 1.0)
    assert slept


def test_devices_that_nobody_uses_are_left_to_others(two: Path) -> None:
    """Without a claim that is kept, a device is had as long as the batch has it."""
    held = holdings(two)
    loan = held.lend(1)
    assert loan is not None
    assert [device.id for device in loan.devices] == ["a"]
    assert not Claims(str(two)).claim("device-a")
    loan.give_back()
    loan.give_back()
    assert Claims(str(two)).claim("device-a")


def test_a_claim_that_is_kept_ends_with_its_release_and_its_loans(two: Path) -> None:
    """A worker that closes leaves its devices to others, those in use when they are given back."""
    held = holdings(two)
    mine = held.claim_devices(2)
    loan = held.lend(1)
    assert loan is not None
    held.release(mine, ())
    assert not Claims(str(two)).claim("device-a")
    assert Claims(str(two)).claim("device-b")
    loan.give_back()
    assert Claims(str(two)).claim("device-a")


def test_whoever_holds_the_lock_of_a_loan_keeps_the_device(two: Path) -> None:
    """A child outlives its worker for a moment: until it is gone nobody else gets its device."""
    held = holdings(two)
    loan = held.lend(1)
    assert loan is not None
    kept = os.dup(loan.locks[0])
    loan.give_back()
    assert not Claims(str(two)).claim("device-a")
    os.close(kept)
    assert Claims(str(two)).claim("device-a")


def test_a_device_whose_memory_is_in_use_is_not_lent(two: Path) -> None:
    """Another one is, and when all are in use none; who uses which is told. Less than the limit does not count."""
    held = holdings(two)
    (two.parent / "a").write_bytes(bytes(101))
    (two.parent / "b").write_bytes(bytes(100))
    assert lent(held, 1) == ["b"]
    assert held.lend(1) is None
    assert held.in_use() == ["a (101 bytes)"]
    (two.parent / "a").unlink()
    assert lent(held, 1) == ["a"]


def test_memory_in_use_by_one_share_is_no_hindrance_for_the_other(two: Path) -> None:
    """Half a device is taken: what is in use there is in use by ours."""
    held = holdings(two)
    held.claim_devices(1)
    assert lent(held, 0.5) == ["a"]
    (two.parent / "a").write_bytes(bytes(1000))
    assert lent(held, 0.5) == ["a"]


def test_who_asks_for_no_device_sees_none_unless_told_otherwise(two: Path) -> None:
    """A setting leaves the devices to such items too."""
    loan = holdings(two).lend(0)
    assert loan is not None
    assert loan.environment == {"FAKE_VISIBLE_DEVICES": ""}
    open_ = Holdings([FakeDevices()], Claims(str(two)), most_left_over=0, hides=False).lend(0)
    assert open_ is not None
    assert open_.environment == {}


def test_where_no_device_is_found_items_see_what_their_worker_sees(
    two: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator who declares GPUs that nothing here can find is believed, and told once."""
    monkeypatch.setenv("FAKE_DEVICES", "")
    held = holdings(two)
    loans = [held.lend(1) for _ in range(3)]
    assert all(loan is not None and not loan.devices and not loan.environment for loan in loans)
    assert caplog.text.count("none is found here") == 1


def test_a_wait_ends_when_a_device_is_given_back(two: Path) -> None:
    """Nobody has to look again and again."""
    held = holdings(two)
    loans = [held.lend(1), held.lend(1)]
    assert held.lend(1) is None
    threading.Timer(0.05, lambda: loans[0].give_back() if loans[0] else None).start()
    began = time.monotonic()
    held.wait(30)
    assert time.monotonic() - began < 20
    assert lent(held, 1) == ["a"]


def test_cores_are_claimed_all_or_none(two: Path) -> None:
    """Where others have some of them, a worker's items use any: too few of their own would be worse."""
    with other(two, "core-1"):
        assert holdings(two).claim_cores(2, (0, 1)) == ()
        held = holdings(two)
        assert held.claim_cores(2, (0, 1, 2)) == (0, 2)
        first, second = held.lend_cores(1), held.lend_cores(1)
        assert (first.numbers, second.numbers) == ((0,), (2,))
        first.give_back()
        assert held.lend_cores(1).numbers == (0,)
    assert holdings(two).lend_cores(1).numbers == ()
