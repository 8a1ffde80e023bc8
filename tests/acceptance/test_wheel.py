"""What is built is what works: the wheel, installed by itself, without the checkout."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as an index would get it."""
    folder = tmp_path_factory.mktemp("dist")
    # Without isolation the pinned build backend is used, and nothing is downloaded.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with the wheel; what it depends on is borrowed from this one."""
    folder = tmp_path_factory.mktemp("wheel") / "with a space"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    # A .pth of a folder named in a .pth is not read: the editable install of the checkout stays behind.
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every module and data file of the package is in the wheel; no tests, no demo."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dcompute").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert names == package
    assert {"dcompute/dcompute.yaml", "dcompute/py.typed"} <= names


def test_metadata_says_what_an_index_shows(wheel: Path) -> None:
    """Licence, Python and the README are in the metadata, and the licence's text in the wheel."""
    found = metadata(wheel)
    assert found["License-Expression"] == "BSD-3-Clause"
    assert found["Requires-Python"] == ">=3.11"
    assert str(found.get_payload()).startswith("# dcompute")
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.endswith("/LICENSE") for name in archive.namelist())


def test_installed_package_is_the_wheel_s(installed: Path, tmp_path: Path) -> None:
    """The installed package is imported from its own environment, not from the checkout."""
    place = run(installed, "-c", "import dcompute; print(dcompute.__file__)", cwd=tmp_path).strip()
    assert Path(place).is_relative_to(installed.parents[1])


def test_quickstart_runs_on_the_wheel(installed: Path, tmp_path: Path, leaves_nothing: None) -> None:
    """The first script of the README and the command line work where only the wheel is installed."""
    assert "4,999 succeeded" in run(installed, ROOT / "examples" / "quickstart.py", cwd=tmp_path)
    command = installed.with_name("dcompute")
    assert os.access(command, os.X_OK)
    assert "permanent" in run(command, "failures", "collatz", "--by", "kind", cwd=tmp_path)
