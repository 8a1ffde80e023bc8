"""A driver that is killed before each of its system calls in turn, and the successor that finds what is left. Not a test.

Forks once a system call, prints one JSON line each: the entries that the successor found, and what then counts.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import sys
from typing import Any

import pyarrow as pa

from dcompute.dataset.entries import Add, AddBatch
from dcompute.dataset.log import Log
from dcompute.dataset.store import Store
from dcompute.dataset.writer import Writer, open_dataset
from dcompute.records import ItemKey, Receipt, batch_id
from dcompute.testing import ManualClock


def drive(dataset: str) -> None:
    """The driver: one batch committed, one written only."""
    store = Store.at(dataset)
    writer = Writer.acquire(store, workload="flux", run="first", clock=ManualClock())
    for number, key in enumerate("ab", 1):
        batch = batch_id("first", writer.epoch, number)
        store.create(f"attempts/{batch}.parquet", json.dumps(key).encode())
        if number == 1:
            writer.commit([Add(batches=(AddBatch(id=batch, holds=((0, 1),)),))])


def read_mark(store: Store, name: str) -> tuple[Receipt, Any]:
    """A mark of :func:`drive`."""
    key = json.loads(store.read(name))
    batch = name.removeprefix("attempts/").removesuffix(".parquet")
    row = {"item_key": [key], "key_kind": ["str"], "attempt": [1], "outcome": ["succeeded"], "kind": [None]}
    return Receipt(batch=batch, execution="x", holds=((0, 1),)), pa.table(row)


def kill_before(call: int) -> None:
    """Have this process killed by SIGKILL before that call of the system, from 0."""
    calls = itertools.count()

    def profile(frame: object, event: str, called: Any) -> None:
        if event == "c_call" and is_system_call(called) and next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(profile)


def is_system_call(called: Any) -> bool:
    """Whether this function of C goes to the system."""
    return getattr(called, "__module__", None) in ("posix", "_io", "io") or isinstance(getattr(called, "__self__", None), io.IOBase)


def in_child(dataset: str, call: int) -> bool:
    """Whether the driver came to its end."""
    pid = os.fork()
    if pid == 0:
        kill_before(call)
        drive(dataset)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"the driver failed at call {call}")
    return os.WIFEXITED(status)


def succeed(dataset: str) -> dict[str, Any]:
    """What a successor finds, and makes of it."""
    store = Store.at(dataset)
    found = [len(entry.actions) for entry in Log(store).read_all()]
    marks = [json.loads(store.read(name)) for name in store.names("attempts")]
    clock = ManualClock()
    writer = Writer.acquire(store, workload="flux", run="second", clock=clock)
    adopted = writer.adopt(read_mark, lambda kind, attempt: True)
    writer.commit([Add(batches=(AddBatch(id=batch_id("second", writer.epoch, 1), holds=((0, 1),), final=(ItemKey("z", "str"),)),))])
    writer.close()
    _, state = open_dataset(store)
    counted = [read_mark(store, one.mark)[1].column("item_key")[0].as_py() for one in state.batches if "first" in one.batch.id]
    return {"found": found, "marks": marks, "adopted": len(adopted), "counted": counted, "slept": clock.slept}


def main() -> None:
    """Argument: a folder."""
    for call in itertools.count():
        dataset = f"{sys.argv[1]}/{call}"
        is_done = in_child(dataset, call)
        print(json.dumps({"call": call, "done": is_done, **succeed(dataset)}))
        if is_done:
            return


main()
