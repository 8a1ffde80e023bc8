from __future__ import annotations

from dcompute.clusters.queue import MISSES, Queued, lost_jobs, parse_queue

PRINTED = """\
7|RUNNING|None
8|PENDING|Resources
9|PENDING|launch_failed_requeued_held
10|CANCELLED|None
slurm_load_jobs error: something else
"""


def test_what_squeue_prints_is_read() -> None:
    """Each job has its state and why it waits; other lines are left out."""
    assert parse_queue(PRINTED) == {
        "7": Queued("RUNNING", "None"),
        "8": Queued("PENDING", "Resources"),
        "9": Queued("PENDING", "launch_failed_requeued_held"),
        "10": Queued("CANCELLED", "None"),
    }
    assert parse_queue("") == {}


def test_a_job_is_lost_when_slurm_says_so_twice() -> None:
    """One reading proves nothing; one in between that knows the job begins anew."""
    misses: dict[str, int] = {}
    absent = {"a": "7"}
    assert lost_jobs(absent, {}, misses) == []
    assert lost_jobs(absent, parse_queue(PRINTED), misses) == []
    for _ in range(MISSES - 1):
        assert lost_jobs(absent, {}, misses) == []
    assert lost_jobs(absent, {}, misses) == ["a"]


def test_which_jobs_may_still_give_a_worker() -> None:
    """Those that run or wait their turn; not what is over, and not what Slurm holds after a failed launch for ever."""
    misses: dict[str, int] = {}
    absent = {"runs": "7", "waits": "8", "held": "9", "over": "10", "unknown": "11"}
    for _ in range(MISSES):
        found = lost_jobs(absent, parse_queue(PRINTED), misses)
    assert found == ["held", "over", "unknown"]


def test_a_job_that_slurm_refused_is_lost_at_once() -> None:
    """It has no id, and nothing has to be asked."""
    assert lost_jobs({"a": None, "b": "7"}, {}, {}) == ["a"]


def test_a_job_whose_worker_came_is_forgotten() -> None:
    """What was missed before its worker came is not counted when the worker is gone."""
    misses: dict[str, int] = {}
    lost_jobs({"a": "7"}, {}, misses)
    lost_jobs({}, {}, misses)
    assert misses == {}
