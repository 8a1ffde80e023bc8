"""How long it takes to open a long log and to say how far its dataset is: by its last checkpoint, and by the entries alone.

Once where nothing failed, and once where every tenth batch has a failed item that may still be tried again, so that a status has to read
what came after the checkpoint.

python benchmarks/opening.py [COMMITS]
"""

from __future__ import annotations

import gc
import io
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dcompute as dc
from dcompute.dataset.checkpoint import Checkpoints
from dcompute.dataset.entries import Add, AddBatch, Close, Entry, Open
from dcompute.dataset.log import Log
from dcompute.dataset.names import entry_name, mark_name, new_id
from dcompute.dataset.parts import attempts_table, write_attempts
from dcompute.dataset.state import State
from dcompute.dataset.store import Store
from dcompute.dataset.tally import LastFailure
from dcompute.records import ATTEMPT_COLUMNS, FAILED, SUCCEEDED, ItemKey, PartRef, Receipt, batch_id

COMMITS = 100_000
ITEMS = 100  # a batch
#: Entries after the last checkpoint: as many as a driver lets come.
TAIL = 999
RUN = "20260101T000000-abcdef01"
LIMIT = 1.0  # seconds


def batch(number: int, fails: bool) -> AddBatch:
    """One batch, of which one item failed where that is said."""
    name = batch_id(RUN, 1, number)
    part = PartRef(name=f"results/{name}-{secrets.token_hex(16)}-0.parquet", size=4321, rows=ITEMS - fails)
    failed = (("transient", 1),) if fails else ()
    return AddBatch(
        id=name, holds=((0, ITEMS),), results=(part,), succeeded=ITEMS - fails, failed=failed, rows=part.rows, seconds=1.5, slot_seconds=1.5
    )


def write_mark(store: Store, added: AddBatch, number: int) -> None:
    """The attempts part of a batch."""
    rows = []
    for index in range(ITEMS):
        is_failed = bool(added.failed) and index == 0
        known = {"item_key": str(number * ITEMS + index), "key_kind": "int", "attempt": 1, "outcome": FAILED if is_failed else SUCCEEDED}
        rows.append(tuple({**known, "kind": "transient" if is_failed else None}.get(name) for name in ATTEMPT_COLUMNS))
    buffer = io.BytesIO()
    write_attempts(buffer, attempts_table(rows), Receipt(batch=added.id, execution="e", holds=added.holds))
    Path(store.path(mark_name(added.id))).write_bytes(buffer.getvalue())


def write(store: Store, commits: int, failing: bool) -> float:
    """Write such a log, with the checkpoint that a driver would have left; seconds that the checkpoint took."""
    for folder in ("log", "attempts"):
        Path(store.path(folder)).mkdir(parents=True)
    store.write("dataset.json", b'{"format": [1, 0], "id": "d", "created": 0}')
    state, log, took = State(), Log(store), 0.0
    failures: dict[ItemKey, LastFailure] = {}
    for number in range(1, commits + 1):
        if number == 1:
            actions: tuple[object, ...] = (Open(epoch=1, run=RUN, workload="flux", host="h", boot="b", pid=1, started=1.0),)
        elif number == commits:
            actions = (Close(epoch=1),)
        else:
            added = batch(number, failing and number % 10 == 0)
            actions = (Add(batches=(added,)),)
            if number > commits - TAIL:
                write_mark(store, added, number)
            elif added.failed:
                failures[ItemKey(str(number * ITEMS), "int")] = LastFailure("transient", len(state.batches) << 32, False)
        entry = Entry(number, new_id(), float(number), actions)  # type: ignore[arg-type]
        # not exclusively and not synced: this is no dataset that somebody relies on
        Path(store.path(entry_name(number))).write_bytes(entry.to_bytes())
        state.apply(entry)
        if number == commits - TAIL:
            took = checkpoint(log, state, failures)
    return took


def checkpoint(log: Log, state: State, failures: dict[ItemKey, LastFailure]) -> float:
    """What a driver writes that has kept its tally; seconds."""
    assert state.tally is not None
    succeeded, *_ = state.totals()
    state.tally.number, state.tally.batches, state.tally.succeeded, state.tally.failed = (
        state.number,
        len(state.batches),
        succeeded,
        failures,
    )
    began = time.perf_counter()
    Checkpoints(log, 0).close(state)
    return time.perf_counter() - began


def seconds(act: Callable[[], object]) -> float:
    """The best of three."""
    spent = []
    for _ in range(3):
        gc.collect()
        began = time.perf_counter()
        act()
        spent.append(time.perf_counter() - began)
    return min(spent)


def measure(commits: int, failing: bool) -> float:
    """Print the figures of one dataset; seconds to open it and ask for its status."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.at(f"{folder}/dataset")
        took = write(store, commits, failing)
        file = max(Path(store.path("log")).glob("*.checkpoint.parquet"))
        size = file.stat().st_size
        found = dc.open(store.url).status()  # imports too
        opened, status = seconds(lambda: dc.open(store.url)), seconds(lambda: dc.open(store.url).status())
        file.unlink()
        Path(store.path("log/last.json")).unlink()
        began = time.perf_counter()
        totals = dc.open(store.url).state.totals()
        whole = time.perf_counter() - began
        assert totals[0] == found.succeeded, "what the checkpoint says is not what the log says"
    print(f"{commits:,} commits, {TAIL} of them after the checkpoint, {found.failed:,} failed items:")
    print(f"  the checkpoint: {size / 1e6:.1f} MB, {size / commits:.0f} bytes a commit, written in {took:.2f} s")
    print(f"  open: {opened:.2f} s, by the entries alone {whole:.2f} s, {whole / opened:.0f} times as long")
    print(f"  open and status: {status:.2f} s")
    return status


def main() -> int:
    """1 where opening takes too long."""
    commits = int(sys.argv[1]) if len(sys.argv) > 1 else COMMITS
    return int(max([measure(commits, failing) for failing in (False, True)]) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
