"""One of the processes of test_log_races: races for every number, or reads whatever appears. Not a test."""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
from pathlib import Path

from dcompute.dataset.entries import SetSchema
from dcompute.dataset.log import Log, LostRace
from dcompute.dataset.names import entry_name
from dcompute.dataset.store import Store


def meet(board: mmap.mmap, me: int, of: int, round_: int) -> None:
    """Return when all are in this round: every process has a slot that only it writes."""
    struct.pack_into("<q", board, 8 * me, round_)
    while min(struct.unpack_from(f"<{of}q", board)) < round_:
        os.sched_yield()


def race(log: Log, rounds: int, me: int, of: int, board: mmap.mmap) -> list[int]:
    """The numbers that this process won."""
    won = []
    text = f"{me}" * 5000
    for number in range(1, rounds + 1):
        meet(board, me, of, number)
        try:
            log.append(number, [SetSchema(schema=text)])
        except LostRace as lost:
            schema = lost.entry.actions[0].schema
        else:
            schema = text
            won.append(number)
        assert (schema == text) == (won[-1:] == [number])
    return won


def watch(log: Log, rounds: int) -> list[int]:
    """Read each number over and over until it is there: a torn or empty entry raises."""
    for number in range(1, rounds + 1):
        while log.store.read_or_none(entry_name(number)) is None:
            os.sched_yield()
        entry = log.read(number)
        assert entry is not None
        assert len(entry.actions[0].schema) == 5000
    return []


def main() -> None:
    """Arguments: dataset, board, rounds, own number, number of racers."""
    dataset, board_path, rounds, me, of = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    log = Log(Store.at(dataset))
    if me == of:
        print(json.dumps(watch(log, rounds)))
        return
    with Path(board_path).open("r+b") as file, mmap.mmap(file.fileno(), 0) as board:
        print(json.dumps(race(log, rounds, me, of, board)))


main()
