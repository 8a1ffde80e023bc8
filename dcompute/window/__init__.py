"""The driver's state machine: what is in flight, how large batches are, who is tried again and when.

Pure: events in, instructions out, time is an argument. It starts nothing, waits for nothing and reads no clock::

    window = Window(WindowConfig(request=request), retry=Retry(), rng=random.Random(seed))
    for instruction in window.handle(Capacity({request: {"tcp://...": 2}}), now):
        ...                                  # Take(256): answer with Offered(items, exhausted)
    window.wake_at()                         # when a Tick is due, if nothing else comes
"""

from __future__ import annotations

from dcompute.window.events import CancelAll, Capacity, Ended, Event, Lost, MarkFound, Misfit, NoMark, Offered, SetupFailed, Started, Tick
from dcompute.window.instructions import Drop, End, Instruction, LookForMark, Measure, Notice, Record, Send, Settled, Take, Try
from dcompute.window.machine import Window
from dcompute.window.settings import Counts, WindowConfig

__all__ = [
    "CancelAll", "Capacity", "Counts", "Drop", "End", "Ended", "Event", "Instruction", "LookForMark", "Lost", "MarkFound", "Measure",
    "Misfit", "NoMark", "Notice", "Offered", "Record", "Send", "Settled", "SetupFailed", "Started", "Take", "Tick", "Try", "Window",
    "WindowConfig",
]  # fmt: skip
