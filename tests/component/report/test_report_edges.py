"""Reports where sources, values and options are unusual."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pandas as pd
import pytest

import dcompute as dc
from dcompute.dataset.store import Store
from dcompute.errors import DatasetError, ReportError, UsageError
from tests.component.reading.conftest import Did, Scene


@pytest.fixture(autouse=True)
def _in_this_thread() -> Iterator[None]:
    with dask.config.set(scheduler="sync"):
        yield


def same(frame: Any) -> Any:
    return frame


def made(folder: Path) -> Scene:
    """A dataset of x from 0 to 5 in two parts."""
    scene = Scene(Store.at(folder)).open()
    for part in range(2):
        scene.add(*[Did(f"k{x}", rows=[{"x": x}]) for x in range(part * 3, part * 3 + 3)])
    return scene.publish()


def test_a_folder_may_be_called_like_a_pattern(tmp_path: Path) -> None:
    """A dataset is a source of a report wherever it can be opened; a pattern is several datasets all the same."""
    scene = made(tmp_path / "run[1]")
    report = dc.Report("r", scene.store.url, same, mergeable="partition")
    assert report.run().rows == 6
    assert report.url == f"{scene.store.url}/reports/r"
    assert report.status().state == "up to date"
    with pytest.raises(UsageError, match="several datasets"):
        dc.Report("r", str(tmp_path / "run*"), same)


@pytest.mark.parametrize("lazy", [True, False])
def test_rows_that_went_before_are_not_dropped_again(tmp_path: Path, lazy: bool) -> None:
    """A mask of the dataframe as it was before another drop says of rows that are gone too: each row is counted once."""

    def function(raw: Any) -> Any:
        raw = raw if lazy else raw.compute().reset_index(drop=True)
        return dc.drop(dc.drop(dc.drop(raw, raw.x < 3, "low"), raw.x < 4, "lower"), raw.x > 4, "high")

    version = dc.Report("r", made(tmp_path / "lab").store.url, function, balanced=True).run()
    assert (dict(version.dropped), version.rows) == ({"low": 3, "lower": 1, "high": 1}, 1)


def test_a_mask_without_a_value_for_each_row_is_refused() -> None:
    """A mask of fewer rows than there are does not keep the others in silence."""
    frame = pd.DataFrame({"x": [1, 2, 3]})
    with pytest.raises(UsageError, match="no value for some rows"):
        dc.drop(frame, frame[frame.x > 1].x > 2, "high")


def test_a_file_of_the_newest_version_that_is_gone_says_how_it_comes_back(tmp_path: Path) -> None:
    """Nobody is sent to the newest version where it is the newest that lost a file."""
    report = dc.Report("r", made(tmp_path / "lab").store.url, same)
    version = report.run()
    report.shelf.store.remove([version.files[0].name])
    with pytest.raises(DatasetError, match="full=True") as met:
        report.to_pandas()
    assert "newer versions" not in str(met.value)
    report.run(full=True)
    assert len(report.to_pandas()) == 6
    with pytest.raises(DatasetError, match="newer versions"):
        report.to_pandas(version=1)


def test_a_summary_of_nothing_has_its_columns(tmp_path: Path) -> None:
    """Without an attempt each built-in report has the columns, and their types, that it has with some."""
    empty = dc.open(Scene(Store.at(tmp_path / "empty")).open().publish().store.url)
    full = dc.open(made(tmp_path / "lab").store.url)
    for name in ("summary", "throughput", "failures", "resources", "scaling", "history"):
        assert dict(empty.report(name).dtypes) == dict(full.report(name).dtypes), name
        assert len(empty.report(name)) == 0


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("throughput", {"bins": 0}, "bins=0"),
        ("throughput", {"bins": "x"}, "bins='x'"),
        ("throughput", {"bins": 1.5}, "bins=1.5"),
        ("throughput", {"bins": True}, "bins=True"),
        ("cost", {"price": -1}, "price=-1"),
        ("cost", {"price": float("nan")}, "price=nan"),
        ("cost", {"price": "x"}, "price='x'"),
        ("cost", {"price": None}, "price=None"),
        ("cost", {"price": {"*": float("inf")}}, "price=.*inf"),
        ("cost", {"price": {3: 1.0}}, "price="),
        ("resources", {"cpus": 0}, "cpus=0"),
        ("resources", {"cpus": "x"}, "cpus='x'"),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path: Path, name: str, given: dict[str, Any], words: str) -> None:
    """A number of bins, a price or a number of CPUs that is none is bad use, of an empty dataset too, and says what to give."""
    for dataset in (made(tmp_path / "lab"), Scene(Store.at(tmp_path / "empty")).open().publish()):
        with pytest.raises(UsageError, match=words):
            dc.open(dataset.store.url).report(name, **given)


def test_a_version_and_a_time_that_are_none_are_refused(tmp_path: Path) -> None:
    """What is no number of a version, and a time that no clock of this machine can show, are bad use."""
    url = made(tmp_path / "lab").store.url
    report = dc.Report("r", url, same)
    report.run()
    for version in ("1", 1.5, True, 0):
        with pytest.raises(UsageError, match=r"version="):
            report.results(version=version)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at="):
        dc.open(url, at=datetime.datetime.min).status()


def test_periods_are_refused_in_a_result(tmp_path: Path) -> None:
    """A column of periods or intervals would be stored as bare numbers: the error names it, and what to write instead."""

    def monthly(raw: Any) -> Any:
        found = raw.compute()
        return found.assign(month=pd.period_range("2026-01", periods=len(found), freq="M"))

    url = made(tmp_path / "lab").store.url
    with pytest.raises(ReportError, match=r"'month' has periods.*to_timestamp"):
        dc.Report("periods", url, monthly).run()
    with pytest.raises(ReportError, match="'x' has intervals"):
        dc.Report("intervals", url, lambda raw: raw.compute().assign(x=pd.interval_range(0, 6))).run()


def test_a_dataset_that_was_moved_is_told_as_such(tmp_path: Path) -> None:
    """A source without a name is the same source under another one: its status says where it was and where it is."""
    scene = made(tmp_path / "lab")
    store = str(tmp_path / "reports")
    dc.Report("r", scene.store.url, same, store=store).run()
    (tmp_path / "lab").rename(tmp_path / "moved")
    status = dc.Report("r", str(tmp_path / "moved"), same, store=store).status()
    assert status.state == "behind"
    assert any(f"{tmp_path}/moved" in reason and f"{tmp_path}/lab" in reason for reason in status.reasons)
    assert "0" not in " ".join(status.reasons).replace(str(tmp_path), "")
