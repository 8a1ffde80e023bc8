"""Batches in flight: Dask tasks on their way, and what becomes of them, told by batch number."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dcompute.graph import Packed, Placement, batch_task, pack_values, rewrite_task
from dcompute.packed import Fingerprints, Keys, Numbers
from dcompute.records import BatchSpec, Item, ItemKey, Receipt, Request, RunSpec, batch_id, split_batch_id
from dcompute.window import Ended, Lost, SetupFailed, Started

if TYPE_CHECKING:
    from dcompute.connection import Connection
    from dcompute.window import Event, Send

log = logging.getLogger("dcompute.driver")

#: The exception of a task comes with the news of its end: what takes longer than this (seconds) does not come.
EXCEPTION_SECONDS = 30.0


@dataclass(slots=True)
class Flight:
    """One task of a batch in flight."""

    spec: BatchSpec
    future: Any
    again: int  #: how often it went out before
    request: Request | None = None  #: its class; None: it rewrites a batch
    worker: str = ""  #: the only one that may execute it; "" where there are several
    executions: dict[str, str] = field(default_factory=dict)  #: execution id -> worker; more than one: Dask repeated the task
    at_work: int | None = None  #: index of the item that was executing at the last tick
    done: int = 0  #: items finished at the last tick
    said: str = ""  #: what the item at work said of itself at the last tick
    heard: bool = False  #: its end was told
    dropped: bool = False  #: its task was cancelled
    answer: Mapping[str, Any] | None = None  #: what its worker said last of an execution that wrote nothing


class Flights:
    """The table of batches in flight; everything here is called on the driver's thread.

    What a task returns is never fetched: the scheduler would have to reach its worker, which may stand behind a firewall. Workers say it as
    events, on their own connection, and these arrive before the end of the task does; what got lost on the way is in the mark.

    Parameters
    ----------
    connection
        To the cluster.
    spec, packed
        The run.
    epoch
        Of the driver, for batch ids.
    once
        Whether a batch may be executed once only.
    landed
        Called on Dask's threads, with number and send, when a task has ended.
    dataset
        Id of the dataset, without which workers write to whatever is in its place.
    admitted
        Fingerprints of inputs that were released from the quarantine; more may come.
    weight
        Of the run among others; a note on its tasks.
    """

    def __init__(
        self,
        connection: Connection,
        spec: RunSpec,
        packed: Packed,
        *,
        epoch: int,
        once: bool,
        landed: Callable[[int, int], None],
        dataset: str = "",
        admitted: Mapping[ItemKey, str] | None = None,
        weight: float = 1.0,
    ) -> None:
        self._connection = connection
        self._spec = spec
        self._packed = packed
        self._epoch = epoch
        self._once = once
        self._dataset = dataset
        self._weight = weight
        self._landed = landed
        self._admitted = {} if admitted is None else admitted
        self._flights: dict[int, dict[int, Flight]] = {}  # by batch and send: a twin is beside the first
        self._told_short: set[str] = set()  #: why batches were cut short
        self._begun: dict[int, dict[str, None]] = {}  # by batch: executions of whose end nothing was heard, those of lost workers too

    @property
    def at_work(self) -> int:
        """Batches that a worker began to execute, and of whose end nothing was heard."""
        return sum(bool(begun) for begun in self._begun.values())

    @property
    def numbers(self) -> list[int]:
        """Batch numbers in flight."""
        return list(self._flights)

    @property
    def finished_items(self) -> int:
        """Items of batches in flight that are known to be finished: for progress only."""
        return sum(max(flight.done for flight in tasks.values()) for tasks in list(self._flights.values()))

    @property
    def said(self) -> str:
        """What an item at work says of itself, with its key: the newest batch that says something; for progress only."""
        found = (flight.said for tasks in reversed(list(self._flights.values())) for flight in tasks.values() if flight.said)
        return next(found, "")

    def placed(self) -> dict[Request, dict[str, int]]:
        """How many tasks of each class are on which worker; on "" those of which that is not known."""
        found: dict[Request, dict[str, int]] = {}
        for tasks in self._flights.values():
            for flight in tasks.values():
                if flight.request is not None and not flight.heard:
                    there = found.setdefault(flight.request, {})
                    worker = _last_worker(flight) or flight.worker
                    there[worker] = there.get(worker, 0) + 1
        return found

    def send(self, send: Send, resources: Mapping[str, float], schema: str | None, *, workers: tuple[str, ...] | None = None) -> None:
        """Hand a batch to the scheduler; a task of the same batch that is still known is forgotten, unless this is its twin."""
        spec = self._batch(send, schema)
        placement = Placement(resources=resources, priority=send.priority, workers=workers, weight=self._weight)
        # a name of its own for each time it goes out: the scheduler may still know the task that was lost
        key = f"{self._spec.workload}-{self._spec.run}-{send.number}-{send.again}"
        if send.twin:
            log.info("batch %s takes long: its twin goes to %s", spec.id, send.only_on, extra={"action": "twin", "batch": spec.id})
        else:
            self.forget(send.number)
        one = workers[0] if workers is not None and len(workers) == 1 else ""
        task = batch_task(self._packed, spec, placement, key=key)
        self._follow(send.number, Flight(spec, None, send.again, request=send.request, worker=one), task)

    def rewrite(self, number: int, old: str, schema: str | None, *, workers: tuple[str, ...], again: int) -> None:
        """Have a written batch that does not join the schema rewritten under another number, by one of these workers."""
        new = batch_id(self._spec.run, self._epoch, number)
        key = f"{self._spec.workload}-rewrite-{self._spec.run}-{number}-{again}"
        self.forget(number)
        spec = BatchSpec(id=new, keys=(), attempts=(), fingerprints=(), values=b"")
        task = rewrite_task(self._packed, old, new, schema, workers=workers, key=key)
        self._follow(number, Flight(spec, None, again), task)

    def drop(self, number: int, again: int | None = None) -> None:
        """Cancel the tasks of a batch, or only that of one send; their workers kill the child and write what is finished."""
        for flight in self._flights.get(number, {}).values():
            if again is None or flight.again == again:
                flight.heard = flight.dropped = True
                with contextlib.suppress(Exception):  # a scheduler that is gone cancels nothing
                    self._connection.client.cancel([flight.future], force=True)

    def forget(self, number: int) -> None:
        """Release a batch that needs nothing more from Dask."""
        for flight in self._flights.pop(number, {}).values():
            with contextlib.suppress(Exception):  # a client that lost its scheduler has nothing to release
                flight.future.release()

    def landed(self, number: int, again: int) -> Event | None:
        """What the end of a task means; None where it was told before, or is no end."""
        flight = self._flights.get(number, {}).get(again)
        if flight is None or flight.heard:
            return None
        status = flight.future.status
        if status == "finished":
            return self._finished(number, flight)
        if status == "error":
            return self._erred(number, flight)
        return self._lost(number, flight, f"its task was {status}")

    def told(self, message: Mapping[str, Any]) -> Event | None:
        """What a worker's event means."""
        number = self._number(message)
        if number is None:
            return None
        self._note_execution(number, message)
        tasks = self._flights.get(number)
        if tasks and message.get("event") == "receipt":  # the mark is there, whoever made it
            return self._answered(number, next(iter(tasks.values())), message)
        flight = next((flight for flight in (tasks or {}).values() if flight.future.key == message.get("task")), None)
        return None if flight is None else self._told_of(number, flight, message)

    def _told_of(self, number: int, flight: Flight, message: Mapping[str, Any]) -> Event | None:
        match message.get("event"):
            case "started":
                flight.executions[str(message.get("execution"))] = str(message.get("worker"))
                return Started(number, str(message.get("worker")), flight.again)
            case "tick":
                flight.at_work, flight.done = message.get("index"), int(message.get("done") or 0)
                flight.said = _said(flight, message)
            case "nothing" if flight.dropped:
                return self._lost(number, flight, str(message.get("nothing")))
            case "nothing" | "setup":
                flight.answer = message
        return None

    def _follow(self, number: int, flight: Flight, task: Any) -> None:
        flight.future = self._connection.compute(task)
        # replaced whole: others read it meanwhile
        self._flights[number] = {**self._flights.get(number, {}), flight.again: flight}
        flight.future.add_done_callback(lambda _: self._landed(number, flight.again))

    def _number(self, message: Mapping[str, Any]) -> int | None:
        try:
            run, epoch, number = split_batch_id(str(message["batch"]))
        except (KeyError, ValueError):
            return None
        return number if (run, epoch) == (self._spec.run, self._epoch) else None

    def _finished(self, number: int, flight: Flight) -> Event:
        if flight.answer is None:  # then the mark says it
            return self._lost(number, flight, "its worker's answer did not arrive")
        return self._answered(number, flight, flight.answer)

    def _answered(self, number: int, flight: Flight, answer: Mapping[str, Any]) -> Event:
        flight.heard = True
        if answer.get("receipt") is not None:
            self._begun.pop(number, None)
            for other in self._flights[number].values():
                other.heard = True
            self._note_cut_short(answer.get("setup_error"))
            return Ended(number, Receipt.from_json(answer["receipt"]))
        if answer.get("setup_error") is not None:
            for execution in flight.executions:
                self._begun.get(number, {}).pop(execution, None)
            problem = answer["setup_error"]
            is_scratch = problem.get("stage") in ("scratch", "devices")
            return SetupFailed(number, _setup_text(problem), flight.again, _last_worker(flight), is_scratch)
        return self._lost(number, flight, str(answer.get("nothing", "it wrote nothing")))

    def _note_cut_short(self, problem: Mapping[str, Any] | None) -> None:
        """A batch of which a part was written: the rest goes out again, and a person learns once why."""
        if problem is not None and problem["text"] not in self._told_short:
            self._told_short.add(problem["text"])
            log.warning("a batch was cut short, the rest of it goes out again: %s", _setup_text(problem), extra={"action": "cut_short"})

    def _note_execution(self, number: int, message: Mapping[str, Any]) -> None:
        """Executions come and go: one on a worker that froze may still write the mark, when its batch went elsewhere long ago."""
        execution = str(message.get("execution"))
        match message.get("event"):
            case "started":
                self._begun.setdefault(number, {})[execution] = None
            case "nothing":
                self._begun.get(number, {}).pop(execution, None)
            case "receipt":  # the mark is there: whoever else executes the batch finds it
                self._begun.pop(number, None)

    def _erred(self, number: int, flight: Flight) -> Event:
        try:
            error = flight.future.exception(timeout=EXCEPTION_SECONDS)
        except Exception as unknown:  # noqa: BLE001  the exception itself may not unpickle here
            error = unknown
        return self._lost(number, flight, f"{type(error).__name__}: {error}")

    def _lost(self, number: int, flight: Flight, why: str) -> Lost:
        flight.heard = True
        level = logging.DEBUG if flight.dropped else logging.WARNING
        log.log(level, "batch %s was lost: %s", flight.spec.id, why, extra={"action": "batch_lost", "batch": flight.spec.id})
        return Lost(number, _last_worker(flight), max(1, len(flight.executions)), flight.at_work, flight.again)

    def _batch(self, send: Send, schema: str | None) -> BatchSpec:
        items = [attempt.item for attempt in send.tries]
        return BatchSpec(
            id=batch_id(self._spec.run, self._epoch, send.number),
            keys=Keys.of([item.key for item in items]),
            attempts=Numbers.of([attempt.attempt for attempt in send.tries]),
            fingerprints=Fingerprints.of([item.fingerprint for item in items]),
            values=pack_values([item.value for item in items]),
            schema=schema,
            memory=send.request.memory,
            cpus=send.request.cpus,
            gpus=send.request.gpus,
            alone=send.alone,
            exclude=send.exclude,
            once=self._once,
            dataset=self._dataset,
            unchecked=self._released(items),
        )

    def _released(self, items: Sequence[Item]) -> tuple[int, ...]:
        """Indexes of the items whose inputs were released from the quarantine as they are now."""
        admitted = self._admitted if self._spec.checks else {}
        return tuple(index for index, item in enumerate(items) if admitted.get(item.key) == item.fingerprint) if admitted else ()


def _last_worker(flight: Flight) -> str | None:
    return next(reversed(flight.executions.values()), None)


def _said(flight: Flight, message: Mapping[str, Any]) -> str:
    fraction, text = message.get("progress"), str(message.get("text") or "")
    if flight.at_work is None or not (fraction or text):
        return ""
    return f"{flight.spec.keys[flight.at_work].text!r}: {100 * float(fraction or 0):.0f} % {text}".rstrip()


def _setup_text(error: Mapping[str, Any]) -> str:
    return "\n".join(str(error[name]) for name in ("text", "traceback", "log") if error.get(name))
