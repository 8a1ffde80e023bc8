"""Settings: defaults, where they may be set, and what an error says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dask
import pytest
from pydantic import ValidationError

from dcompute import config
from dcompute.errors import SettingsError


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch):
    """Settings of whoever runs the tests must not decide them."""
    for name in os.environ:
        if name.startswith("DASK_DCOMPUTE"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(dask.config, "paths", [])
    kept = dask.config.config.pop("dcompute", None)
    yield
    dask.config.config.pop("dcompute", None)
    if kept is not None:
        dask.config.config["dcompute"] = kept


def complaint(**given: object) -> str:
    """The message for settings given in the program, ``__`` standing for a dot."""
    with dask.config.set({f"dcompute.{name.replace('__', '.')}": value for name, value in given.items()}):
        with pytest.raises(SettingsError) as caught:
            config.settings()
        return caught.value.message


class TestDefaults:
    def test_hold_the_figures_of_the_design(self):
        """With nothing configured, the figures are those that the design page gives."""
        found = config.settings()
        assert (found.batch.min, found.batch.max, found.batch.long, found.batch.bytes) == (1, 5, 30, 1_000_000)
        assert (found.driver.commit_interval, found.driver.heartbeat, found.driver.requests) == (1, 5, 1)
        assert (found.batch.bytes, found.window.waiting, found.window.alike_share) == (1_000_000, 100_000, 0.95)

    def test_are_in_dasks_configuration(self):
        """``dask config`` and ``dask.config.get`` know the defaults once settings were asked for."""
        config.settings()
        assert dask.config.get("dcompute.worker.idle") == "60 s"

    def test_come_back_after_a_block_that_set_something(self):
        """The end of ``with dask.config.set`` removes what it added, and the defaults that came meanwhile are not lost."""
        with dask.config.set({"dcompute.metrics": "off"}):
            assert config.settings().metrics == "off"
        assert config.settings().metrics == "full"
        assert dask.config.get("dcompute.metrics") == "full"

    def test_cannot_be_changed_by_who_reads_them(self):
        """The records are frozen, and what ``defaults`` returns is a copy."""
        with pytest.raises(ValidationError):
            config.settings().batch.min = 3
        config.defaults()["batch"]["min"] = "9 s"
        assert config.defaults()["batch"]["min"] == "1 s"


class TestValues:
    @pytest.mark.parametrize(
        ("given", "seconds"),
        [("90 s", 90), ("10 min", 600), ("10 mins", 600), ("2 minutes", 120), ("1.5h", 5400), (7, 7), (0.5, 0.5), ("3", 3)],
    )
    def test_times_take_units(self, given, seconds):
        """A time is a number of seconds or a text with a unit."""
        with dask.config.set({"dcompute.worker.setup-timeout": given}):
            assert config.settings().worker.setup_timeout == seconds

    def test_names_take_hyphens_and_underscores(self):
        """As everywhere in Dask, ``setup_timeout`` is ``setup-timeout``."""
        with dask.config.set({"dcompute.worker.setup_timeout": 7}):
            assert config.settings().worker.setup_timeout == 7

    @pytest.mark.parametrize("text", [True, 1.1, None, {"a": "b"}])
    def test_a_label_that_is_no_text_is_refused(self, text):
        """YAML makes others than texts of ``yes``, ``1.10`` and nothing: a rule would look for them in vain."""
        with dask.config.set({"dcompute.worker.labels": {"spot": text}}), pytest.raises(SettingsError, match=r"spot.*put it in quotes"):
            config.settings()

    def test_an_unquoted_off_is_off(self):
        """YAML reads a bare ``off`` as false."""
        with dask.config.set({"dcompute.metrics": False}):
            assert config.settings().metrics == "off"

    @pytest.mark.parametrize("off", ["false", "off", "0"])
    def test_words_of_the_environment_turn_twins_off(self, off):
        """They are text there, and mean what they mean in a YAML file."""
        assert config.settings().window.twins
        with dask.config.set(dask.config.collect_env({"DASK_DCOMPUTE__WINDOW__TWINS": off})):
            assert not config.settings().window.twins

    def test_an_empty_section_leaves_the_defaults(self):
        """``worker:`` with nothing below it says nothing."""
        with dask.config.set({"dcompute.worker": None}):
            assert config.settings().worker.idle == 60

    def test_changes_are_seen_at_once(self):
        """The answer is kept only as long as the configuration stays the same."""
        first = config.settings()
        assert config.settings() is first
        with dask.config.set({"dcompute.worker.idle": 1}):
            assert config.settings().worker.idle == 1
        assert config.settings().worker.idle == 60


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "nearest"),
        [
            ("worker__idel", "worker.idle"),
            ("idle", "worker.idle"),
            ("batch__idle", "worker.idle"),
            ("metric", "metrics"),
            ("drivr__requests", "driver"),
        ],
    )
    def test_a_wrong_name_is_told_with_the_nearest_right_one(self, name, nearest):
        """Misspelt names and right names in the wrong section find the setting that was meant."""
        message = complaint(**{name: 3})
        assert "is not a setting" in message
        assert f"nearest right name is dcompute.{nearest}." in message

    def test_a_name_like_no_other_is_told_with_all_names(self):
        """Where nothing is near, the message lists what there is."""
        assert "worker.scratch" in complaint(zzzzqqq=1)

    def test_a_wrong_word_is_told_with_the_nearest_right_one(self):
        """A value that must be one of a few words is answered with the nearest of them."""
        message = complaint(metrics="ful")
        assert "dcompute.metrics is 'ful'" in message
        assert "Did you mean 'full'?" in message

    @pytest.mark.parametrize(
        ("name", "value", "part"),
        [
            ("worker__idle", "soon", '"10 min"'),
            ("worker__idle", -1, "greater than or equal to 0"),
            ("worker__idle", True, "number"),
            ("worker__idle", float("inf"), "finite"),
            ("batch__bytes", "3 foo", '"128 MB"'),
            ("local__threads", 0, "greater than or equal to 1"),
            ("local__threads", True, "integer"),
            ("worker", 3, "section"),
            ("batch__min", "9 s", "min <= max <= long"),
        ],
    )
    def test_a_wrong_value_is_told_with_what_it_must_be(self, name, value, part):
        """Every kind of wrong value has a message that names the setting and says what would be right."""
        message = complaint(**{name: value})
        assert message.startswith(f"dcompute.{name.split('__')[0]}")
        assert part in message

    def test_all_errors_come_at_once(self):
        """Two mistakes are two lines, not two attempts."""
        message = complaint(worker__idel=1, metrics="ful")
        assert len(message.splitlines()) == 2

    def test_set_in_a_program_is_told(self):
        """What no file and no variable holds was set by the program itself."""
        assert complaint(metrics="ful").endswith("Set in this program (dask.config.set).")

    def test_the_file_is_named(self, tmp_path, monkeypatch):
        """Of several YAML files the one that decided is named."""
        (tmp_path / "a.yaml").write_text("dcompute: {metrics: ful}")
        (tmp_path / "b.yaml").write_text("dcompute: {metrics: basc}")
        (tmp_path / "c.yaml").write_text("distributed: {}")
        monkeypatch.setattr(dask.config, "paths", [str(tmp_path)])
        assert str(tmp_path / "b.yaml") in complaint(metrics="basc")
        assert str(tmp_path / "a.yaml") in complaint(metrics="ful")

    def test_the_file_of_a_whole_section_is_named(self, tmp_path, monkeypatch):
        """A rule between two values names the file that set one of them."""
        (tmp_path / "a.yaml").write_text("dcompute:\n  batch:\n    min: 9 s\n")
        monkeypatch.setattr(dask.config, "paths", [str(tmp_path)])
        assert str(tmp_path / "a.yaml") in complaint(batch__min="9 s")

    @pytest.mark.parametrize("name", ["DASK_DCOMPUTE__WORKER__IDEL", "DASK_DCOMPUTE__METRICS"])
    def test_the_environment_variable_is_named(self, name):
        """In a process of its own, as users have it, the variable that is wrong is named."""
        code = "from dcompute import config; config.settings()"
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, name: "nonsense"}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert f"the environment variable {name}" in done.stderr.splitlines()[-1]

    @pytest.mark.parametrize("content", ["dcompute: [", "- a list"])
    def test_a_file_that_is_no_settings_file_is_named(self, tmp_path, content):
        """Dask refuses it while it is imported; for us it is a wrong setting like others."""
        (tmp_path / "torn.yaml").write_text(content)
        code = "from dcompute import config, errors\ntry: config.settings()\nexcept errors.SettingsError as error: print(error)"
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "DASK_CONFIG": str(tmp_path)}, capture_output=True, text=True, check=True
        )
        assert str(tmp_path / "torn.yaml") in done.stdout


def test_every_default_has_a_comment():
    """The file of defaults is the reference: each setting in it says what it is, or is the second of a pair."""
    lines = Path(config.DEFAULTS_FILE).read_text(encoding="utf-8").splitlines()
    bare = [line.split(":")[0].strip() for line in lines if ": " in line and "#" not in line]
    assert bare == ["max", "alike-of"]
