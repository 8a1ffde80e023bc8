"""The log on a local disk under processes that race for it and die in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RACERS = 3


def test_races_for_a_number_have_one_winner(tmp_path, rounds):
    """Three processes race for each number; one wins each, and a reader that looks all the time never sees a torn or empty entry."""
    count = rounds(600, 10_000)
    board = tmp_path / "board"
    board.write_bytes(bytes(8 * RACERS))
    command = [sys.executable, str(HERE / "log_racer.py"), str(tmp_path / "ds"), str(board), str(count)]
    # the last one reads
    racers = [
        subprocess.Popen([*command, str(me), str(RACERS)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for me in range(RACERS + 1)
    ]
    answers = [racer.communicate(timeout=110) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * (RACERS + 1), [error for _, error in answers]
    won = [json.loads(answer) for answer, _ in answers]
    assert sorted(number for numbers in won for number in numbers) == list(range(1, count + 1))
    # the race is one: nobody wins it by coming first every time
    assert all(numbers for numbers in won[:RACERS])


def test_writer_killed_before_any_system_call_leaves_no_owned_number(tmp_path):
    """Whenever a driver dies, its numbers are whole entries or free, its successor waits for nothing, and what it wrote counts once."""
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_writer.py"), str(tmp_path)], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(steps) > 60
    for step in steps:
        assert step["slept"] == [], step
        assert step["counted"] == step["marks"], step
        assert step["found"] in ([], [1], [1, 1]), step
    # every stage of its life was among the moments of its death
    assert {(len(step["found"]), len(step["marks"]), step["adopted"]) for step in steps} == {
        (0, 0, 0),
        (1, 0, 0),
        (1, 1, 1),
        (2, 1, 0),
        (2, 2, 1),
    }
    assert steps[-1]["done"]
