"""Reads a dataset again and again, as others read it: each read is exactly what one entry of the log says, and none is older than the last.

    python reader.py DATASET STOP RETENTION READERS

So many readers at once, a thread each. Ends when the file STOP is there; prints one line of JSON with an object a reader: how often it
read, of how many positions, what was wrong, and how often it was slower than RETENTION.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

import dcompute as dc
from dcompute.dataset.reading import attempts_arrow
from dcompute.errors import DatasetError, DatasetNotFoundError

HALVES = {0, 1}


class Reader(threading.Thread):
    """One reader: each item has two rows that belong together, in the parts that count beside its attempt."""

    def __init__(self, dataset: str, stop: Path, retention: float) -> None:
        super().__init__()
        self.dataset, self.stop, self.retention = dataset, stop, retention
        self.reads = self.slow = self.number = 0
        self.items: set[str] = set()
        self.positions: set[int] = set()
        self.errors: list[str] = []

    def run(self) -> None:
        """Read until the end, and once after it."""
        while True:
            over = self.stop.exists()
            began = time.monotonic()
            try:
                self.read()
            except DatasetNotFoundError:
                if over:
                    return
            except DatasetError as error:
                # who reads for longer than the retention may find a file gone, and is told so
                if time.monotonic() - began > self.retention:
                    self.slow += 1
                    over = False
                else:
                    self.errors.append(str(error))
            except Exception as error:  # whatever it is, it is what was wrong
                self.errors.append(f"{type(error).__name__}: {error}")
            if over:
                return
            time.sleep(0.2)  # what it reads beside needs the machine too

    def read(self) -> None:
        """The rows of the results, and the items that the log has at the same position."""
        found = dc.open(self.dataset)
        number = found.state.number
        # a dataframe costs ten times as much: most reads do without
        table = found.to_arrow() if self.reads % 8 else pa.Table.from_pandas(found.results().compute(scheduler="sync"))
        columns = [table[name].to_pylist() for name in ("item_key", "x", "half")] if "x" in table.column_names else [[], [], []]
        rows = list(zip(*columns, strict=True))
        attempts = attempts_arrow(found._store, found.state, ["item_key", "outcome"]).to_pylist()
        self.reads += 1
        if problem := self.wrong(number, rows, {row["item_key"] for row in attempts if row["outcome"] == "succeeded"}):
            self.errors.append(f"at {number}: {problem}")
        self.number, self.items = number, {row[0] for row in rows}
        self.positions.add(number)

    def wrong(self, number: int, rows: list[tuple[str, int, int]], items: set[str]) -> str:
        """What is wrong with what was read; "" where nothing is."""
        if number < self.number:
            return f"older than {self.number}, which was read before"
        if doubled := [row for row, count in Counter(rows).items() if count > 1]:
            return f"double: {doubled[:3]}"
        halves: dict[str, set[int]] = {}
        for key, x, half in rows:
            if str(x) != key:
                return f"torn: {key} has {x}"
            halves.setdefault(key, set()).add(half)
        if torn := [key for key, found in halves.items() if found != HALVES]:
            return f"torn: {torn[:3]}"
        if halves.keys() != items:
            return f"missing: {sorted(items - halves.keys())[:3]}, not of this position: {sorted(halves.keys() - items)[:3]}"
        if gone := self.items - halves.keys():
            return f"gone: {sorted(gone)[:3]}"
        return ""

    def said(self) -> dict[str, Any]:
        """What it has to say."""
        positions = len(self.positions)
        return {"reads": self.reads, "slow": self.slow, "positions": positions, "items": len(self.items), "errors": self.errors[:5]}


def main() -> None:
    dataset, stop, retention, count = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    readers = [Reader(dataset, stop, retention) for _ in range(count)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    print(json.dumps([reader.said() for reader in readers]))


main()
