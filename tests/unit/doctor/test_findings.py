"""What facts mean to the doctor."""

from __future__ import annotations

import pytest

from dcompute.doctor.facts import about
from dcompute.doctor.findings import (
    FAILURE,
    OK,
    WARNING,
    of_clock,
    of_import,
    of_placing,
    of_resources,
    of_silence,
    of_storage,
    of_versions,
    one_a_place,
    summed,
)

HERE = {"python": "3.11", "dask": "2026.8.0", "distributed": "2026.8.0", "dcompute": "0.1.0", "cloudpickle": "3.1.2", "pyarrow": "26.0.1"}
TRIAL = {"problem": None, "sees": True, "bytes": 8 << 20, "write_seconds": 0.1, "read_seconds": 0.1}


def test_the_same_versions_are_no_finding() -> None:
    """What only one side has is none either: a worker needs no package that the driver has not."""
    assert of_versions("w", HERE, {**HERE, "s3fs": "2026.9.0"}) == []


@pytest.mark.parametrize("name", ["python", "dask", "distributed", "dcompute"])
def test_versions_that_must_be_alike_are_failures(name: str) -> None:
    """The line names package, both versions, and what to install there."""
    (found,) = of_versions("w", HERE, {**HERE, name: "1.0"}, executable="/opt/python")
    assert (found.status, found.where) == (FAILURE, "w")
    assert f"{name} 1.0 (here {HERE[name]})" in found.text
    assert "/opt/python -m pip install" in found.todo


def test_versions_that_ought_to_be_alike_are_warnings() -> None:
    """One line for all of them."""
    (found,) = of_versions("w", HERE, {**HERE, "cloudpickle": "2.0", "pyarrow": "20.0"})
    assert found.status == WARNING
    assert "cloudpickle 2.0 (here 3.1.2), pyarrow 20.0 (here 26.0.1)" in found.text
    assert "cloudpickle==3.1.2 pyarrow==26.0.1" in found.todo


def test_a_scheduler_needs_neither_dcompute_nor_arrow() -> None:
    """And another Dask there is a failure."""
    assert of_versions("scheduler", HERE, {name: HERE[name] for name in ("python", "dask", "distributed")}, scheduler=True) == []
    (found,) = of_versions("scheduler", HERE, {**HERE, "distributed": "2025.1.0"}, scheduler=True)
    assert found.status == FAILURE


def test_a_worker_without_dcompute_is_named_with_what_to_install() -> None:
    """On which host, by which Python, and in which version."""
    facts = {"host": "node7", "executable": "/opt/python", "import_problem": "ModuleNotFoundError: No module named 'dcompute'"}
    (found,) = of_import("w", facts, "0.1.0")
    assert found.status == FAILURE
    assert "node7" in found.text
    assert "No module named 'dcompute'" in found.text
    assert found.todo.endswith("/opt/python -m pip install dcompute==0.1.0")
    assert of_import("w", {"import_problem": None}, "0.1.0") == []


@pytest.mark.parametrize(
    ("skew", "uncertain", "status"), [(0.5, 0.1, None), (-1.9, 0.0, None), (10.0, 9.0, None), (5.0, 0.1, WARNING), (-4000.0, 1.0, FAILURE)]
)
def test_a_clock_is_wrong_where_that_is_sure(skew: float, uncertain: float, status: str | None) -> None:
    """What a slow answer may explain is no finding."""
    assert [found.status for found in of_clock("w", skew, uncertain)] == ([] if status is None else [status])
    if status is not None:
        assert ("ahead of" if skew > 0 else "behind") in of_clock("w", skew, uncertain)[0].text


def test_slow_placing_is_a_warning() -> None:
    """Half a second a task."""
    assert of_placing("w", 0.05) == []
    assert of_placing("w", 1.5)[0].status == WARNING


def test_a_worker_that_is_busy_is_told_from_one_that_is_frozen() -> None:
    """The first needs nothing but patience."""
    assert of_silence("w", {"nthreads": 2, "metrics": {"executing": 2}}, 5).status == WARNING
    assert of_silence("w", {"nthreads": 2, "metrics": {"executing": 1}}, 5).status == FAILURE
    assert of_silence("w", {}, 5).status == FAILURE


@pytest.mark.parametrize(
    ("changed", "status"),
    [({}, OK), ({"problem": "ignores it"}, FAILURE), ({"sees": False}, FAILURE), ({"read_seconds": 60.0}, WARNING), ({"sees": None}, OK)],
)
def test_what_a_trial_of_a_storage_means(changed: dict[str, object], status: str) -> None:
    """Another storage of the same name is as bad as one that fails; a slow one is a warning."""
    (found,) = of_storage("w", {**TRIAL, **changed}, "/data")
    assert found.status == status


def test_workers_that_declare_less_than_others_are_named() -> None:
    """They would take no part, and nobody would know why; GPUs are not everywhere."""
    both = {"a": {"CPU": 4.0, "MEMORY": 1.0, "GPU": 1.0}, "b": {"CPU": 4.0, "MEMORY": 1.0}}
    assert [found.status for found in of_resources(both, 8, 2**34)] == [OK]
    (found,) = of_resources({**both, "c": {}}, 12, 2**34)
    assert (found.status, found.where) == (WARNING, "c")
    assert "CPU, GPU, MEMORY" in found.text
    assert of_resources({"c": {}}, 4, 0)[0].status == OK


def test_many_workers_that_are_well_are_one_line() -> None:
    """And none where nobody is."""
    wrong = of_placing("b", 2.0)
    assert [found.where for found in summed("placing", "quick", ["a", "b", "c"], wrong)] == ["2 workers", "b"]
    assert summed("placing", "quick", ["b"], wrong) == wrong


def test_a_storage_is_tried_once_a_host_and_python() -> None:
    """Not by each of a hundred workers at once."""
    facts = {f"{host}-{number}": {"host": host, "executable": "python"} for host in "abc" for number in range(9)}
    assert one_a_place(facts, most=16) == ["a-0", "b-0", "c-0"]
    assert one_a_place(facts, most=2) == ["a-0", "b-0"]


def test_this_process_can_say_what_it_is() -> None:
    """As a worker does, in words that need no dcompute to be read."""
    import dcompute

    found = about()
    assert found["import_problem"] is None
    assert found["versions"]["dcompute"] == dcompute.__version__
    assert "." in found["versions"]["python"]
