"""What items print beyond what their rows have: kept in a log part, read again, and gone with what it belongs to."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import dcompute as dc
from dcompute.cli.main import dcompute as line
from dcompute.dataset.following import Tail, ask
from dcompute.dataset.logs import LOGS_SCHEMA, write_logs
from dcompute.dataset.names import LOGS, logs_name
from dcompute.dataset.parts import attempts_table, mark_name, write_attempts
from dcompute.dataset.store import Store
from dcompute.dataset.vacuum import vacuum
from dcompute.records import PartRef, Receipt
from dcompute.relay import Relay
from dcompute.worker.output import END, Capture, mark
from tests.component.upkeep.driving import Driving
from tests.processes import until

TOKEN = b"\0dcompute:1234:"
LONG = "line of the log\n" * 2000


class Talking(Driving):
    """Items that print much: rows have the ends of it, a log part the whole."""

    def write(self, did: Any, execution: str = "e", **fields: Any) -> Any:
        batch = super().write(did, execution, **fields)
        target = Path(self.store.path(logs_name(batch.id, execution)))
        target.parent.mkdir(exist_ok=True)
        rows = [(text, "str", 1, "stdout", f"{text}: {LONG}", len(LONG) + 50) for text in did]
        write_logs(str(target), rows)
        part = PartRef(name=logs_name(batch.id, execution), size=1, rows=len(rows))
        receipt = Receipt(batch=batch.id, execution=execution, holds=batch.holds, logs=(part,))
        buffer = io.BytesIO()
        write_attempts(buffer, attempts_table([self._talked(text, rows, batch.id) for text, rows in did.items()]), receipt)
        self.store.write(mark_name(batch.id), buffer.getvalue())
        return batch

    def _talked(self, text: str, rows: Any, batch: str) -> Any:
        from dcompute.records import ATTEMPT_COLUMNS

        row = list(self._row(text, rows, batch))
        row[ATTEMPT_COLUMNS.index("stdout")] = f"{text}: {LONG[:9000]}..."
        row[ATTEMPT_COLUMNS.index("stderr")] = "short\n"
        return row


@pytest.fixture
def talked(tmp_path: Path) -> Store:
    """A dataset of three batches, of which one failed; one batch is of nobody."""
    store = Store.at(tmp_path / "out")
    driver = Talking(store)
    driver.add({"a": [{"n": 1}], "b": [{"n": 2}]})
    driver.add({"c": None})
    driver.write({"d": [{"n": 4}]}, "e2")
    driver.close()
    return store


def test_long_output_is_read_whole(talked: Store) -> None:
    """Rows that have both ends only are made whole from the log part; others are as they are; nobody's log is not read."""
    found = {(one.item_key, one.stream): one.text for one in dc.open(talked.url).logs()}
    assert found == {
        (key, stream): f"{key}: {LONG}" if stream == "stdout" else "short\n" for key in "abc" for stream in ("stdout", "stderr")
    }


def test_one_item_and_one_stream(talked: Store) -> None:
    """What is asked for and nothing else."""
    assert [(one.item_key, one.stream) for one in dc.open(talked.url).logs("b", streams=("stdout",))] == [("b", "stdout")]


def test_the_command_shows_it(talked: Store) -> None:
    """For people a block an attempt, as JSON an object; an item that is none says so."""
    shown = CliRunner().invoke(line, ["logs", talked.url, "--item", "a", "--stream", "stdout"])
    assert shown.output.startswith("a, attempt 1, stdout\n  a: line of the log\n")
    assert shown.output.count("line of the log") == 2000
    told = CliRunner().invoke(line, ["logs", talked.url, "--item", "a", "--json"])
    assert [json.loads(text)["stream"] for text in told.output.splitlines()] == ["stdout", "stderr"]
    assert "printed nothing" in CliRunner().invoke(line, ["logs", talked.url, "--item", "zz"]).output


def test_vacuum_removes_the_logs_of_nobody(talked: Store) -> None:
    """A log whose batch counts stays; one whose batch was never added goes with its mark."""
    Driving(talked, "r2").close()
    removed = vacuum(talked, 0).removed
    assert [name for name in removed if name.startswith(LOGS)] == [
        name for name in removed if name.endswith("-e2.parquet") and name.startswith(LOGS)
    ]
    assert len(talked.names(LOGS)) == 2
    assert len(list(dc.open(talked.url).logs())) == 6


def test_an_archive_has_the_logs(talked: Store, tmp_path: Path) -> None:
    """A copy reads the same."""
    dc.open(talked.url).copy(tmp_path / "copy")
    assert list(dc.open(tmp_path / "copy").logs()) == list(dc.open(talked.url).logs())


def test_a_dataset_without_logs_reads_rows(tmp_path: Path) -> None:
    """What an older version wrote has no log parts: rows are all there is."""
    driver = Driving(Store.at(tmp_path / "out"))
    driver.add({"a": [{"n": 1}]})
    driver.close()
    assert list(dc.open(tmp_path / "out").logs()) == []


def test_a_stream_keeps_what_its_rows_lack() -> None:
    """Only an item that printed more than its row keeps has a long text, bounded too; what came last is there for who looks on."""
    capture = Capture(TOKEN, head=10, tail=10, long=100, recent=20)
    capture.add(b"short" + mark(TOKEN, 0) + b"x" * 50 + b"y" * 30 + mark(TOKEN, 1) + b"z" * 200)
    assert capture.take_recent(whole=True) == "z" * 20
    assert capture.take_recent(whole=True) == ""
    capture.add(mark(TOKEN, 2) + mark(TOKEN, END))
    long = capture.take_long()
    assert long.keys() == {1, 2}
    assert long[1] == ("x" * 50 + "y" * 30, 80)
    assert long[2] == ("z" * 50 + "\n... 100 bytes left out ...\n" + "z" * 50, 200)
    assert capture.take().keys() == {0, 1, 2}


def test_log_parts_are_sorted_by_item(tmp_path: Path) -> None:
    """Who reads one item of many reads little."""
    import pyarrow.parquet as pq

    write_logs(str(tmp_path / "l.parquet"), [(f"{n:04d}", "str", 1, "stdout", "t", 1) for n in reversed(range(200))])
    table = pq.read_table(tmp_path / "l.parquet")
    assert table.schema == LOGS_SCHEMA
    assert table["item_key"].to_pylist() == sorted(table["item_key"].to_pylist())


def test_who_looks_on_gets_whole_lines() -> None:
    """The end of a line is waited for, not for ever."""
    capture = Capture(TOKEN, recent=4000)
    margin = b" " * len(TOKEN)
    capture.add(b"one\ntwo" + margin)
    assert capture.take_recent() == "one\n"
    assert capture.take_recent() == ""
    capture.add(b"\nthree\n" + margin)
    assert capture.take_recent().split() == ["two", "three"]
    capture.add(b"x" * 2000)
    assert "x" * 1900 in capture.take_recent()


class Events:
    """Hands out what a test says."""

    def listen(self, topic: str, handler: Any) -> None:
        self.topic, self.handler = topic, handler


def test_what_is_printed_is_passed_on_when_somebody_asks(tmp_path: Path) -> None:
    """Nobody listens before; then pieces come once each, of this run only, and those that came too quickly are counted."""
    store = Store.at(tmp_path / "out")
    events = Events()
    with Relay(events, store, "run") as relay:
        assert not (tmp_path / "out").exists()
        ask(store, "run")
        until(lambda: hasattr(events, "handler"), 10, "somebody listens")
        events.handler({"run": "another", "key": "z", "stdout": "no"})
        events.handler({"run": "run", "key": "a", "host": "h", "stdout": "one"})
        tail = Tail(store, "run")
        assert until(lambda: list(tail.new()), 10, "a piece") == [{"number": 1, "key": "a", "host": "h", "stdout": "one", "stderr": None}]
        for number in range(150):
            relay.hear({"run": "run", "key": "a", "stdout": str(number)})
    assert [piece["stdout"] for piece in tail.new()] == [str(number) for number in range(50, 150)]
    assert tail.lost == 50
    assert list(tail.new()) == []


def test_nobody_at_work_is_told(talked: Store) -> None:
    """Following a dataset on which no run is at work ends at once."""
    shown = CliRunner().invoke(line, ["logs", talked.url, "-f"])
    assert (shown.exit_code, "no run is at work" in shown.output) == (0, True)
