"""What an item costs each stage that touches every item, in microseconds of CPU, beside what the cheapest JSON of it would cost.

python benchmarks/costs.py
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dcompute.inputs import Inputs
from dcompute.plan import Index, Plan, Policy
from dcompute.records import BatchSpec, Item, ItemKey, Receipt, Request, RunSpec
from dcompute.window import Capacity, Ended, Event, Offered, Send, Take, Window, WindowConfig
from dcompute.worker.rows import decode, encode, to_rows
from dcompute.worker.tables import Parts

ITEMS = 100_000
REQUEST = Request()


def window() -> None:
    """The state machine, from the offer of items to their end."""
    items = [Item(ItemKey(str(number), "int"), number, "", number, 10) for number in range(ITEMS)]
    machine, position = Window(WindowConfig(request=REQUEST)), 0
    events: list[Event] = [Capacity({REQUEST: {"a": 1, "b": 1}})]
    while events:
        for instruction in machine.handle(events.pop(0), 0.0):
            if isinstance(instruction, Take):
                events.append(Offered(items[position : position + instruction.count], position + instruction.count >= ITEMS))
                position += instruction.count
            elif isinstance(instruction, Send):
                count = len(instruction.tries)
                receipt = Receipt(batch=str(instruction.number), execution="e", holds=((0, count),), seconds=count * 1e-6)
                events.append(Ended(instruction.number, receipt))
    assert machine.counts().succeeded == ITEMS


def inputs_and_plan() -> None:
    """Keys, fingerprints, and the look for doubles."""
    source, plan = Inputs.of(list(range(ITEMS))), Plan(Index(), Policy())
    plan.check_counted(source)
    assert len(plan.sift(list(source), lambda _: [])) == ITEMS


def rows_to_parquet() -> None:
    """A scalar an item, from what the function returned to the results part."""
    keys = tuple(ItemKey(str(number), "int") for number in range(ITEMS))
    batch = BatchSpec(id="r-000001-00000001", keys=keys, attempts=(1,) * ITEMS, fingerprints=("",) * ITEMS, values=b"")
    run = RunSpec(run="r", dataset="/x", workload="w", code=b"", code_digest="c", params_digest="p")
    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(Path(folder), run, batch, "e")
        for index in range(ITEMS):
            payload = encode(to_rows(index))
            parts.add(index, decode(payload), len(payload))
        parts.finish([])


def as_json() -> None:
    """The yardstick."""
    for number in range(ITEMS):
        json.loads(json.dumps({"key": number, "value": number}))


def microseconds(stage: Callable[[], None]) -> float:
    """CPU an item, the best of three."""
    spent = []
    for _ in range(3):
        began = time.process_time()
        stage()
        spent.append(time.process_time() - began)
    return min(spent) / ITEMS * 1e6


def main() -> None:
    yardstick = microseconds(as_json)
    print(f"{'yardstick (JSON there and back)':<34} {yardstick:6.2f} us an item")
    for stage in (inputs_and_plan, window, rows_to_parquet):
        cost = microseconds(stage)
        print(f"{stage.__name__.replace('_', ' '):<34} {cost:6.2f} us an item, {cost / yardstick:5.2f} of the yardstick")


if __name__ == "__main__":
    main()
