"""A report: what it publishes, what it promises, how fresh it is, and how stages feed stages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import dcompute as dc
from dcompute.dataset.store import Store
from dcompute.errors import DatasetNotFoundError, ReportError, UsageError
from dcompute.report.publishing import folder_of, version_name
from dcompute.testing import Fault, FaultStore
from tests.component.reading.conftest import Did, Scene
from tests.sane import pandera


@pytest.fixture(autouse=True)
def _in_this_thread() -> Iterator[None]:
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A dataset of two parts: x from 0 to 9, of which 3 is null; g is a or b."""
    made = Scene(Store.at(tmp_path / "lab")).open()
    for part in range(2):
        made.add(*[Did(f"k{x}", rows=[{"g": "ab"[x % 2], "x": None if x == 3 else x}]) for x in range(part * 5, part * 5 + 5)])
    return made.publish()


def url(scene: Scene) -> str:
    return scene.store.url


def same(frame: Any) -> Any:
    return frame


def clean(raw: Any) -> Any:
    raw = dc.drop(raw, raw.x.isna(), "no x")
    return dc.drop(raw, raw.x > 7, "too large")


def totals(clean: Any) -> Any:
    return clean.groupby("g").x.sum().reset_index()


def xs(report: dc.Report, **given: Any) -> list[Any]:
    return sorted(report.to_pandas(**given).x.tolist())


def test_a_report_is_published_with_what_came_went_and_why(scene: Scene) -> None:
    """Rows in, rows out and rows dropped by reason stand in the version; the rows themselves are read back."""
    report = dc.Report("clean", url(scene), clean)
    version = report.run()
    assert (dict(version.rows_in), version.rows, dict(version.dropped)) == ({"lab": 10}, 7, {"no x": 1, "too large": 2})
    assert xs(report) == [0, 1, 2, 4, 5, 6, 7]
    assert report.results(columns=["x"]).compute().columns.tolist() == ["x"]
    assert [one.step for one in version.steps] == ["read", "compute", "check"]


def test_without_news_nothing_is_computed(scene: Scene) -> None:
    """A second run gives the version that is there; a compaction and a driver's close are no news."""
    report = dc.Report("clean", url(scene), clean)
    first = report.run()
    dc.open(url(scene)).compact(all=True)
    again = report.run()
    assert (again.number, again.is_new) == (first.number, False)
    assert report.status().state == "up to date"


def test_a_stage_that_somebody_else_published_meanwhile_is_up_to_date(scene: Scene) -> None:
    """Who wants a report brought up to date with its stages needs no version of his own."""

    def raced(raw: Any) -> Any:
        for other in others:
            other.run()
        return clean(raw)

    # a generator: with a list, the value in the closure would change, and with it the code
    others = (dc.Report("clean", url(scene), raced) for _ in range(1))
    first = dc.Report("clean", url(scene), raced)
    last = dc.Report("totals", {"clean": first}, totals)
    assert last.run(upstream=True).is_new
    assert (first.newest().number, first.status().state, last.status().state) == (1, "up to date", "up to date")


def test_status_says_how_far_behind(scene: Scene) -> None:
    """Commits that changed rows are counted, and the time since the first of them."""
    report = dc.Report("clean", url(scene), clean)
    assert report.status().state == "never run"
    report.run()
    scene.add(Did("n1", rows=[{"g": "a", "x": 1}])).add(Did("n2", rows=[{"g": "a", "x": 2}])).publish()
    before, status, after = report.now(), report.status(), report.now()
    assert (status.state, status.commits) == ("behind", 2)
    first = scene.entries[-2].at
    assert before - first <= status.seconds <= after - first
    assert "behind by 2 commits" in str(status)
    report.run()
    assert report.status().state == "up to date"


def test_a_changed_function_makes_a_report_stale(scene: Scene) -> None:
    """The same name with other code is computed again, and its status says why."""
    dc.Report("r", url(scene), clean).run()
    other = dc.Report("r", url(scene), same)
    assert other.status().reasons == ("what is declared changed",)
    assert other.run().rows == 10


def test_stages_run_in_their_order(scene: Scene) -> None:
    """``upstream=True`` runs stale sources first; without it a source that never ran is an error that says so."""
    cleaned = dc.Report("clean", url(scene), clean)
    summed = dc.Report("totals", {"clean": cleaned}, totals)
    with pytest.raises(DatasetNotFoundError, match="upstream=True"):
        summed.run()
    assert summed.run(upstream=True).rows_in == {"clean": 7}
    assert dict(zip(*(summed.to_pandas()[name] for name in ("g", "x")), strict=True)) == {"a": 12, "b": 13}
    scene.add(Did("n", rows=[{"g": "a", "x": 7}])).publish()
    status = summed.status()
    assert (status.state, status.commits, status.upstream[0].state) == ("behind", 1, "behind")
    assert summed.run(upstream=True).rows_in == {"clean": 8}
    assert summed.status().state == "up to date"


def test_a_source_that_was_made_anew_is_another_one(scene: Scene) -> None:
    """A version with the number that was read, published after its folder was removed, is news to what reads it, in portions too."""
    cleaned = dc.Report("clean", url(scene), clean)
    whole = dc.Report("whole", cleaned, same)
    merged = dc.Report("merged", cleaned, same, mergeable="partition")
    for report in (whole, merged):
        assert report.run(upstream=True).rows == 7
    shutil.rmtree(cleaned.url)
    scene.add(Did("n", rows=[{"g": "a", "x": 7}])).publish()
    assert cleaned.run().number == 1
    for report in (whole, merged):
        status = report.status()
        assert (status.state, status.reasons) == ("behind", ("report 'clean' was made anew: its version 1 is not the one that was read",))
        assert report.run().rows == 8
        assert report.status().state == "up to date"


def test_a_dataset_that_lost_its_newest_entries_means_all(scene: Scene) -> None:
    """Restored from an older copy, a dataset has rows no more that a portion still has: nothing of it stays."""
    report = dc.Report("all", url(scene), same, mergeable="partition")
    (older := Path(url(scene)).with_name("older")).mkdir()
    shutil.copytree(Path(url(scene)) / "log", older / "log")
    scene.add(Did("n", rows=[{"g": "a", "x": 7}])).publish()
    assert report.run().rows == 11
    shutil.rmtree(Path(url(scene)) / "log")
    (older / "log").rename(Path(url(scene)) / "log")
    assert report.status().state == "behind"
    version = report.run()
    assert (version.rows, version.reason) == (10, "lab is not the same as before")


def test_a_source_of_two_stages_is_asked_once(scene: Scene) -> None:
    """Reports that stand upstream of several are listed once, before all that need them."""
    cleaned = dc.Report("clean", url(scene), clean)
    left, right = dc.Report("left", cleaned, same), dc.Report("right", cleaned, same)
    last = dc.Report("last", {"a": left, "b": right}, lambda a, b: a)
    assert [one.name for one in last.upstream()] == ["clean", "left", "right"]


def test_a_cycle_is_refused(scene: Scene) -> None:
    """A report that would lie where one of its own sources lies is an error where it is declared."""
    first = dc.Report("first", url(scene), same)
    second = dc.Report("second", first, same)
    with pytest.raises(UsageError, match="give it another name"):
        dc.Report("first", second, same)


def test_tables_of_a_dataset(scene: Scene) -> None:
    """Attempts and failures are sources as results are, all at one position of the log."""
    scene.add(Did("bad", failed="permanent")).publish()
    lab = dc.open(url(scene))
    sources = {"results": lab, "tries": (lab, "attempts"), "failed": (lab, "failures")}

    def count(results: Any, tries: Any, failed: Any) -> Any:
        return pa.table({"results": [len(results)], "tries": [len(tries)], "failed": [len(failed)]})

    report = dc.Report("counts", sources, count)
    assert report.run().rows_in == {"results": 10, "tries": 11, "failed": 1}
    assert report.to_arrow().to_pylist() == [{"results": 10, "tries": 11, "failed": 1}]


def test_several_datasets_as_one_source(scene: Scene, tmp_path: Path) -> None:
    """A list of datasets is one source; which folder holds the report must be said."""
    other = Scene(Store.at(tmp_path / "other")).open().add(Did("o", rows=[{"g": "c", "x": 99}])).publish()
    both = [url(scene), url(other)]
    with pytest.raises(UsageError, match="Say store="):
        dc.Report("both", both, same)
    report = dc.Report("both", both, same, store=tmp_path / "reports")
    assert report.run().rows == 11
    other.add(Did("p", rows=[{"g": "c", "x": 100}])).publish()
    assert report.status().commits == 1
    assert report.run().rows == 12


def test_what_a_function_may_return(scene: Scene) -> None:
    """Dask and pandas dataframes, series and Arrow tables; a named index becomes columns."""
    returns: dict[str, Any] = {
        "dask": totals,
        "pandas": lambda raw: totals(raw).compute(),
        "index": lambda raw: raw.groupby("g").x.sum(),
        "arrow": lambda raw: pa.Table.from_pandas(totals(raw).compute(), preserve_index=False),
    }
    for name, function in returns.items():
        report = dc.Report(name, url(scene), function)
        report.run()
        assert sorted(report.to_arrow().to_pylist(), key=str) == [{"g": "a", "x": 20}, {"g": "b", "x": 22}], name
    with pytest.raises(ReportError, match="returned int"):
        dc.Report("number", url(scene), lambda raw: 3).run()


def test_an_empty_result_is_a_version(scene: Scene) -> None:
    """No row is an answer too, with its columns."""
    report = dc.Report("none", url(scene), lambda raw: raw[raw.x > 100])
    assert report.run().rows == 0
    assert report.to_pandas().columns.tolist() == ["item_key", "key_kind", "g", "x"]


@pytest.mark.parametrize(
    ("checks", "name", "rows", "example"),
    [
        ({"small": pc.field("x") < 5}, "small", 6, "x=None"),
        ([lambda frame: frame.x < 5], "<lambda>", 6, "x="),
        ({"sane": pandera.DataFrameSchema({"x": pandera.Column(int, pandera.Check.lt(5))})}, "sane", 6, "x="),
        ({"long": lambda frame: len(frame) > 100}, "long", None, ""),
        ({"said": lambda frame: frame.g.isin(["a"]).compute()}, "said", 5, ""),
    ],
)
def test_a_broken_promise_publishes_nothing(scene: Scene, checks: Any, name: str, rows: int | None, example: str) -> None:
    """The error says which check, how many rows and an example; what counted before still counts, and no file is left."""
    dc.Report("r", url(scene), lambda raw: raw[raw.x < 2]).run()
    report = dc.Report("r", url(scene), same, checks=checks)
    with pytest.raises(ReportError, match="Nothing was published") as raised:
        report.run()
    assert (raised.value.check, raised.value.rows) == (name, rows)
    assert example in raised.value.example
    assert xs(report) == [0, 1]
    assert scene.store.names("reports/r/00000000000000000002") == []


def test_checks_that_hold_let_it_pass(scene: Scene) -> None:
    """Expressions and functions that hold of the result are no obstacle."""
    checks = [pc.field("x") < 8, lambda frame: frame.x >= 0]
    assert dc.Report("r", url(scene), clean, checks=checks).run().rows == 7


def test_a_promised_schema(scene: Scene) -> None:
    """Values take the promised types; a column too many, too few, or a value that does not fit is refused by name."""
    given = {"g": "string", "x": "double"}
    report = dc.Report("r", url(scene), lambda raw: raw[["g", "x"]], schema=given)
    report.run()
    assert report.to_arrow().schema.field("x").type == pa.float64()
    with pytest.raises(ReportError, match="has item_key, key_kind too"):
        dc.Report("r", url(scene), same, schema=given).run()
    with pytest.raises(ReportError, match="lacks y"):
        dc.Report("r", url(scene), lambda raw: raw[["g", "x"]], schema={**given, "y": "int64"}).run()
    with pytest.raises(ReportError, match="'g' of the result is string where schema= promises int64"):
        dc.Report("r", url(scene), lambda raw: raw[["g", "x"]], schema={"g": "int64", "x": "int64"}).run()


def test_balance_is_a_promise(scene: Scene) -> None:
    """``balanced=True`` refuses a function that loses rows without a word."""
    assert dc.Report("r", url(scene), clean, balanced=True).run().rows == 7
    with pytest.raises(ReportError, match="10 rows in, 9 out and 0 dropped"):
        dc.Report("r", url(scene), lambda raw: raw[raw.x.notnull()], balanced=True).run()


@pytest.mark.parametrize("function", [lambda raw: raw.x.sum(), lambda raw: dask.delayed(len)(raw), lambda raw: 3])
def test_what_is_no_table_is_told_as_that(scene: Scene, function: Any) -> None:
    """A number that is to come is none either."""
    with pytest.raises(ReportError, match=r"its function returned (Scalar|Delayed|int): return a Dask or pandas dataframe"):
        dc.Report("r", url(scene), function).run()


def test_failures_are_remembered_until_it_works(scene: Scene) -> None:
    """The status says since when it fails and how often, and forgets when the next version is there."""
    broken = dc.Report("r", url(scene), lambda raw: raw.nothing)
    for _ in range(2):
        with pytest.raises(ReportError, match=r"its function raised AttributeError in <lambda> \(test_report_stages\.py, line \d+\): "):
            broken.run()
    status = broken.status()
    assert (status.state, status.failed_times) == ("failed", 2)
    assert "AttributeError" in status.message
    working = dc.Report("r", url(scene), same)
    working.run()
    assert working.status().state == "up to date"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("write", "status.json"),
        Fault("read", "status.json"),
        Fault("remove", "*.parquet", error=PermissionError("not yours")),
        Fault("read", version_name(1), skip=1),
    ],
)
def test_what_went_wrong_is_told_even_where_no_word_of_it_can_be_left(scene: Scene, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """Storage that fails while a failure is cleaned up after does not hide it: the report's own error comes out, the other is logged."""
    report = dc.Report("r", url(scene), lambda raw: raw[raw.x > 3], balanced=True)
    report.shelf.store = FaultStore(report.shelf.store, [fault])
    with pytest.raises(ReportError, match="10 rows in"), caplog.at_level("WARNING", "dcompute.report"):
        report.run()
    assert fault.times == 0
    assert [record.action for record in caplog.records] == ["report_left_behind"]  # type: ignore[attr-defined]


def test_a_version_that_counts_is_given_where_older_ones_cannot_be_cleaned_up(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Published is published: what fails after it is logged, and the next run cleans up."""
    report = dc.Report("r", url(scene), same, keep=1, retention=0)
    report.run()
    scene.add(Did("n1", rows=[{"g": "a", "x": 1}])).publish()
    report.shelf.store = FaultStore(report.shelf.store, [Fault("remove")])
    with caplog.at_level("WARNING", "dcompute.report"):
        assert report.run().number == 2
    assert [record.action for record in caplog.records] == ["report_left_behind"]  # type: ignore[attr-defined]
    assert report.shelf.store.names(folder_of(1))
    scene.add(Did("n2", rows=[{"g": "a", "x": 1}])).publish()
    assert report.run().number == 3
    assert not report.shelf.store.names(folder_of(1))


def test_a_task_that_fails_is_told_as_the_report_s(scene: Scene) -> None:
    """What raises on a partition comes out as the report's error, with the user's own as its cause."""

    def divide(frame: Any) -> Any:
        return frame.assign(x=1 // 0)

    with pytest.raises(ReportError, match="ZeroDivisionError") as raised:
        dc.Report("r", url(scene), lambda raw: raw.map_partitions(divide, meta=raw._meta)).run()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_a_place_without_a_dataset_stays_as_it_is(tmp_path: Path) -> None:
    """A mistyped URL leaves no folder behind."""
    with pytest.raises(DatasetNotFoundError):
        dc.Report("r", tmp_path / "typo", same).run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "a/b"}, "cannot be the name"),
        ({"sources": 3}, "give a dataset or its URL"),
        ({"sources": {}}, "names nothing"),
        ({"sources": {"a b": "lab"}}, "keyword argument"),
        ({"function": 3}, "cannot be called"),
        ({"function": lambda: None}, "is called with one dataframe"),
        ({"sources": {"raw": "lab"}, "function": lambda other: other}, "called with raw="),
        ({"checks": [3]}, "neither an expression"),
        ({"checks": [same, same]}, "two checks"),
        ({"schema": 3}, "names and types"),
        ({"mergeable": "g"}, "combine="),
        ({"mergeable": "partition", "combine": {"x": "sum"}}, "columns of the key"),
        ({"mergeable": []}, '"partition"'),
        ({"mergeable": 5}, '"partition"'),
        ({"mergeable": "g", "combine": {"n": "count"}}, 'n\\b.*"count".*"n": "sum"'),
        ({"mergeable": "g", "combine": {"n": "mean"}}, "divide in the next stage"),
        ({"mergeable": "g", "combine": {"n": "first"}}, '"min" or "max"'),
        ({"mergeable": "g", "combine": {"n": "all"}}, '"n": "min"'),
        ({"mergeable": "g", "combine": {"n": "summ"}}, '"sum", "prod", "min" or "max"'),
        ({"mergeable": "g", "combine": {"n": ["sum", "max"]}}, "or a function"),
        ({"mergeable": ["g", "h"], "combine": {"h": "max"}}, "'h' is of the key"),
        ({"mergeable": "g", "combine": {"x": "sum"}, "balanced": True}, "balanced"),
        ({"sources": ("lab", "failures"), "mergeable": "partition"}, "cannot be taken in portions"),
        ({"keep": 0}, "keeps one version"),
        ({"retention": "soon"}, "is no time"),
    ],
)
def test_what_can_never_work_is_refused_where_it_is_declared(given: dict[str, Any], words: str) -> None:
    """Before anything is read or written."""
    with pytest.raises(UsageError, match=words):
        dc.Report(**{"name": "r", "sources": "lab", "function": same, **given})


def test_drop_counts_nothing_outside_of_a_report() -> None:
    """A function that calls it can be tried on a dataframe of pandas alone; null in a mask drops nothing."""
    import pandas as pd

    frame = pd.DataFrame({"x": pd.array([1, None, 3], dtype="Int64")})
    assert dc.drop(frame, frame.x > 2, "large").x.tolist() == [1, pd.NA]
    with pytest.raises(UsageError, match="series of booleans"):
        dc.drop(frame, True, "all")
    with pytest.raises(UsageError, match="say in words"):
        dc.drop(frame, frame.x > 2, "")


def test_an_older_version_is_read_while_it_is_kept(scene: Scene) -> None:
    """``version=`` reads it; after ``keep`` newer ones and the retention its files are gone, and the error says why."""
    report = dc.Report("r", url(scene), clean, keep=2, retention=0)
    for number in range(3):
        scene.add(Did(f"n{number}", rows=[{"g": "a", "x": 6}])).publish()
        report.run()
    assert len(xs(report, version=2)) == 9
    assert len(xs(report)) == 10
    with pytest.raises(dc.errors.DatasetError, match="newer versions"):
        report.to_pandas(version=1)
    with pytest.raises(UsageError, match="no version 9"):
        report.to_pandas(version=9)


def test_a_notebook_shows_how_fresh_it_is(scene: Scene) -> None:
    """The display of a report says where it lies and what its status says."""
    report = dc.Report("r", url(scene), lambda raw: raw.nothing, checks={"a<b": pc.field("x") > 0})
    with pytest.raises(ReportError):
        report.run()
    shown = report._repr_html_()
    assert report.url in shown
    assert "r: failed since" in shown
    assert "&#x27;r&#x27;" in shown


def test_two_reports_of_one_place_are_told_apart(scene: Scene, tmp_path: Path) -> None:
    """What lies in a report's folder under another name is not read as its own."""
    dc.Report("r", url(scene), same, store=tmp_path / "x").run()
    (tmp_path / "x" / "r").rename(tmp_path / "x" / "s")
    with pytest.raises(UsageError, match="holds the report 'r'"):
        dc.Report("s", url(scene), same, store=tmp_path / "x").run()
