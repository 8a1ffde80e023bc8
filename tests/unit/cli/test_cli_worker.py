from __future__ import annotations

import json
from pathlib import Path

import dask
import pytest
from click.testing import CliRunner

from dcompute.cli.main import dcompute


def test_the_plan_says_what_is_declared_and_how_to_start_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the preload would find, with labels and the end of the job; nothing is claimed."""
    monkeypatch.setenv("FAKE_DEVICES", "a,b,c")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "2000000000")
    claims = tmp_path / "claims"
    wanted = {"devices": ["dcompute.testing:FakeDevices"], "labels": {"room": "b12"}, "claims": str(claims)}
    with dask.config.set({f"dcompute.worker.{name}": value for name, value in wanted.items()}):
        text = CliRunner().invoke(dcompute, ["worker", "--plan"])
        found = json.loads(CliRunner().invoke(dcompute, ["worker", "--plan", "--json"]).stdout)
    assert text.exit_code == 0, text.output
    assert "GPU=3" in text.output
    assert "room: b12" in text.output
    assert "until     2033-05-1" in text.output
    assert text.output.rstrip().endswith("--preload dcompute.worker")
    assert found["declares"]["GPU"] == 3
    assert found["labels"]["room"] == "b12"
    assert found["until"] == 2e9
    assert found["command"] in text.output
    assert not claims.exists()


def test_without_plan_it_says_how_a_worker_is_started() -> None:
    """The command starts nothing."""
    done = CliRunner().invoke(dcompute, ["worker"])
    assert done.exit_code == 2
    assert "--plan" in done.output
    assert "dask worker --preload dcompute.worker" in done.output
