"""A driver that is killed before each system call of the thread that writes a checkpoint, and what is read then. Not a test.

Forks once a system call and prints one JSON line each.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import dask

from dcompute.config import settings
from dcompute.dataset import checkpoint_file, columns  # noqa: F401  before the forks, not in each of them
from dcompute.dataset.entries import Add, AddBatch
from dcompute.dataset.log import Log
from dcompute.dataset.state import State, fold
from dcompute.dataset.store import Store
from dcompute.dataset.writer import Writer, open_dataset
from dcompute.records import batch_id

COMMITS = 6


def drive(dataset: str, call: int) -> None:
    """The driver: commits, with a checkpoint at the fourth entry, for which it waits; and dies before a call."""
    kill_before(call)
    writer = Writer.acquire(Store.at(dataset), workload="flux", run="first")
    for number in range(1, COMMITS + 1):
        writer.commit([Add(batches=(AddBatch(id=batch_id("first", writer.epoch, number), holds=((0, 1),), succeeded=1),))])
        thread = writer._checkpoints._thread
        if thread is not None:
            thread.join()


def kill_before(call: int) -> None:
    """Have this process killed by SIGKILL before that call of the system, from 0, of threads that begin from now on."""
    calls = itertools.count()

    def profile(frame: FrameType, event: str, called: Any) -> None:
        # those of imports change nothing
        is_ours = event == "c_call" and frame.f_code.co_filename.endswith("disk.py")
        if is_ours and getattr(called, "__module__", None) in ("posix", "_io", "io") and next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(profile)


def in_child(act: Callable[[], None]) -> bool:
    """Whether it came to its end; in processes of their own, as no process may fork that has used Arrow's threads."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            sys.stdout.flush()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit("a child failed")
    return os.WIFEXITED(status)


def look(dataset: str, **known: Any) -> None:
    """Print what is read, by the checkpoints and by the log alone, before and after a successor."""
    store = Store.at(dataset)
    found = open_dataset(store)[1]
    same = held(found) == held(fold(Log(store).read_all()))
    writer = Writer.acquire(store, workload="flux", run="second")
    writer.commit([Add(batches=())])
    after = open_dataset(store)[1]
    step = {
        "entries": found.number,
        "used": found.checkpoint,
        "same": same and held(after) == held(fold(Log(store).read_all())),
        "files": sum(name.endswith("checkpoint.parquet") for name in store.names("log")),
        "hints": list(Log(store).hint().checkpoints),
    }
    print(json.dumps({**known, **step}))


def held(state: State) -> dict[str, Any]:
    """All that a state holds of its log, and not how it came by it."""
    return {name: value for name, value in vars(state).items() if name not in ("checkpoint", "tally", "later_hides")}


def main() -> None:
    """Argument: a folder."""
    with dask.config.set({"dcompute.driver.checkpoint": 4}):
        settings()
        for call in itertools.count():
            dataset = f"{sys.argv[1]}/{call}"
            is_done = in_child(partial(drive, dataset, call))
            in_child(partial(look, dataset, call=call, done=is_done))
            if is_done:
                return


main()
