"""The page about stores is true: what it shows runs, on a server that it can be run on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from tests.acceptance.pages import ROOT, blocks
from tests.servers import Server, seaweedfs

_PYTHON = [block.code for block in blocks(ROOT / "docs" / "stores.md") if block.language == "python"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory):
    """SeaweedFS with the page's bucket."""
    with seaweedfs(tmp_path_factory.mktemp("lab")) as server:
        fsspec.filesystem("s3", **server.options, skip_instance_cache=True).mkdir("lab")
        yield server


def python(lab: Server, folder: Path, *words: str) -> str:
    """What Python writes that knows by its environment how to reach the server."""
    env = {**os.environ, "DASK_DCOMPUTE__STORAGE": json.dumps({"s3://lab/": lab.options})}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_first_example_runs(lab: Server, tmp_path: Path) -> None:
    """The first example makes a dataset on S3, and finds it up to date when it runs again."""
    (tmp_path / "first.py").write_text(_PYTHON[0])
    assert "200 succeeded" in (said := python(lab, tmp_path, "first.py"))
    assert "requests to storage" in said
    assert "up to date" in python(lab, tmp_path, "first.py")


def test_kit_runs_as_shown(lab: Server, tmp_path: Path) -> None:
    """The conformance kit runs for somebody else's server as the page says."""
    (tmp_path / "test_ours.py").write_text(_PYTHON[1])
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    assert "passed" in python(lab, tmp_path, "-m", "pytest", "-q", "-k", "creates_once or reads", "test_ours.py")


def test_missing_package_is_said_with_the_line_that_installs_it(tmp_path: Path) -> None:
    """Without s3fs the error says what to install, where."""
    (tmp_path / "s3fs.py").write_text("raise ImportError('there is no s3fs')")
    code = "import dcompute as dc; dc.open('s3://lab/areas')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert 'MissingExtraError: a dataset on s3:// needs s3fs: pip install "dcompute[s3]", here and on every worker' in done.stderr
