"""Items that may be executed once only, each noting its beginning in a trace; one waits until a file is there.

python at_most_once.py DATASET TRACE ITEMS SCHEDULER [--retry-failed]
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import dcompute as dc


@dc.workload(idempotent=False)
def send(x: int, trace: str) -> int:
    """Noted in the trace; item 4 stays at work until the file TRACE.go is there."""
    with Path(trace).open("a") as file:
        file.write(f"{x} {os.getpid()} {os.getppid()}\n")
    while x == 4 and not Path(trace + ".go").exists():
        time.sleep(0.01)
    return x


def main() -> None:
    dataset, trace, items, scheduler, *options = sys.argv[1:]
    client = None if scheduler == "local" else scheduler
    run = dc.map(
        send, range(int(items)), dataset, params={"trace": trace}, client=client, batch_size=3, retry_failed="--retry-failed" in options
    )
    run.wait(progress="quiet")
    print(run.summary(), flush=True)


main()
