"""Profiles of kind slurm: what is refused, and what Slurm and the workers are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dcompute.clusters.profiles import checked
from dcompute.clusters.slurm import Settings, _arguments, _job, clock, open_cluster
from dcompute.errors import ClusterError, SettingsError

LEAST: dict[str, Any] = {"kind": "slurm", "cores": 8, "memory": "32 GiB", "walltime": "2 h"}


def profile(**more: Any) -> Settings:
    found = checked({**LEAST, **more}, "the profile")
    assert isinstance(found, Settings)
    return found


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"walltime": "soon"}, "the profile.walltime"),
        ({"processes": 3}, "share evenly"),
        ({"gpus": 1, "processes": 2}, "share evenly"),
        ({"host": "10.0.0.1", "interface": "ib0"}, "host or interface"),
        ({"leave": "2 h"}, "leave below walltime"),
        ({"workers": 2, "adapt": {"max": 4}}, "workers or adapt"),
        ({"adapt": {"min": 5, "max": 4}}, "min <= max"),
        ({"adapt": {"max": 0}}, "the profile.adapt.max"),
        ({"partition": "main"}, "the profile.partition is not a setting"),
    ],
)
def test_a_wrong_profile_is_refused(more: dict[str, Any], words: str) -> None:
    """The message names the setting, or what does not go together."""
    with pytest.raises(SettingsError, match=words):
        profile(**more)


def test_workers_leave_before_their_walltime_is_over() -> None:
    """A tenth of it before, at most five minutes; earlier and later by half of that, so that they do not leave all at once."""
    assert _arguments(profile())[2:6] == ["--lifetime", "6900s", "--lifetime-stagger", "150s"]
    assert _arguments(profile(walltime="10 min"))[2:6] == ["--lifetime", "540s", "--lifetime-stagger", "30s"]
    assert _arguments(profile(leave="1 min"))[2:6] == ["--lifetime", "7140s", "--lifetime-stagger", "30s"]
    assert _arguments(profile(walltime="60 s", leave="40 s"))[2:6] == ["--lifetime", "20s", "--lifetime-stagger", "5s"]
    assert "--lifetime" not in _arguments(profile(leave=0))


def test_a_job_asks_for_what_the_profile_says() -> None:
    """Processes share cores, memory and GPUs; a job is not started again by Slurm itself."""
    found = profile(processes=2, gpus=4, resources={"LICENCE": 1}, directives=["--exclusive"], queue="main", account="lab")
    told = _job(found)
    assert told["job_extra_directives"] == ["--no-requeue", "--gres=gpu:4", "--exclusive"]
    assert (told["queue"], told["account"], told["walltime"]) == ("main", "lab", "02:00:00")
    assert told["worker_extra_args"][-3:] == ["--resources", '"LICENCE=1"', "--no-dashboard"]
    offer = found.offer
    assert (offer.nthreads, offer.memory_limit, offer.resources) == (4, 16 << 30, {"LICENCE": 1.0, "GPU": 2.0})


def test_times_are_written_as_sbatch_reads_them() -> None:
    """Hours beyond a day are days."""
    assert [clock(seconds) for seconds in (59, 3600, 93784)] == ["00:00:59", "01:00:00", "1-02:03:04"]


def test_without_slurm_the_error_says_where_to_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a machine that has no sbatch nothing is started."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="no sbatch on this machine"):
        open_cluster(profile())


def test_the_folder_of_logs_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Slurm makes none; where it cannot be made, the profile is at fault."""
    assert _job(profile(logs=str(tmp_path / "a" / "b")))["log_directory"] == str(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be made"):
        _job(profile(logs=str(tmp_path / "file" / "b")))
