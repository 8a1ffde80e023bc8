"""Reading ahead: a few things at once, in their order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_REMOTE_THREADS = 16

A = TypeVar("A")
B = TypeVar("B")


def prefetched(read: Callable[[A], B], things: Iterable[A], is_local: bool) -> Iterator[B]:
    """``read`` of each thing in order, a few of them ahead in threads."""
    threads = min(4, os.cpu_count() or 1) if is_local else _REMOTE_THREADS
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="dcompute-read") as pool:
        try:
            for thing in things:
                waiting.append(pool.submit(read, thing))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
