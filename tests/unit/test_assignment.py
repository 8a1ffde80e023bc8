"""What ``dc.map`` refuses before anything is started, and how a person is told to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import pytest

from dcompute.assignment import Assignment, Options
from dcompute.errors import UsageError
from dcompute.records import Kind
from dcompute.window import WindowConfig


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": "large"}, "batch_size='large'"),
        ({"errors": "ignore"}, "errors='ignore'"),
        ({"on_change": "redo"}, "on_change='redo'"),
        ({"max_failures": -1}, "max_failures=-1"),
        ({"max_failures": 2.5}, "max_failures=2.5"),
        ({"max_failures": True}, "max_failures=True"),
        ({"max_failures": float("nan")}, "max_failures=nan"),
        ({"max_failures": float("inf")}, "max_failures=inf"),
        ({"max_failures": "5%"}, "max_failures='5%'"),
        ({"weight": 10**400}, "weight=1"),
        ({"weight": 1e-9}, "weight=1e-09"),
        ({"ageing": "1e-300"}, "ageing='1e-300'"),
        ({"retry_failed": "crashed"}, "retry_failed='crashed'"),
        ({"retry_failed": ["timeout", "slow"]}, "retry_failed='slow'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(options: dict[str, Any], told: str) -> None:
    """The error has the option and what was given."""
    with pytest.raises(UsageError, match=told.replace("(", r"\(")):
        Options(**options).check()


def test_what_goes_again_by_itself() -> None:
    """Failures of the world go again, those of the item stay; nothing does with "never"."""
    assert Options().kinds_again() == {Kind.TRANSIENT, Kind.RECOVERABLE, Kind.INFRASTRUCTURE, Kind.CANCELLED}
    assert Options(retry_failed="never").kinds_again() is None


def test_what_goes_again_when_asked() -> None:
    """All kinds, or those that are named beside the usual ones; stopping at errors implies all."""
    assert Options(retry_failed=True).kinds_again() == frozenset(Kind)
    assert Options(errors="raise").kinds_again() == frozenset(Kind)
    assert Options(retry_failed="timeout").kinds_again() == Options().kinds_again() | {Kind.TIMEOUT}
    assert Options(retry_failed=("timeout", "crash")).kinds_again() == Options().kinds_again() | {Kind.TIMEOUT, Kind.CRASH}


def test_what_may_run_once_goes_again_only_when_asked() -> None:
    """With ``idempotent=False`` no kind goes by itself."""
    assert Options().kinds_again(idempotent=False) == frozenset()
    assert Options(errors="raise").kinds_again(idempotent=False) == frozenset()
    assert Options(retry_failed="infrastructure").kinds_again(idempotent=False) == {Kind.INFRASTRUCTURE}


def test_settings_reach_the_window(tmp_path: Path) -> None:
    """What is turned off in Dask's configuration is off in the run."""

    def config() -> WindowConfig:
        given = {"options": Options(), "params": None, "key": None, "modules": (), "seed": 0, "name": None, "client": None}
        return Assignment.of(len, ["a"], tmp_path / "d", **given).window_config()

    assert config().twins
    with dask.config.set({"dcompute.window.twins": False}):
        assert not config().twins
