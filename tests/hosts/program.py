"""A user's program for tests on several hosts: ``program.py ADDRESS WHAT DATASET CERTIFICATES``; says what came of it as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import dcompute as dc

MARKER = "a-marker-that-nobody-on-the-way-may-read"


def slowly(number: int, text: str) -> dict[str, object]:
    """A row that says who made it."""
    from distributed import get_worker  # noqa: F401  there is none in a child

    time.sleep(0.1)
    return {"square": number * number, "text": text}


def main() -> None:
    address, what, dataset, certificates = sys.argv[1:5]
    with dc.cluster(address, tls=certificates, timeout=20) as cluster:
        began = time.monotonic()
        run = dc.map(slowly, dc.grid(number=range(60), text=[MARKER]), dataset, client=cluster, batch_size=5)
        run.wait(progress="log")
        seconds = time.monotonic() - began
    opened = dc.open(Path(dataset))
    results, attempts = opened.to_pandas(), opened.attempts().compute(scheduler="synchronous")
    workers = attempts["worker"] if "worker" in attempts else attempts["host"]
    said = {
        "results": sorted(int(number) for number in results["square"]),
        "hosts": sorted({str(worker).rpartition("//")[2].partition(":")[0] for worker in workers}),
        "attempts": len(attempts),
        "seconds": seconds,
        "what": what,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
