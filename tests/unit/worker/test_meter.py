"""Figures of attempts: whose they are, and what they say."""

from __future__ import annotations

import time

import pytest

from dcompute.worker import limits, system
from dcompute.worker.journal import Figures, Measured, MemoryMeasured
from dcompute.worker.meter import LONG, Meter, bottleneck, share

MIB = 1 << 20


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(
    ("figures", "limit", "expected"),
    [
        (Figures(1.0, 0.6, 0.1), None, "cpu"),
        (Figures(1.0, 0.6, 0.05), None, "mixed"),
        (Figures(1.0, 0.1, 0.1, io_wait=0.3), None, "io"),
        (Figures(1.0, 0.1, 0.1, bytes_read=60_000_000, bytes_written=40_000_000), None, "io"),
        (Figures(1.0, 0.1, 0.1, bytes_read=60_000_000), None, "mixed"),
        (Figures(1.0, 0.1, 0.1, peak_memory=80), 100, "memory"),
        (Figures(1.0, 0.1, 0.1, peak_memory=79), 100, "mixed"),
        (Figures(1.0, 0.7, 0.0, peak_memory=99), 100, "cpu"),
        (Figures(0.0), 100, "mixed"),
    ],
)
def test_bottleneck(figures, limit, expected):
    """The rule as it is documented, at its borders."""
    assert bottleneck(figures, limit) == expected


def test_long_item_has_its_own_figures():
    """CPU, peak memory and bytes of an item of 20 ms and more are its own, and the next one's start anew."""
    meter = Meter()
    meter.begin()
    held = bytearray(b"x") * (64 * MIB)
    burn(0.03)
    first = meter.end()
    del held
    meter.begin()
    burn(0.03)
    second = meter.end()
    assert first.measured == second.measured == Measured.ITEM
    assert first.cpu_user + first.cpu_system >= 0.029
    assert first.duration >= LONG
    if system.LINUX:
        assert first.memory_measured == second.memory_measured == MemoryMeasured.RESIDENT
        assert first.peak_memory - second.peak_memory > 32 * MIB


def test_short_items_share_the_batchs(tmp_path):
    """A short item has duration and CPU of its own; the bytes of all short ones together are shared."""
    for _ in range(100):
        meter, measured = Meter(), set()
        for _ in range(10):
            meter.begin()
            (tmp_path / "file").write_bytes(b"x" * 100_000)
            figures = meter.end()
            measured.add(figures.measured)
        if measured == {Measured.BATCH}:  # a busy machine makes long items of short ones
            break
    shared = meter.batch()
    assert figures.measured == Measured.BATCH
    assert 0 < figures.duration < LONG
    assert figures.peak_memory is None
    if system.LINUX:
        assert 90_000 < shared.bytes_written < 150_000
        assert shared.peak_memory > MIB


@pytest.mark.parametrize(("level", "measured", "cpu"), [("basic", Measured.BATCH, True), ("off", Measured.NOTHING, False)])
def test_levels(level, measured, cpu):
    """``basic`` measures duration and CPU only, ``off`` the duration only."""
    meter = Meter(level)
    meter.begin()
    burn(0.03)
    figures = meter.end()
    assert figures.measured == measured
    assert figures.duration >= 0.02  # of the wall, whose clock is another than that of the CPU
    assert (figures.cpu_user + figures.cpu_system > 0) == cpu
    assert (figures.peak_memory, figures.bytes_read) == (None, None)
    assert meter.batch() == Figures()


def test_group_is_shared_evenly():
    """Sums over the rows of a group are what the call took; the peak is that of all."""
    each = share(Figures(1.0, 0.5, 0.25, Measured.ITEM, 100, 40, None, 0.5, 3, MemoryMeasured.RESIDENT), 4)
    assert each == Figures(0.25, 0.125, 0.0625, Measured.GROUP, 100, 10, None, 0.125, 0, MemoryMeasured.RESIDENT)


def test_limit_of_a_slot():
    """What is asked for counts; else the slot's share of its worker's limit, else of 80 % of the machine."""
    assert limits.slot_limit(5, 100, 0.5) == 5
    assert limits.slot_limit(None, 100, 0.5) == 50
    assert limits.slot_limit(None, None, 0.5) == limits.usable_memory() // 2
    assert limits.usable_memory() <= 0.8 * system.machine_memory()
