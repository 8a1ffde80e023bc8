"""What holds for every scheduler that we start."""

from __future__ import annotations

import contextlib
import resource


def raise_open_files() -> None:
    """Let this process have as many open files as it may: a scheduler has one for each worker and client, and one more for each message."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 1 << 20)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted // 2), hard))
