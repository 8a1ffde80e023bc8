"""The page /dcompute of Dask's dashboard in a real browser: it shows runs at work, hostile names stay text, and it stands in the menu."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster
from distributed.diagnostics.task_stream import rectangles
from playwright.sync_api import Browser, Page

import dcompute as dc
from dcompute.dashboard import show
from tests.processes import until

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


def wait_for_gate(number: int, gate: str) -> int:
    """Is at work until there is a file."""
    import os
    import time

    while number >= 50 and not os.path.exists(gate):
        time.sleep(0.05)
    return number


@dataclass
class Opened:
    """A page in a tab, and what the browser complained of."""

    page: Page
    said: list[str] = field(default_factory=list)


@pytest.fixture(scope="module", params=["preload", "show"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A scheduler whose dashboard has the page, added by a preload or by a client; its workers are threads of this process."""
    preload = {"scheduler_kwargs": {"preload": ["dcompute.dashboard"]}} if request.param == "preload" else {}
    where = {"protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, **where, **preload) as cluster,
        Client(cluster, set_as_default=False) as connected,
    ):
        if request.param == "show":
            assert show(connected) == link(connected)
            assert show(connected) == link(connected)  # twice does no harm
        connected.get_task_stream()  # from now on it is kept
        yield connected


@pytest.fixture(scope="module")
def run(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dc.Run]:
    """A run in the middle of its work, whose name means harm."""
    folder = tmp_path_factory.mktemp("run")
    gate, name = folder / "gate", f"flux {HOSTILE}"
    run = dc.map(wait_for_gate, range(200), folder / "dataset", params={"gate": str(gate)}, client=client, name=name, batch_size=10)
    until(lambda: run.status().done >= 40 and run.status().running, 60, "a run at work")
    yield run
    gate.touch()
    assert run.wait(60, progress="quiet")


def link(client: Client) -> str:
    return client.dashboard_link.rpartition("/")[0] + "/dcompute"


def opened(browser: Browser, url: str) -> Opened:
    found = Opened(browser.new_context(viewport={"width": 1400, "height": 1000}).new_page())
    found.page.on("console", lambda said: found.said.append(f"{said.type}: {said.text}") if said.type == "error" else None)
    found.page.on("pageerror", lambda error: found.said.append(f"error: {error}"))
    found.page.goto(url, wait_until="domcontentloaded")
    found.page.wait_for_selector("[data-root-id]", timeout=30_000)
    return found


def texts(page: Page) -> str:
    """All text that is shown, shadow roots searched too."""
    found: Any = page.evaluate(
        """() => {
            const found = [], look = (root) => root.childNodes.forEach((one) => {
                if (one.nodeType === Node.TEXT_NODE) found.push(one.textContent);
                if (one.shadowRoot) look(one.shadowRoot);
                if (!["STYLE", "SCRIPT"].includes(one.nodeName)) look(one);
            });
            look(document.body);
            return found.join("\\n");
        }"""
    )
    return str(found)


def test_the_page_shows_runs_at_work(browser: Browser, client: Client, run: dc.Run) -> None:
    """Workload, dataset, state and counts of a run, and what its class asks for; and the browser has nothing to complain of."""
    shown = opened(browser, link(client))
    until(lambda: run.id in texts(shown.page) and "running" in texts(shown.page), 30, "the run on the page")
    text = texts(shown.page)
    assert run.url in text
    assert "CPU=1" in text
    assert "In flight" in text
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    shown.page.wait_for_timeout(2500)
    shown.page.screenshot(path=SCREENSHOTS / "dashboard.png", full_page=True)
    assert shown.said == []
    shown.page.context.close()


def test_names_that_mean_harm_stay_text(browser: Browser, client: Client, run: dc.Run) -> None:
    """A workload's name is shown as it is written, and nothing in it is executed."""
    shown = opened(browser, link(client))
    until(lambda: HOSTILE in texts(shown.page), 30, "the name as text")
    shown.page.wait_for_timeout(1500)
    assert shown.page.title() == "Dask: dcompute"
    shown.page.context.close()


def test_what_changes_is_shown_without_a_new_visit(browser: Browser, client: Client, run: dc.Run) -> None:
    """A view that stands open follows what runs tell."""
    shown = opened(browser, link(client))
    until(lambda: run.id in texts(shown.page), 30, "the run on the page")
    client.set_metadata(["dcompute-scaling"], {"number": 1, "have": 1, "asked": 2, "want": 3, "most": 4})
    until(lambda: "Workers: 1 there, 2 asked for, 3 wanted, 4 at most" in texts(shown.page), 20, "what scales the cluster")
    shown.page.context.close()


def test_the_other_pages_are_as_they_were(browser: Browser, client: Client, run: dc.Run) -> None:
    """The page stands in their menu, and what is no page answers too; Dask's task stream names batches by their workload."""
    shown = opened(browser, client.dashboard_link)
    assert shown.page.locator('a[href="dcompute"]').count() == 1
    shown.page.context.close()
    with urllib.request.urlopen(link(client).replace("/dcompute", "/health"), timeout=10) as answer:
        assert answer.status == 200
    stream = rectangles(client.get_task_stream())
    assert f"flux {HOSTILE}" in stream["name"]


def test_schedulers_of_ours_have_the_page() -> None:
    """A cluster by name needs no preload for it."""
    with dc.cluster(kind="local", workers=1, threads=1) as cluster, urllib.request.urlopen(link(cluster.client), timeout=10) as answer:
        assert answer.status == 200
