"""The public face: what is exported, what it costs to import, and errors that travel."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from typing import Any

import pytest

import dcompute as dc
from dcompute import errors

HEAVY = ("distributed", "dask", "pandas", "pyarrow", "bokeh", "numpy", "pydantic", "rich", "fsspec")
ERRORS = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, errors.DcomputeError)]


def test_every_public_name_is_there_and_in_its_order() -> None:
    """What ``__all__`` says is sorted, and each name can be had."""
    assert dc.__all__ == sorted(dc.__all__)
    assert all(getattr(dc, name) is not None for name in dc.__all__)
    assert set(dc.__all__) <= set(dir(dc))


def test_a_public_name_is_what_it_says_whatever_was_imported_before() -> None:
    """No module hides a function of its name."""
    code = (
        "import dcompute.run, dcompute.driver, dcompute.outlook; import dcompute as dc; print(callable(dc.workload), callable(dc.preview))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.split() == ["True", "True"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A typing mistake is told as Python tells it."""
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = dc.nothing_of_ours


def test_import_costs_little_and_loads_nothing_heavy() -> None:
    """Under 0.15 s, best of five, in a process of its own; the one timing that tests assert, since every script pays it."""
    code = (
        "import sys, time; began = time.perf_counter(); import dcompute; "
        f"print(time.perf_counter() - began, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    said = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout for _ in range(5)]
    assert all(line.partition(" ")[2].strip() == "[]" for line in said), said[0]
    assert min(float(line.partition(" ")[0]) for line in said) < 0.15


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_errors_survive_pickling_with_their_attributes(error: type[errors.DcomputeError]) -> None:
    """Every error can cross a process; without a message its docstring speaks."""
    parameters = inspect.signature(error.__init__).parameters
    given = {name: ("x", "y") if name == "types" else "x" for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    there = error("what is wrong", **given)
    here = pickle.loads(pickle.dumps(there))
    assert type(here) is error
    assert here.message == "what is wrong"
    assert {name: getattr(here, name) for name in given} == given
    assert error().message == (error.__doc__ or "").strip()


def test_the_tree_in_the_docstring_names_every_error() -> None:
    """What the module draws is what it holds."""
    drawn = errors.__doc__ or ""
    assert [error.__name__ for error in ERRORS if error.__name__ not in drawn] == []


@pytest.mark.parametrize("timeout", ["5", "5 s", True, float("nan"), [1]])
def test_a_timeout_of_wait_that_is_no_number_is_refused(timeout: object) -> None:
    """The error names the argument and what is wanted, and nothing is waited for."""
    from dcompute.run import Run

    nobody: Any = None
    with pytest.raises(errors.UsageError, match=r"timeout=.* is no number of seconds"):
        Run(nobody).wait(timeout)  # type: ignore[arg-type]


def test_who_checks_nothing_loads_nothing_for_it() -> None:
    """The making of parts loads neither checks nor what they need."""
    code = "import sys, dcompute, dcompute.worker.tables; print([name for name in sys.modules if 'checks.' in name or 'acero' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
