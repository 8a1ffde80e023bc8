"""What all tests share: a clean environment, and the check that nothing of ours outlives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

#: Variables of whoever runs the tests that would change what is tested.
FOREIGN = ("DASK_", "DCOMPUTE_", "AWS_", "AZURE_", "GOOGLE_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")

#: Every process that these tests start inherits it: other people's runs on the same machine are not taken for leaks.
TOKEN_NAME = "TEST_SESSION_OF_DCOMPUTE"
TOKEN = uuid.uuid4().hex

#: A guardian has seen the end of its worker and killed what is below it long before (seconds).
GRACE = 10.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="chaos tests with their full number of rounds")


def pytest_configure(config: pytest.Config) -> None:
    # A suite that is run after every change looks at few examples; make chaos looks at many.
    hypothesis.settings.register_profile("short", max_examples=30, deadline=None)
    hypothesis.settings.register_profile("long", max_examples=2000, deadline=None)
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "short")
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    os.environ[TOKEN_NAME] = TOKEN
    # What a shell runs in the background ignores Ctrl-C, and so would all that these tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What is repeated at random is chaos wherever it stands: `make chaos` finds it by the mark.
    for item in items:
        if "rounds" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.chaos)


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """What a test sets in ``os.environ`` ends with it."""
    before = dict(os.environ)
    yield
    for name in (os.environ.keys() ^ before.keys()) | {name for name in before if os.environ.get(name) != before[name]}:
        if name == "PYTEST_CURRENT_TEST":
            continue
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """``rounds(short, long)`` is how often to repeat what happens at random: ``long`` with ``--long``."""

    def choose(short: int, long: int) -> int:
        return long if request.config.getoption("--long") else short

    return choose


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``python(*arguments, within=60, cwd=tmp_path)`` runs this Python as a user would and gives what it wrote."""

    def run(*arguments: object, within: float = 60, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, timeout=within, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    return run


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert left_behind(GRACE) == []


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """Fails a test after which a process started by it is left that is not below this one."""
    yield
    assert left_behind(GRACE) == []


def left_behind(grace: float) -> list[str]:
    """Processes that these tests started and that lost whom they belong to, after up to ``grace`` seconds."""
    until = time.monotonic() + grace
    while (found := _orphans()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def _orphans() -> list[str]:
    # Warm children of in-process workers live as long as this process does; they are below it.
    ours = {os.getpid(), *(process.pid for process in psutil.Process().children(recursive=True))}
    return [text for process in psutil.process_iter() if process.pid not in ours and (text := _from_here(process))]


def _from_here(process: psutil.Process) -> str | None:
    try:
        if process.environ().get(TOKEN_NAME) == TOKEN and process.status() != psutil.STATUS_ZOMBIE:
            return f"{process.pid}: {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        pass  # it ended while it was looked at, or is nobody's business
    return None
