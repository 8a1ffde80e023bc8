"""The demo in small: what it shows at first, when it is run again, and after a file was changed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import dcompute as dc

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Demo:
    """The demo on a few packages of the standard library, always in the same folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.first = self.run()

    def run(self) -> str:
        """What it writes."""
        command = [sys.executable, ROOT / "demo" / "run.py", "--home", self.home, "--only", "json", "email"]
        done = subprocess.run(command, cwd=self.home, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def dataset(self) -> dc.Dataset:
        return dc.open(str(self.home / "dataset"))

    def names(self, file: str) -> set[str]:
        """The symbols that the dataset has of a file."""
        results = self.dataset().results()[["file", "qualified_name"]].compute()
        return set(results[results["file"] == file]["qualified_name"])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return Demo(tmp_path_factory.mktemp("a demo"))


def test_damaged_files_fail_and_nothing_else_does(demo: Demo) -> None:
    """Each planted file fails with its kind, every other one is indexed, and the demo exits with 0."""
    failures = demo.dataset().failures().compute()
    assert {Path(key).name: kind for key, kind in zip(failures["item_key"], failures["kind"], strict=True)} == {
        "cut_off.py": "permanent",
        "wrong_encoding.py": "permanent",
        "nul_bytes.py": "permanent",
        "too_deep.py": "permanent",
        "never_ends.py": "timeout",
    }
    assert "5 failed" in demo.first
    assert "json.decoder.JSONDecoder.decode" in demo.names("library/json/decoder.py")


def test_second_run_is_up_to_date_at_once(demo: Demo) -> None:
    """Run again, nothing is executed, and it takes less than ten seconds."""
    started = time.monotonic()
    assert "up to date" in demo.run()
    assert time.monotonic() - started < 10


def test_changed_file_is_redone_alone(demo: Demo) -> None:
    """After an edit just that file is indexed again: new symbols are there, those it had no more are gone."""
    file = demo.home / "source" / "library" / "json" / "decoder.py"
    file.write_text("def only_this():\n    pass\n")
    assert "1 succeeded" in demo.run()
    assert demo.names("library/json/decoder.py") == {"json.decoder", "json.decoder.only_this"}
