"""A run in a process of its own, beside those of a test: neighbour.py ADDRESS FOLDER NAME ITEMS SECONDS OPTIONS, the last as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import dcompute as dc


def work(x: int, folder: str, name: str, seconds: float, at_once: int = 0) -> int:
    """Note when it begins; where ``at_once`` is a number, fail if as many others are at work on any worker."""
    import fcntl
    import os
    import time

    noted = os.open(f"{folder}/trace", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(noted, f"{name} {x}\n".encode())
    os.close(noted)
    locks = [os.open(f"{folder}/lock-{number}", os.O_WRONLY | os.O_CREAT, 0o600) for number in range(at_once)]
    for lock in locks:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever is killed holds it no more
            break
        except BlockingIOError:
            continue
    else:
        if at_once:
            raise RuntimeError(f"more than {at_once} at once")
    time.sleep(seconds)
    for lock in locks:
        os.close(lock)
    return x


def begin(address: str, folder: str, name: str, items: int, seconds: float, **options: Any) -> dc.Run:
    """Begin the run."""
    needs = {what: options.pop(what) for what in ("uses", "gpus") if what in options}
    params = {"folder": folder, "name": name, "seconds": seconds, "at_once": options.pop("at_once", 0)}
    workload = dc.Workload.of(work).options(**needs)
    return dc.map(workload, range(items), f"{folder}/{name}", params=params, batch_size=1, client=address, **options)


if __name__ == "__main__":
    begin(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]), **json.loads(sys.argv[6])).wait(progress="quiet")
