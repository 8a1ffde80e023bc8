"""The documentation is true: its examples run, its links lead somewhere, its tables are complete."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import dcompute
from tests.acceptance.pages import CHECKED, EXECUTED, PAGES, PROSE, ROOT, blocks, script, steps

REFERENCE = (ROOT / "docs" / "reference.md").read_text()

#: Commands in ``console`` blocks, and the test that executes them.
TYPED = {
    "make demo": ".ci/run",
    "make test": ".ci/run",
    "pip install .": "test_wheel.py",
}

Python = Callable[..., "subprocess.CompletedProcess[str]"]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_block_is_silently_skipped(page: Path) -> None:
    """A block is executed, checked, plain prose, typed in some other test, or says why not."""
    for block in blocks(page):
        if block.reason or block.language in (*EXECUTED, *CHECKED, *PROSE):
            continue
        assert block.language == "console", f"{block}: nobody knows what to do with a block of {block.language!r}"
        unknown = [line for line in block.code.splitlines() if line not in TYPED]
        assert not unknown, f"{block}: nobody executes {unknown}"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in PAGES if steps(page)], ids=name_of)
def test_examples_run(page: Path, tmp_path: Path, leaves_nothing: None) -> None:
    """A reader who types a page from top to bottom sees no error, and no process of it is left."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for number, (language, group) in enumerate(steps(page), 1):
        file = tmp_path / f"{page.stem}_{number}.{'py' if language == 'python' else 'sh'}"
        file.write_text(script(group))
        command = (
            [sys.executable, "-W", "error::DeprecationWarning:__main__", file]
            if language == "python"
            else ["bash", "-euo", "pipefail", file]
        )
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PATH": path}, timeout=240, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{group[0]} to {group[-1]}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def test_first_script_of_the_readme_runs_as_it_stands(python: Python, tmp_path: Path) -> None:
    """The first script needs no guard, no folder and no cluster, and prints what the page says it prints."""
    (tmp_path / "first.py").write_text(blocks_of("README.md")[0])
    done = python("first.py")
    assert done.returncode == 0, done.stderr
    assert "4,999 succeeded" in done.stdout
    assert "0 is not a natural number" in done.stdout
    again = python("first.py")
    assert again.returncode == 0, again.stderr
    assert "up to date" in again.stdout


def test_quickstart_is_the_readme_s_first_script() -> None:
    """What is shown and what lies in examples/ is one script."""
    assert (ROOT / "examples" / "quickstart.py").read_text() == blocks_of("README.md")[0]


def blocks_of(page: str) -> list[str]:
    return [block.code for block in blocks(ROOT / page) if block.language == "python"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the repository finds it, and the heading in it where it names one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in {_anchor(line) for line in found.read_text().splitlines() if line.startswith("#")}, f"{page.name}: {target}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


def test_settings_in_examples_are_settings() -> None:
    """A YAML example with settings passes the check that a user's file must pass."""
    import dask

    from dcompute.config import settings

    examples = [block for page in PAGES for block in blocks(page) if block.language == "yaml"]
    assert examples
    for block in examples:
        with dask.config.set(yaml.safe_load(block.code)):
            settings()


def test_reference_has_every_public_name() -> None:
    """Each name of the package's face has its place in the reference."""
    missing = [name for name in dcompute.__all__ if f"dc.{name}" not in REFERENCE]
    assert missing == []


def test_reference_has_every_setting() -> None:
    """Each setting has a row with its default, and no row is without its setting."""
    from dcompute.config import defaults

    section = REFERENCE.partition("\n## Settings\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z.-]+)` \| `?([^`|]*?)`? \|", section, re.MULTILINE)
    assert dict(rows) == {name: _spelled(value) for name, value in _leaves(defaults(), "")}


def _leaves(tree: dict[str, object], path: str) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in tree.items():
        found += _leaves(value, f"{path}{name}.") if isinstance(value, dict) and value else [(f"{path}{name}", value)]
    return found


def _spelled(value: object) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool | dict) else str(value)


def test_reference_has_every_column() -> None:
    """Each column of the attempts table is explained, in the table's order."""
    from dcompute.records import ATTEMPT_COLUMNS

    table = REFERENCE.partition("## Columns of the attempts table")[2].partition("\n## ")[0]
    explained = [name for names in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", names)]
    assert explained == list(ATTEMPT_COLUMNS)


def test_reference_has_every_error() -> None:
    """The tree of errors in the reference is that of the code, and the code has no class outside of it."""
    from dcompute import errors

    tree = textwrap.dedent((errors.__doc__ or "").partition("::\n\n")[2].partition("\n\n")[0])
    assert f"```text\n{tree}\n```" in REFERENCE
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.DcomputeError)}
    assert set(re.findall(r"^[│├└─ ]*(\w+)", tree, re.MULTILINE)) == classes


def test_reference_has_every_command_and_option() -> None:
    """Each command of the command line and each of its options is there."""
    from dcompute.cli.main import dcompute as group

    table = REFERENCE.partition("## Command line")[2].partition("\n## ")[0]
    for name, command in group.commands.items():
        assert f"dcompute {name}" in table
        for parameter in command.params:
            for option in [*parameter.opts, *parameter.secondary_opts] if parameter.param_type_name == "option" else []:
                assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", table), f"dcompute {name} {option}"


def test_reference_has_every_exit_code() -> None:
    """Each exit code is explained."""
    from dcompute.cli.exits import Exit

    table = REFERENCE.partition("## Exit codes")[2].partition("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == [code.value for code in Exit]
