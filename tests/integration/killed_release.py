"""Releases that are killed before each change of the storage in turn, and who runs them again. Not a test.

    python -m tests.integration.killed_release DATASET FOLDER

Prints one JSON line for each kill: results and records after it, and after the next release and a vacuum.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# imported once, not in each fork
import pyarrow.acero

import dcompute as dc
import dcompute.dataset.quarantine
import dcompute.dataset.releasing
import dcompute.dataset.vacuum
from dcompute.dataset.store import Store

USED = (pyarrow.acero, dcompute.dataset.quarantine, dcompute.dataset.releasing, dcompute.dataset.vacuum)


def kill_before(change: int) -> None:
    """Have this process killed by SIGKILL before that change of the storage, from 0."""
    changes = itertools.count()

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **named: Any) -> Any:
            if next(changes) == change:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*arguments, **named)

        return changed

    for name in ("create", "upload", "write", "remove"):
        setattr(Store, name, counting(getattr(Store, name)))


def in_child(act: Callable[[], None]) -> bool:
    """Whether it came to its end and was not killed."""
    pid = os.fork()
    if pid == 0:
        act()
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFEXITED(status)


def told(folder: str) -> list[Any]:
    """How many rows there are in the results and records in the quarantine."""
    dataset = dc.open(folder)
    return [sorted(map(str, dataset.to_arrow().to_pylist())), dataset._quarantine(None, None).to_arrow().num_rows]


def main() -> None:
    """Arguments: a dataset with records in its quarantine, and a folder."""
    template, folder = sys.argv[1:]
    for change in itertools.count():
        dataset = f"{folder}/{change}"
        shutil.copytree(template, dataset)

        def killed(change: int = change, dataset: str = dataset) -> None:
            kill_before(change)
            dc.open(dataset).release(all=True)

        def again(dataset: str = dataset) -> None:
            before = told(dataset)
            opened = dc.open(dataset)
            opened.release(all=True)
            opened.vacuum(0)
            files = sum(1 for _ in Path(dataset, "results").iterdir())
            print(json.dumps({"before": before, "after": told(dataset), "files": files}))

        is_done = in_child(killed)
        in_child(again)
        if is_done:
            return


main()
