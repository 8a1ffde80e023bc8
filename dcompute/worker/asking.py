"""Storage that fails for a while, as a worker meets it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from dcompute.config import settings
from dcompute.errors import StoreError

logger = logging.getLogger("dcompute.worker")
T = TypeVar("T")


def ask(act: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """What a function returns that asks the storage; where that fails it is asked again, with growing pauses.

    Raises
    ------
    StoreError
        It failed each time.
    """
    limits = settings().store
    for number in range(limits.retries):
        try:
            return act()
        except StoreError as error:
            logger.warning("storage failed, trying again: %s", error, extra={"action": "store_retry"})
            sleep(limits.delay * 2**number)
    return act()
