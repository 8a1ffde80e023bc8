"""The files around the library agree with each other."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
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


def needed_in_turn(*extras: str) -> set[str]:
    """Canonical names of all that is installed here because the library or one of ``extras`` needs it."""
    found: set[tuple[str, ...]] = set()
    waiting = required(*extras)
    while waiting:
        requirement = waiting.pop()
        one = (canonicalize_name(requirement.name), *sorted(requirement.extras))
        if one not in found:
            with suppress(metadata.PackageNotFoundError):  # an extra that this environment is made without
                below = [Requirement(line) for line in metadata.requires(one[0]) or ()]
                waiting += [need for need in below if applies(need, "", *one[1:])]
                found.add(one)
    return {name for name, *_ in found}


def applies(requirement: Requirement, *extras: str) -> bool:
    """Whether a requirement holds on this Python, for any of ``extras``."""
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)


def sources() -> Iterator[Path]:
    """Every file of the project: nothing that was made, and nothing hidden but ``.ci``."""
    made = {ROOT / "demo" / "source", ROOT / "demo" / "dataset"}
    for top in (".ci", "benchmarks", "dcompute", "demo", "docs", "examples", "scripts", "tests"):
        for folder, below, names in os.walk(ROOT / top):
            below[:] = [name for name in below if name != "__pycache__" and Path(folder, name) not in made]
            yield from (Path(folder, name) for name in names)
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.name != ".git")


def imported(folder: Path) -> set[str]:
    """Top-level names of what the modules below ``folder`` import from elsewhere, inside functions too."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names


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


def test_constraints_pin_what_is_needed_in_turn() -> None:
    """What installs itself along with a dependency is held still too: tomorrow's environment is today's."""
    (oldest,) = pins("constraints-oldest.txt")["dask"]
    name = "constraints-oldest.txt" if oldest.specifier.contains(metadata.version("dask")) else "constraints.txt"
    assert needed_in_turn("test", "check") - set(pins(name)) == set(), f"missing in {name}"


def test_the_library_imports_only_what_it_declares() -> None:
    """Where only the library is installed, all that it imports is there."""
    extras = ("polars", "duckdb", "report", "checks", "tls", "slurm", "gpu")
    declared = {canonicalize_name(requirement.name) for requirement in required(*extras)}
    # Dask's extra has a package of its own; PyYAML, dask-jobqueue and nvidia-ml-py have other names as modules;
    # distributed is made of Tornado.
    declared |= {"dcompute", "distributed", "yaml", "dask_jobqueue", "pynvml", "tornado"}
    # A notebook brings IPython along, and the storage that needs it azure.
    assert imported(ROOT / "dcompute") - declared - {"IPython", "azure"} == set()


def test_the_oldest_python_is_said_alike() -> None:
    """Metadata, ruff and mypy hold the code to the same oldest Python."""
    named = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in PROJECT["classifiers"])
    oldest = min((found[1] for found in named if found), key=lambda version: int(version.partition(".")[2]))
    assert PROJECT["requires-python"] == f">={oldest}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


def test_no_file_says_where_packages_come_from() -> None:
    """Registries are a matter of whoever installs: no file has an address of one."""
    pattern = re.compile(rb"index[-_]url|find[-_]links|trusted[-_]host|pypi[.](org|python)|files[.]pythonhosted|://[^\s\"']+/simple\b")
    assert [path.relative_to(ROOT).as_posix() for path in sources() if pattern.search(path.read_bytes())] == []


def test_stores_are_tested_with_the_oldest_client_that_is_allowed() -> None:
    """What speaks to object stores depends on the inside of its clients: each extra begins at the version that is tested."""
    pinned = pins("constraints-stores.txt")
    for requirement in required("s3", "azure", "gcs"):
        if requirement.name in ("s3fs", "adlfs", "gcsfs"):
            (pin,) = pinned[canonicalize_name(requirement.name)]
            assert pin.specifier.contains(lower_bound(requirement)), f"{pin} is not the bound of {requirement}"
    for requirement in required("servers"):
        for pin in pinned[canonicalize_name(requirement.name)]:
            (version,) = (part.version for part in pin.specifier if part.operator == "==")
            assert requirement.specifier.contains(version), f"{pin} is outside {requirement}"


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt", "constraints-stores.txt"])
def test_constraints_hold_names_and_versions_only(name: str) -> None:
    """A constraints file says nothing of where packages come from."""
    for line in (ROOT / name).read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r'([A-Za-z0-9_.-]+==[0-9a-z.]+(; python_version (<|>=) "3\.\d+")?)?', line), line


def test_every_target_is_described_and_has_its_script() -> None:
    """``make`` alone lists every target, and each target is one script."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(" ".join(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)).split())
    described = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert described == targets
    assert targets - {"help"} <= {path.name for path in SCRIPTS}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_used(path: Path) -> None:
    """A script is a target of its own, or another script calls it."""
    others = {*SCRIPTS, ROOT / "Makefile"} - {path}
    assert any(re.search(rf"\./scripts/{path.name}\b(?!-)", other.read_text()) for other in others)


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
