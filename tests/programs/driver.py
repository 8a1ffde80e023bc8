"""A driver of its own for tests of two of them: numbers doubled slowly, each execution noted in a trace.

    python driver.py DATASET TRACE ITEMS SECONDS [--takeover] [--at TIME]

Ends with status 0, or 1 and the name of the error that ended the run.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

import dcompute as dc
from dcompute.errors import DcomputeError


@dc.workload(timeout="120 s")
def double(x: int, trace: str, seconds: float) -> int:
    """Twice ``x``; notes its beginning in the trace."""
    with Path(trace).open("a") as file:
        file.write(f"{x} {os.getpid()} {dc.current().run}\n")
    time.sleep(seconds)
    return 2 * x


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("trace")
    parser.add_argument("items", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--takeover", action="store_true")
    parser.add_argument("--at", type=float, default=0.0, help="when to begin, in seconds since 1970")
    given = parser.parse_args()
    params = {"trace": given.trace, "seconds": given.seconds}
    importlib.import_module("dcompute.driver")  # what takes time is loaded before the moment comes

    time.sleep(max(0.0, given.at - time.time()))
    try:
        run = dc.map(double, range(given.items), given.dataset, params=params, takeover=given.takeover, batch_size=2)
        print("started", flush=True)
        run.wait(progress="quiet")
    except DcomputeError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 1
    return 0


sys.exit(main())
