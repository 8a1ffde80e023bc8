"""Times with a zone stay what they are.

pyarrow takes what Python says of a time for naive where a variable of the environment says so, and an import of pandera sets it: 12:00 in
Berlin would become 12:00 in UTC, without a word.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

IGNORING = "PYARROW_IGNORE_TIMEZONE"

# the environment is one for all threads: none may put the variable back while another converts
_lock = threading.RLock()


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """A context in which pyarrow respects zones; after it the variable is what it was before."""
    with _lock:
        was = os.environ.pop(IGNORING, None)
        try:
            yield
        finally:
            os.environ.pop(IGNORING, None)
            if was is not None:
                os.environ[IGNORING] = was
