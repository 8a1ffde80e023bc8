"""Making thousands of records at once without looking for garbage among them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_depth = 0
_was_enabled = False


@contextmanager
def uncollected() -> Iterator[None]:
    """A block in which Python does not look for cycles.

    It looks after every 700 new objects: of a million items none is garbage while its batch is made, and looking took half of the
    driver's time. Keep the block short: it holds for all threads, and what they leave is collected after it.
    """
    global _depth, _was_enabled
    with _lock:
        if not _depth:
            _was_enabled = gc.isenabled()
            gc.disable()
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if not _depth and _was_enabled:
                gc.enable()
