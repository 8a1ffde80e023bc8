"""The HTML report in a real browser: it draws, says nothing in the console, asks for nothing, and hostile text stays text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

import dcompute as dc
from dcompute.report.page import page as page_of

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


class Odd(Exception):
    """Has a message of somebody who means harm."""


def work(number: int) -> dict[str, int]:
    """Fails for some, and takes a little."""
    total = sum(range(20_000 + 1000 * (number % 7)))
    if number % 11 == 0:
        raise Odd(f"{HOSTILE} {number}")
    return {"total": total}


@dataclass
class Seen:
    """What a browser met."""

    page: Page
    said: list[str] = field(default_factory=list)  #: warnings and errors in the console, and of scripts
    asked: list[str] = field(default_factory=list)  #: requests but for the file itself


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> dc.Dataset:
    """Two real runs, the second of them with new items; keys and messages mean harm."""
    url = tmp_path_factory.mktemp("datasets") / "a <b>dataset</b>"
    for count in (150, 300):
        dc.map(work, range(count), url, key=lambda number: f"{number} {HOSTILE}", name="work").wait(progress="quiet")
    return dc.open(url)


def opened(browser: Browser, path: Path, script: bool = True) -> Seen:
    """A file in a tab of its own."""
    seen = Seen(browser.new_context(java_script_enabled=script, viewport={"width": 1280, "height": 900}).new_page())
    # Bokeh logs that it sets its log level
    seen.page.on("console", lambda said: None if said.type == "log" else seen.said.append(f"{said.type}: {said.text}"))
    seen.page.on("pageerror", lambda error: seen.said.append(f"error: {error}"))
    seen.page.on("request", lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else seen.asked.append(request.url))
    seen.page.goto(path.as_uri(), wait_until="load")
    return seen


def shot(seen: Seen, name: str) -> None:
    """A picture for whoever wants to look."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    seen.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def drawn(page: Page) -> int:
    """How many canvases have a pixel that is neither white nor clear, shadow roots searched too."""
    count: Any = page.evaluate(
        """() => {
            const found = [], look = (root) => root.querySelectorAll("*").forEach((one) => {
                if (one instanceof HTMLCanvasElement) found.push(one);
                if (one.shadowRoot) look(one.shadowRoot);
            });
            look(document);
            return found.filter((one) => one.width && one.height && one.getContext("2d").getImageData(0, 0, one.width, one.height)
                .data.some((value, at) => at % 4 == 3 && value > 0)).length;
        }"""
    )
    return int(count)


def test_the_report_draws_all_plots_in_silence_and_asks_for_nothing(browser: Browser, dataset: dc.Dataset, tmp_path: Path) -> None:
    """Every plot has something on its canvas; the console stays empty, and no request leaves the page."""
    path = tmp_path / "report.html"
    path.write_text(page_of(dataset), encoding="utf-8")
    seen = opened(browser, path)
    figures = seen.page.locator("[data-root-id]")
    seen.page.wait_for_function("() => window.Bokeh && Bokeh.documents.length > 0 && Bokeh.documents.every((one) => one.is_idle)")
    shot(seen, "report")
    assert figures.count() == 9
    assert drawn(seen.page) >= 9
    assert seen.said == []
    assert seen.asked == []
    assert "interrupted" not in seen.page.inner_text("#freshness")
    assert "as of entry" in seen.page.inner_text("#freshness")


def alike(number: int) -> None:
    """Fails with one of several exceptions whose long names begin alike."""
    name = f"TemporaryFailureOfTheUpstreamService{'ABC'[number % 3]}WhichIsNotToBeReachedNow"
    raise type(name, (Exception,), {"__module__": "company.project.package.errors"})("gone")


def test_names_that_begin_alike_take_no_plot_away(browser: Browser, tmp_path: Path) -> None:
    """Exceptions with long names that differ somewhere in the middle have a bar each, and all plots are there."""
    dc.map(alike, range(9), tmp_path / "alike").wait(progress="quiet")
    path = tmp_path / "report.html"
    path.write_text(page_of(dc.open(tmp_path / "alike")), encoding="utf-8")
    seen = opened(browser, path)
    seen.page.wait_for_function("() => window.Bokeh && Bokeh.documents.length > 0 && Bokeh.documents.every((one) => one.is_idle)")
    figures = seen.page.locator("[data-root-id]").count()
    assert figures >= 7
    assert drawn(seen.page) >= figures
    assert seen.said == []


def test_what_users_wrote_stays_text(browser: Browser, dataset: dc.Dataset, tmp_path: Path) -> None:
    """A key or a message with markup is shown as it is and runs nothing."""
    path = tmp_path / "report.html"
    path.write_text(page_of(dataset), encoding="utf-8")
    seen = opened(browser, path)
    assert seen.page.title() == dataset.url
    assert HOSTILE in seen.page.inner_text("body")
    assert seen.page.locator("img").count() == 0
    assert not re.search(r"<script>document\.title", path.read_text())


def test_the_page_says_how_fresh_the_reports_in_the_dataset_are(browser: Browser, tmp_path: Path) -> None:
    """Those that were published there, with what came since; one that was computed from another too."""
    url = str(tmp_path / "lab")
    dc.map(work, [1, 2], url).wait(progress="quiet")
    first = dc.Report("first", url, lambda raw: raw[["item_key", "total"]])
    second = dc.Report("second", {"first": first}, lambda first: first[["total"]])
    second.run(upstream=True)
    dc.map(work, [1, 2, 3], url).wait(progress="quiet")
    first.run()
    dc.map(work, [1, 2, 3, 4], url).wait(progress="quiet")
    path = tmp_path / "report.html"
    path.write_text(page_of(dc.open(url)), encoding="utf-8")
    told = opened(browser, path).page.inner_text("#reports")
    assert "first: behind by 1 commit" in told
    assert "version 2" in told
    assert "second: behind by 1 commit" in told


def test_an_empty_dataset_has_a_page_too(browser: Browser, tmp_path: Path) -> None:
    """Without an attempt the page says so and is as silent."""
    dc.map(work, [], tmp_path / "empty").wait(progress="quiet")
    path = tmp_path / "report.html"
    path.write_text(page_of(dc.open(tmp_path / "empty")), encoding="utf-8")
    seen = opened(browser, path)
    assert "No attempts yet." in seen.page.inner_text("body")
    assert seen.said == []


def test_what_a_notebook_shows(browser: Browser, tmp_path: Path) -> None:
    """The pieces of HTML of a run, of one dataset or several, and of a report draw without a script and load nothing."""
    with dc.map(work, range(1, 12), tmp_path / "x <i>y</i>") as run:
        run.wait(progress="quiet")
    path = tmp_path / "notebook.html"
    url = tmp_path / "x <i>y</i>"
    report = dc.Report("means", str(url), lambda raw: raw[["item_key"]])
    report.run()
    shown = "<hr>".join(one._repr_html_() for one in (run, dc.open(url), dc.open([str(url)]), report))
    path.write_text(f"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'>{shown}", encoding="utf-8")
    seen = opened(browser, path, script=False)
    shot(seen, "notebook")
    assert "x <i>y</i>" in seen.page.inner_text("body")
    assert "succeeded" in seen.page.locator("table").first.inner_text()
    assert "1 failed: 1 permanent" in seen.page.inner_text("pre")
    assert "means: up to date" in seen.page.inner_text("body")
    assert seen.page.locator("script").count() == 0
    assert (seen.said, seen.asked) == ([], [])
