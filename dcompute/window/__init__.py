"""The driver's state machine: what is in flight, how large batches are, who is tried again and when.

Pure: events in, instructions out, time is an argument. It starts nothing, waits for nothing and reads no clock::

    window = Window(WindowConfig(request=request), retry=Retry(), rng=random.Random(seed))
    for instruction in window.handle(Capacity({request: {"tcp://...": 2}}), now):
        ...                                  # Take(256): answer with Offered(items, exhausted)
    window.wake_at()                         # when a Tick is due, if nothing else comes
"""

from __future__ import annotations

from dcompute.window.events import (
    Allowance,
    CancelAll,
    Capacity,
    Ended,
    Event,
    Lost,
    MarkFound,
    Misfit,
    NoMark,
    Offered,
    Reprioritized,
    SetupFailed,
    Started,
    Tick,
)
from dcompute.window.instructions import Drop, End, Instruction, LookForMark, Measure, Notice, Record, Send, Settled, Take, Try
from dcompute.window.machine import Window
from dcompute.window.settings import Counts, WindowConfig
from dcompute.window.waiting import Waiting, Why

__all__ = [
    "Allowance", "CancelAll", "Capacity", "Counts", "Drop", "End", "Ended", "Event", "Instruction", "LookForMark", "Lost", "MarkFound",
    "Measure", "Misfit", "NoMark", "Notice", "Offered", "Record", "Reprioritized", "Send", "Settled", "SetupFailed", "Started", "Take",
    "Tick", "Try", "Waiting", "Why", "Window", "WindowConfig",
]  # fmt: skip
