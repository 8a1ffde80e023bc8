"""What a heartbeat says of why items wait, and what is made of it."""

from __future__ import annotations

import json
import queue

from dcompute.dataset.explaining import MOST, MOST_TEXT, Reason, Told, explanation, reprioritize
from dcompute.dataset.requests import RequestWatch, post_request
from dcompute.dataset.store import Store

BUSY = Reason(asks="1 cpus", items=1200, why="busy", text="all 4 slots for it are taken", seconds=None)
LATER = Reason(asks="2 cpus", items=3, why="back-off", text="in back-off after a failure", seconds=7.4)
OTHER = {"run": "r2", "workload": "flux", "priority": 10.0, "weight": 1.0, "flying": 4}


def test_what_a_driver_says_comes_back_as_it_was() -> None:
    """Through JSON, with a line a class and a line for each other run."""
    said = json.loads(json.dumps({"running": 4, **Told(note="", reasons=[BUSY, LATER], beside=[OTHER]).to_json()}))
    found = explanation("out/d", "r1", "running", said, age=2.0)
    assert (list(found.reasons), [dict(one) for one in found.beside]) == ([BUSY, LATER], [OTHER])
    assert str(found).splitlines() == [
        "1,200 items (1 cpus): all 4 slots for it are taken",
        "3 items (2 cpus): in back-off after a failure (7 s)",
        "beside it: run r2 of flux, priority 10.0, weight 1.0, 4 batches in flight",
    ]


def test_a_heartbeat_stays_small() -> None:
    """However many classes there are, and however long texts are."""
    many = [Reason(asks="", items=1, why="busy", text="x" * 10_000)] * 1000
    said = Told(note="y" * 10_000, reasons=many, beside=[OTHER] * 1000).to_json()
    assert (len(said["waiting"]), len(said["beside"]), len(said["note"])) == (MOST, MOST, MOST_TEXT)
    assert len(json.dumps(said)) < 20_000


def test_where_nothing_waits_or_no_run_is_at_work_that_is_said() -> None:
    """With how to go on; what another version says otherwise is left out."""
    assert str(explanation("d", "r", "running", {"running": 5}, age=1.0)) == "nothing waits: 5 items are at work"
    assert str(explanation("d", "r", "running", {})) == "the run has not said anything yet"
    assert "was cancelled. Run the same line again" in str(explanation("d", "r", "cancelled", {}))
    assert "did its work" in str(explanation("d", None, "idle", {}))
    odd = explanation(
        "d",
        "r",
        "running",
        {"waiting": [{"asks": "", "items": "x", "why": "", "text": ""}, {}, 7], "beside": "no", "running": "many", "note": None},
        age=1.0,
    )
    assert (odd.reasons, odd.beside, odd.running) == ((), (), 0)


def test_a_priority_is_heard_and_the_watch_goes_on(tmp_path) -> None:
    """A request for a priority reaches the run as a number, what makes no sense does not, and a cancel after it is still heard."""
    store = Store.at(tmp_path)
    post_request(store, "r1", {"do": "priority", "priority": "soon"})
    assert reprioritize(store, "r1", "high") == 10
    post_request(store, "r1", {"do": "cancel", "reason": "enough"})
    priorities: queue.SimpleQueue[int] = queue.SimpleQueue()
    reasons: queue.SimpleQueue[str] = queue.SimpleQueue()
    with RequestWatch(store, "r1", reasons.put, every=0.01, priority=priorities.put):
        assert reasons.get(timeout=10) == "enough"
    assert (priorities.get(timeout=1), priorities.empty()) == (10, True)
