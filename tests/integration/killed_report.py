"""Reports that are killed before each change of the storage in turn, and who runs them again. Not a test.

    python killed_report.py DATASET FOLDER EVERY

Forks at every EVERY-th change, prints one JSON line each: what was readable after the kill, and what there is after the next run.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from hashlib import sha256
from typing import Any

# imported once, not in each fork
import dask
import dask.dataframe
import distributed
import pyarrow as pa
import pyarrow.acero

import dcompute.report.running
from dcompute.dataset.store import Store
from tests.programs.etl import rows_of, stages

USED = (dask.dataframe, distributed, pyarrow.acero, dcompute.report.running)
CHANGES = ("create", "upload", "write", "remove")


def kill_before(change: int) -> None:
    """Have this process killed by SIGKILL before that change of the storage, from 0."""
    changes = itertools.count()

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **named: Any) -> Any:
            if next(changes) == change:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*arguments, **named)

        return changed

    for name in CHANGES:
        setattr(Store, name, counting(getattr(Store, name)))


def in_child(act: Callable[[], None]) -> bool:
    """Whether it came to its end: no thread of Arrow's is in this process, which forks again."""
    pid = os.fork()
    if pid == 0:
        try:
            with dask.config.set(scheduler="sync"):
                act()
            sys.stdout.flush()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a child failed")
    return os.WIFEXITED(status)


def bytes_of(rows: pa.Table) -> pa.Buffer:
    """All of them, whatever pieces they come in."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows.combine_chunks())
    return sink.getvalue()


def told(dataset: str) -> list[Any]:
    """Of each stage its version and a digest of all its rows; None where there is none."""
    found: list[Any] = []
    for report in stages(dataset):
        version = report.newest()
        digest = sha256(bytes_of(rows_of(report))).hexdigest() if version is not None else None
        found.append(None if version is None else [version.number, digest, version.rows_in, version.rows, version.dropped])
    return found


def main() -> None:
    """Arguments: a dataset of raw records, a folder, and how many changes there are between two kills."""
    template, folder, every = sys.argv[1:]
    for change in itertools.count(0, int(every)):
        dataset = f"{folder}/raw"
        shutil.rmtree(dataset, ignore_errors=True)
        shutil.copytree(template, dataset)

        def killed(change: int = change, dataset: str = dataset) -> None:
            kill_before(change)
            stages(dataset)[-1].run(upstream=True)

        def again(change: int = change, dataset: str = dataset) -> None:
            before = told(dataset)
            stages(dataset)[-1].run(upstream=True)
            print(json.dumps({"change": change, "before": before, "after": told(dataset)}))

        is_done = in_child(killed)
        in_child(again)
        if is_done:
            return


main()
