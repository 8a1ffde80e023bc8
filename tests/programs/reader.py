"""Reads a dataset again and again, as others read it: each item has two rows that belong together, and none that was seen goes.

    python reader.py DATASET STOP RETENTION

Ends when the file STOP is there; prints one line of JSON: how often it read, what was wrong, and how often it was slower than RETENTION.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import dcompute as dc
from dcompute.errors import DatasetError, DatasetNotFoundError


def read(dataset: str) -> Counter[tuple[str, int, int]]:
    """The rows of the results."""
    found = dc.open(dataset)
    frame = found.results().compute(scheduler="sync")
    if "x" not in frame:  # nothing is committed yet
        return Counter()
    return Counter(zip(frame["item_key"].tolist(), frame["x"].tolist(), frame["half"].tolist(), strict=True))


def wrong(rows: Counter[tuple[str, int, int]], seen: set[tuple[str, int, int]]) -> str:
    """What is wrong with what was read; "" where nothing is."""
    if doubled := [row for row, count in rows.items() if count > 1]:
        return f"double: {doubled[:3]}"
    if torn := [row for row in rows if str(row[1]) != row[0] or (row[0], row[1], 1 - row[2]) not in rows]:
        return f"torn: {torn[:3]}"
    if missing := seen - rows.keys():
        return f"missing: {sorted(missing)[:3]}"
    return ""


def main() -> None:
    dataset, stop, retention = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    reads, slow, seen, errors = 0, 0, set[tuple[str, int, int]](), list[str]()
    while not (over := stop.exists()) or not reads:
        began = time.monotonic()
        try:
            rows = read(dataset)
        except DatasetNotFoundError:
            continue
        except DatasetError as error:
            # who reads for longer than the retention may find a file gone, and is told so
            if time.monotonic() - began > retention:
                slow += 1
            else:
                errors.append(str(error))
        else:
            reads += 1
            errors += [text] if (text := wrong(rows, seen)) else []
            seen |= rows.keys()
        if over and reads:
            break
        time.sleep(0.02)  # what it reads beside needs the machine too
    print(json.dumps({"reads": reads, "slow": slow, "items": len(seen) // 2, "errors": errors[:5]}))


main()
