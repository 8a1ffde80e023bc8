from __future__ import annotations

import datetime

import pytest

from dcompute.errors import UsageError, WorkloadError
from dcompute.records import Request
from dcompute.requirements import Requirements
from dcompute.resources import (
    WorkerOffer,
    annotation,
    exact,
    explain_gap,
    format_bytes,
    idle_workers,
    is_counted,
    memory_share,
    parse_bytes,
    parse_seconds,
    slots,
    whole_share,
)

GIB = 1 << 30
PLAIN = WorkerOffer(address="plain", nthreads=4, memory_limit=8 * GIB)
DECLARED = WorkerOffer(address="declared", nthreads=8, memory_limit=8 * GIB, resources={"CPU": 4, "MEMORY": 4 * GIB, "GPU": 1})


@pytest.mark.parametrize(
    ("request_", "offer", "others", "expected"),
    [
        (Request(), PLAIN, [], 4),
        (Request(cpus=2), PLAIN, [], 2),
        (Request(cpus=0.5), PLAIN, [], 4),
        (Request(cpus=5), PLAIN, [], 0),
        (Request(memory=3 * GIB), PLAIN, [], 2),
        (Request(memory=9 * GIB), PLAIN, [], 0),
        (Request(gpus=1), PLAIN, [], 0),
        (Request(resources=(("SCRATCH", 20.0),)), PLAIN, [], 0),
        (Request(), DECLARED, [], 4),
        (Request(memory=GIB), DECLARED, [], 4),
        (Request(memory=3 * GIB), DECLARED, [], 1),
        (Request(gpus=0.25), DECLARED, [], 4),
        (Request(), PLAIN, [DECLARED], 0),
        (Request(gpus=1), DECLARED, [PLAIN], 1),
    ],
)
def test_how_many_batches_fit_on_a_worker(request_: Request, offer: WorkerOffer, others: list[WorkerOffer], expected: int) -> None:
    """What anybody declares is counted by declarations, the rest by threads and memory limits, and a task takes a thread in any case."""
    assert slots(request_, offer, [offer, *others]) == expected


def test_only_a_gpu_declared_leaves_cpus_counted_by_threads() -> None:
    """A name that nobody declares does not shut anybody out."""
    gpu = WorkerOffer(address="gpu", nthreads=2, memory_limit=GIB, resources={"GPU": 1})
    assert slots(Request(), PLAIN, [PLAIN, gpu]) == 4
    assert annotation(Request(gpus=1), [PLAIN, gpu]) == {"GPU": 1}


def test_tenths_add_up() -> None:
    """Three of 0.1 fit into 0.3, whatever floating point says."""
    offer = WorkerOffer(address="a", nthreads=8, memory_limit=GIB, resources={"LICENCE": 0.3})
    assert slots(Request(resources=(("LICENCE", 0.1),)), offer, [offer]) == 3


@pytest.mark.parametrize("amount", [0.1, 1 / 3, 0.7, 1.5, 2.0, 3e9])
def test_amounts_that_come_and_go_add_up_for_ever(amount: float) -> None:
    """A worker subtracts and adds what its tasks hold: after thousands of them in any order there is as much as at first."""
    total = available = 8e9
    held = []
    for step in range(10_000):
        need = exact(amount) if step % 3 else exact(0.3)
        available -= need
        held.append(need)
        if len(held) > 2:
            available += held.pop(step % len(held))
    assert available + sum(held) == total
    assert amount * (1 - 1e-5) <= exact(amount) <= amount


@pytest.mark.parametrize(("gpus", "expected"), [(0.5, 0.5), (0.4, 0.5), (0.3, 1 / 3), (0.34, 0.5), (0.6, 1.0), (1, 1), (2, 2), (0, 0)])
def test_a_share_of_a_device_takes_what_no_other_such_share_can_have(gpus: float, expected: float) -> None:
    """Two of 0.4 fit on one device, and what is left of it is of no use to a third."""
    assert whole_share(gpus) == expected
    offer = WorkerOffer(address="a", nthreads=64, resources={"GPU": 2})
    assert slots(Request(gpus=gpus), offer, [offer]) == (64 if not gpus else round(2 / expected))


def test_only_declared_names_are_annotated() -> None:
    """A resource that no worker has would wait for ever without a word."""
    request = Request(cpus=2, memory=GIB, resources=(("SCRATCH", 20.0),))
    assert annotation(request, [PLAIN]) == {}
    assert annotation(request, [PLAIN, DECLARED]) == {"CPU": 2, "MEMORY": GIB}


@pytest.mark.parametrize(
    ("request_", "offers", "expected"),
    [
        (Request(gpus=2), [DECLARED], "needs GPU=2; the largest worker has GPU=1"),
        (Request(gpus=1), [PLAIN], r"no worker declares GPU.*--preload dcompute.worker"),
        (Request(cpus=5), [PLAIN], r"needs CPU=5; the largest worker has CPU=4 \(threads\)"),
        (Request(memory=9 * GIB), [PLAIN], r"needs MEMORY=9 GiB; the largest worker has MEMORY=8 GiB \(limit\)"),
        (Request(resources=(("SCRATCH", 20.0),)), [PLAIN], r"no worker declares SCRATCH.*--resources \"SCRATCH=20\""),
        (Request(resources=(("SCRATCH", 1.0),)), [WorkerOffer(address="a", nthreads=1, resources={"scratch": 1})], "declares 'scratch'"),
        (
            Request(gpus=1, memory=6 * GIB),
            [DECLARED, WorkerOffer(address="b", nthreads=1, resources={"CPU": 1, "MEMORY": 8 * GIB})],
            "no single one of the 2 workers",
        ),
    ],
)
def test_a_gap_is_explained(request_: Request, offers: list[WorkerOffer], expected: str) -> None:
    """It names what is missing, how much there is, and what to do."""
    import re

    assert re.search(expected, explain_gap(request_, offers))


def test_there_is_no_gap_where_it_fits_or_nobody_is_there_yet() -> None:
    """A cluster without workers may still get some."""
    assert explain_gap(Request(gpus=1), [DECLARED]) == ""
    assert explain_gap(Request(gpus=1), []) == ""


def test_workers_that_declare_nothing_beside_others_are_named() -> None:
    """They take no part, and the run can say so."""
    assert idle_workers(Request(), [PLAIN, DECLARED]) == ["plain"]
    assert idle_workers(Request(), [PLAIN]) == []


def test_somebody_has_to_count_where_workers_would_execute_more_than_fits() -> None:
    """Threads and declarations bound what a worker executes at once; what else is asked for does not."""
    limited = WorkerOffer(address="limited", nthreads=4, memory_limit=2 * GIB)
    assert not is_counted(Request(), [limited])
    assert is_counted(Request(cpus=2), [limited])
    assert is_counted(Request(memory=GIB), [limited])
    assert not is_counted(Request(memory=GIB // 4), [limited])
    declared = WorkerOffer(address="declared", nthreads=4, resources={"CPU": 4, "MEMORY": 2 * GIB})
    assert not is_counted(Request(cpus=2, memory=GIB), [declared])


def test_the_share_of_a_slot() -> None:
    """What is declared goes before the limit, and a worker without either has a part of the machine."""
    assert memory_share(PLAIN) == 2 * GIB
    assert memory_share(PLAIN, whole=True) == 8 * GIB
    assert memory_share(DECLARED, whole=True) == 4 * GIB
    assert memory_share(WorkerOffer(address="a", nthreads=2)) > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 GiB", 2 << 30), ("2GB", 2 * 10**9), ("1.5 kB", 1500), ("5k", 5000), ("1e9", 10**9), ("3 MiB", 3 << 20), (" 7 B ", 7), (12, 12),
        ("1 tib", 1 << 40), (".5 kib", 512), ("2 Gi", 2 << 30),
    ],
)  # fmt: skip
def test_sizes(text: str | int, expected: int) -> None:
    """Sizes are read as Dask reads them."""
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "2 foos", "2 GiB 3 MiB", "-1", True, None, float("nan"), [], "1e999"])
def test_what_is_no_size_is_refused(text: object) -> None:
    """With an example of what is one."""
    with pytest.raises(WorkloadError, match="2 GiB"):
        parse_bytes(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10 min", 600), ("90s", 90), ("1h 30min", 5400), ("1.5 h", 5400), ("500ms", 0.5), ("2 days", 172800), ("1m", 60), (3, 3), ("7", 7),
        (datetime.timedelta(hours=1), 3600), ("20 µs", 2e-5), ("1 week", 604800),
    ],
)  # fmt: skip
def test_times(text: str | float, expected: float) -> None:
    """Times are read as Dask reads them, and "min" too."""
    assert parse_seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "ten", "10 lightyears", "-3 s", True, None])
def test_what_is_no_time_is_refused(text: object) -> None:
    """With an example of what is one."""
    with pytest.raises(WorkloadError, match="10 min"):
        parse_seconds(text)  # type: ignore[arg-type]


def test_sizes_for_a_person() -> None:
    """In the largest unit that leaves a number above one."""
    assert [format_bytes(size) for size in (5, 2 << 30, 1536, 3 << 40)] == ["5 B", "2 GiB", "1.5 KiB", "3 TiB"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cpus": 0}, "cpus=0"),
        ({"cpus": "2"}, "cpus='2'"),
        ({"cpus": True}, "cpus=True"),
        ({"cpus": float("inf")}, "cpus=inf"),
        ({"cpus": float("nan")}, "cpus=nan"),
        ({"cpus": 10**400}, "cpus=1000"),
        ({"memory": 10**400}, "1000"),
        ({"timeout": float("nan")}, "nan"),
        ({"gpus": -1}, "gpus=-1"),
        ({"gpus": 1.5}, "whole devices, such as gpus=2, or a share"),
        ({"gpus": 0.001}, "gpus=0.001"),
        ({"gpus": 1, "isolation": "thread"}, "gpus= needs a process of its own"),
        ({"memory": 2}, "2 GiB"),
        ({"memory": "lots"}, "lots"),
        ({"timeout": 0}, "timeout=0"),
        ({"resources": {"GPU": 1}}, "gpus="),
        ({"resources": {"cpu": 1}}, "cpus="),
        ({"resources": {"SCRATCH": 0}}, "SCRATCH"),
        ({"resources": ["SCRATCH"]}, "SCRATCH"),
        ({"resources": ("SCRATCH", 20)}, r"resources=\('SCRATCH', 20\): say names and amounts"),
        ({"resources": {1: 1}}, "names are text"),
        ({"retries": -1}, "retries=-1"),
        ({"retries": "3"}, "retries='3'"),
        ({"retries": 1.5}, "retries=1.5"),
        ({"priority": 1.5}, "priority=1.5"),
        ({"priority": "hihg"}, "is 'high' meant"),
        ({"uses": {"licence": 0}}, "licence"),
        ({"uses": ["licence"]}, r"uses=\['licence'\]: say names and amounts, as uses={\"licence\": 1}"),
        ({"uses": {" ": 1}}, "names are text"),
        ({"isolation": "container"}, "container"),
        ({"version": ""}, "version=''"),
        ({"version": True}, "version=True"),
        ({"group": 0}, "group=0"),
        ({"idempotent": "no"}, "idempotent='no'"),
        ({"initializer": 3}, "initializer=3"),
        ({"isolation": "thread", "timeout": 5}, "timeout="),
        ({"isolation": "thread", "memory": "2 GiB"}, "memory="),
        ({"idempotent": False, "group": 4}, "group="),
        ({"idempotent": False, "retries": 4}, "retries="),
    ],
)
def test_requirements_that_make_no_sense_are_refused(given: dict[str, object], words: str) -> None:
    """At once, and the error names what was given."""
    with pytest.raises(WorkloadError, match=words):
        Requirements.of(given)


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    """So that a slip of the pen costs no look into the documentation."""
    with pytest.raises(UsageError, match="is memory= meant"):
        Requirements.of({"memroy": "2 GiB"})


def test_requirements_in_plain_units() -> None:
    """Sizes are bytes, times seconds, resources sorted, versions text; what was not given stays."""
    made = Requirements.of({"memory": "2 GiB", "timeout": "10 min", "resources": {"B": 1, "A": 2}, "version": 3})
    named = Requirements.of({"priority": "high", "uses": {"licence": 1, "api": 2}})
    assert (named.priority, named.uses) == (10, (("api", 2.0), ("licence", 1.0)))
    assert (made.memory, made.timeout, made.resources, made.version) == (2 << 30, 600.0, (("A", 2.0), ("B", 1.0)), "3")
    again = Requirements.of({"cpus": 2, "resources": made.resources}, made)
    assert (again.cpus, again.memory, again.resources) == (2.0, 2 << 30, made.resources)
    assert Requirements.of({"memory": None}, made).memory is None
