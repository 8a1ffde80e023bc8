"""The files around the library agree with each other."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if not path.suffix and path.is_file())


def pins(name: str) -> dict[str, list[Requirement]]:
    """Canonical name -> pins; several where they hold for different Pythons."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def required(*extras: str) -> list[Requirement]:
    """What the library needs, and each of ``extras``."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


def lower_bound(requirement: Requirement) -> str:
    """The version in ``>=`` of ``requirement``."""
    (bound,) = (part.version for part in requirement.specifier if part.operator == ">=")
    return bound


def test_constraints_pin_every_direct_dependency() -> None:
    """What is installed for tests is pinned to one version, and the library's own bounds allow it."""
    pinned = pins("constraints.txt")
    for requirement in required("test", "check"):
        for pin in pinned[canonicalize_name(requirement.name)]:
            (version,) = (part.version for part in pin.specifier if part.operator == "==")
            assert requirement.specifier.contains(version), f"{pin} is outside {requirement}"


def test_oldest_constraints_are_the_lower_bounds() -> None:
    """``make test-oldest`` tests exactly what pyproject.toml promises."""
    pinned = pins("constraints-oldest.txt")
    for requirement in required("test"):
        (pin,) = pinned[canonicalize_name(requirement.name)]
        assert pin.specifier.contains(lower_bound(requirement)), f"{pin} is not the bound of {requirement}"


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_constraints_hold_names_and_versions_only(name: str) -> None:
    """A constraints file says nothing of where packages come from."""
    for line in (ROOT / name).read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r'([A-Za-z0-9_.-]+==[0-9a-z.]+(; python_version (<|>=) "3\.\d+")?)?', line), line


def test_every_target_is_described_and_has_its_script() -> None:
    """``make`` alone lists every target, and each target is one script."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    described = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert described == targets
    assert targets - {"help"} <= {path.name for path in SCRIPTS}


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_scripts_stop_at_the_first_error(path: Path) -> None:
    """A script is executable, correct to its shell, and never goes on after a failure."""
    assert os.access(path, os.X_OK)
    assert "\nset -euo pipefail\n" in path.read_text()
    subprocess.run(["bash", "-n", path], check=True)


def test_the_version_is_said_once() -> None:
    """The package, its metadata and the newest entry of the changelog name one version."""
    import dcompute

    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert dcompute.__version__ == PROJECT["version"] == newest[1]
