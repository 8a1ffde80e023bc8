"""Which batches may still be written when a run ends: what workers said of the executions they began."""

from __future__ import annotations

from typing import Any

import pytest

from dcompute.flights import Flight, Flights
from dcompute.graph import Packed
from dcompute.records import BatchSpec, Receipt, RunSpec, batch_id
from dcompute.window import Ended, Lost, SetupFailed

SPEC = RunSpec(run="r", dataset="/d", workload="w", code=b"", code_digest="c", params_digest="p")


def flights() -> Flights:
    nobody: Any = None
    return Flights(nobody, SPEC, Packed.of(SPEC), epoch=1, once=False, landed=lambda *_: None)


def say(table: Flights, event: str, execution: str, **more: Any) -> None:
    table.told({"event": event, "batch": batch_id("r", 1, 7), "execution": execution, "worker": "w", **more})


def test_a_batch_that_began_is_at_work_until_its_execution_ends() -> None:
    """Also where its flight is forgotten: its worker still has it."""
    table = flights()
    say(table, "started", "a")
    assert table.at_work == 1
    say(table, "nothing", "a", nothing="cancelled")
    assert table.at_work == 0


def test_a_frozen_execution_is_at_work_when_another_one_came_to_nothing() -> None:
    """A worker that froze with the batch may still write it: that the second execution ended says nothing of the first."""
    table = flights()
    say(table, "started", "frozen")
    say(table, "started", "second")
    say(table, "nothing", "second", nothing="cancelled")
    assert table.at_work == 1


def test_a_receipt_ends_all_executions() -> None:
    """The mark is there: whoever else executes the batch finds it."""
    table = flights()
    say(table, "started", "frozen")
    say(table, "started", "second")
    say(table, "receipt", "second", receipt=Receipt(batch=batch_id("r", 1, 7), execution="second", holds=((0, 1),)).to_json())
    assert table.at_work == 0


def test_what_is_said_of_another_run_is_not_counted() -> None:
    """Topics are shared by who asks for them, numbers are not."""
    table = flights()
    table.told({"event": "started", "batch": batch_id("other", 1, 7), "execution": "a", "worker": "w"})
    table.told({"event": "started", "batch": "nonsense", "execution": "a", "worker": "w"})
    assert table.at_work == 0


def test_why_a_batch_was_cut_short_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """What it holds counts and the rest goes out again: a person learns why, and not with each batch."""
    table, problem = flights(), {"text": "the scratch folder of this worker is full", "stage": "scratch"}
    for number in (7, 8):
        batch = BatchSpec(id=batch_id("r", 1, number), keys=(), attempts=(), fingerprints=(), values=b"")
        table._flights[number] = {0: Flight(batch, None, 0)}
        receipt = Receipt(batch=batch.id, execution="a", holds=((0, 1),)).to_json()
        ended = table.told({"event": "receipt", "batch": batch.id, "execution": "a", "receipt": receipt, "setup_error": problem})
        assert isinstance(ended, Ended)
    assert caplog.text.count("the scratch folder of this worker is full") == 1


class Fetched(BaseException):
    """Somebody asked for what a task returned."""


class Unreachable:
    """A task that has ended, on a worker that nobody can reach."""

    key = "w-r-7-0"
    status = "finished"

    def result(self, timeout: float | None = None) -> Any:
        raise Fetched

    def release(self) -> None:
        pass


def flying() -> Flights:
    table = flights()
    batch = BatchSpec(id=batch_id("r", 1, 7), keys=(), attempts=(), fingerprints=(), values=b"")
    table._flights[7] = {0: Flight(batch, Unreachable(), 0)}
    return table


def test_a_set_up_that_failed_is_heard_from_a_worker_that_nobody_can_reach() -> None:
    """What a task returns is never fetched."""
    table = flying()
    problem = {"text": "no module named lab", "traceback": "", "log": "", "stage": "code"}
    say(table, "started", "a", task="w-r-7-0")
    say(table, "setup", "a", task="w-r-7-0", setup_error=problem)
    event = table.landed(7, 0)
    assert isinstance(event, SetupFailed)
    assert event.text == "no module named lab"


def test_a_batch_of_which_nothing_was_written_is_lost_at_once() -> None:
    """With the reason that its worker gave."""
    table = flying()
    say(table, "nothing", "a", task="w-r-7-0", nothing="it is closing")
    assert isinstance(table.landed(7, 0), Lost)


def test_an_answer_that_got_lost_is_not_waited_for() -> None:
    """The batch counts as lost, and its mark is looked for."""
    assert isinstance(flying().landed(7, 0), Lost)
