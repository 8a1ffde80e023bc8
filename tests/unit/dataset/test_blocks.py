"""A file is read in blocks as it is, whatever its reader does."""

from __future__ import annotations

import io
import random

import pytest

from dcompute.dataset.reader import Blocks

DATA = bytes(range(256)) * 40


class Storage:
    def __init__(self, data: bytes = DATA) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []
        self.measured = 0

    def fetch(self, start: int, stop: int) -> bytes:
        self.asked.append((start, stop))
        return self.data[start:stop]

    def measure(self) -> int:
        self.measured += 1
        return len(self.data)

    def opened(self, size: int | None, block: int) -> Blocks:
        return Blocks(self.fetch, self.measure, size, block)


@pytest.mark.parametrize("block", [1, 7, 100, len(DATA) - 1, len(DATA), len(DATA) + 1])
@pytest.mark.parametrize("is_known", [True, False])
def test_what_is_read_is_what_lies_there(block: int, is_known: bool) -> None:
    """A walk of jumps and reads sees the bytes that a file in memory shows, with no byte outside of the file asked for."""
    storage, memory, dice = Storage(), io.BytesIO(DATA), random.Random(block)
    file = storage.opened(len(DATA) if is_known else None, block)
    for _ in range(300):
        step = dice.choice(["set", "end", "on"])
        offset = dice.randrange(len(DATA) + 10)
        places = {"set": (offset,), "end": (-dice.randrange(1, 300), io.SEEK_END), "on": (0, io.SEEK_CUR)}
        assert file.seek(*places[step]) == memory.seek(*places[step])
        size = dice.choice([0, 1, 5, 300, 5000])
        assert file.read(size) == memory.read(size)
        assert file.tell() == memory.tell()
    file.seek(0)
    assert file.read() == DATA
    assert all(start < len(DATA) for start, _ in storage.asked)


def test_a_small_file_is_asked_for_once() -> None:
    """Whether its size is known or not, and wherever its reader begins."""
    for size in (len(DATA), None):
        storage = Storage()
        file = storage.opened(size, 20_000)
        file.seek(-8, io.SEEK_END)
        assert file.read(8) == DATA[-8:]
        file.seek(0)
        assert file.read() == DATA
        assert (len(storage.asked), storage.measured) == (1, 0)


def test_a_large_file_is_read_on_from_block_to_block() -> None:
    """Small reads share a block, the footer stays at hand, and what is larger than a block is one request."""
    storage = Storage()
    file = storage.opened(len(DATA), 1000)
    file.seek(-200, io.SEEK_END)
    file.read(200)
    file.seek(0)
    while file.tell() < 3000:
        file.read(10)
    file.seek(-200, io.SEEK_END)
    file.read(200)
    file.seek(3000)
    file.read(5000)
    assert storage.asked == [(len(DATA) - 200, len(DATA)), (0, 1000), (1000, 2000), (2000, 3000), (3000, 8000)]


@pytest.mark.parametrize("block", [64, 100_000])
def test_a_file_that_is_shorter_than_said_ends_there(block: int) -> None:
    """Its reader gets what there is, and an end."""
    file = Storage(DATA[:100]).opened(len(DATA), block)
    assert file.read() == DATA[:100]
    assert file.read(10) == b""
