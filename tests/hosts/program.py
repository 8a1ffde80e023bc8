"""A user's program for tests on several hosts: ``program.py ADDRESS WHAT DATASET CERTIFICATES``; says what came of it as JSON."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import dcompute as dc
from dcompute.errors import DcomputeError

MARKER = "a-marker-that-nobody-on-the-way-may-read"
ROOT = Path(__file__).resolve().parents[2]
#: What only the worker behind the firewall declares.
ONLY = {"ONLY": 1}


def slowly(number: int, text: str) -> dict[str, object]:
    """A row after a moment."""
    time.sleep(0.1)
    return {"square": number * number, "text": text}


class Unready:
    """A workload that never becomes ready."""

    def __init__(self) -> None:
        raise OSError("there is no model here")

    def __call__(self, number: int) -> int:
        return number


def disagree(number: int, gate: str) -> dict[str, object]:
    """One of two types that cannot meet, when both are at work."""
    Path(gate, f"begun-{number}").touch()
    while len(list(Path(gate).glob("begun-*"))) < 2:
        time.sleep(0.01)
    return {"value": number if number % 2 else "text"}


def work(cluster: Any, dataset: str) -> dc.Run:
    """Items for both workers."""
    return dc.map(slowly, dc.grid(number=range(60), text=[MARKER]), dataset, client=cluster, batch_size=5)


def unready(cluster: Any, dataset: str) -> dc.Run:
    """Batches that come to nothing, on the worker behind the firewall."""
    return dc.map(dc.workload(resources=ONLY)(Unready), range(3), dataset, client=cluster, batch_size=1)


def rewritten(cluster: Any, dataset: str) -> dc.Run:
    """Two batches of which one is rewritten there."""
    gate = Path(f"{dataset}-gate")
    gate.mkdir()
    return dc.map(dc.workload(resources=ONLY)(disagree), range(2), dataset, params={"gate": str(gate)}, client=cluster, batch_size=1)


def demo(cluster: Any, dataset: str) -> dc.Run:
    """The workload of the project's demo, over a package of the standard library and the demo's damaged files."""
    sys.path.insert(0, str(ROOT / "demo"))
    from damaged import plant
    from index import symbols

    source = Path(f"{dataset}-source").resolve()
    shutil.copytree(Path(json.__file__).parent.parent / "email", source / "library" / "email")
    plant(source / "damaged")
    return dc.map(symbols, dc.files(f"{source}/**/*.py"), dataset, params={"root": str(source)}, client=cluster, modules=["index"])


def main() -> None:
    """Do what the command line says."""
    address, what, dataset, certificates = sys.argv[1:5]
    said: dict[str, object] = {"problem": None}
    given = {"plain": True} if certificates == "plain" else {"tls": certificates}
    with dc.cluster(address, timeout=20, **given) as cluster:
        began = time.monotonic()
        run = {"work": work, "unready": unready, "rewritten": rewritten, "demo": demo}[what](cluster, dataset)
        try:
            run.wait(progress="log")
        except DcomputeError as error:
            said["problem"] = f"{type(error).__name__}: {error}"
        said["seconds"] = time.monotonic() - began
        opened = dc.open(Path(dataset))
        if what == "work":
            said["squares"] = sorted(int(number) for number in opened.to_pandas()["square"])
        attempts = opened.attempts().compute(scheduler="synchronous")
        said["hosts"] = sorted(
            {str(worker).rpartition("//")[2].partition(":")[0] for worker in attempts["worker"]} if len(attempts) else []
        )
        said["outcomes"] = sorted(attempts["outcome"]) if len(attempts) else []
    print(json.dumps(said))


if __name__ == "__main__":
    main()
