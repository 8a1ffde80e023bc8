"""Inputs from end to end: what may be given, what key each gets, and what is refused, as a user sees it through ``dc.map``."""

from __future__ import annotations

import concurrent.futures
import datetime
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import fsspec
import pandas as pd
import pytest

import dcompute as dc
from dcompute.errors import DuplicateKeyError, InputError, KeyDerivationError, ValueTooLargeError, WorkloadError


def text(value: Any) -> str:
    return repr(value)


def lines(path: str) -> list[dict[str, Any]]:
    """A row a line of a file."""
    return [{"number": number, "line": line} for number, line in enumerate(Path(path).read_text().splitlines())]


def keywords(**named: Any) -> str:
    return json.dumps({name: str(value) for name, value in sorted(named.items())})


def finished(workload: Any, inputs: Any, url: Path, **options: Any) -> dc.Run:
    """The run, after its end."""
    run = dc.map(workload, inputs, url, **options)
    assert run.wait(60, progress="quiet")
    return run


def values(url: Path) -> dict[tuple[str, str], Any]:
    """The column ``value`` of each item, by text and kind of its key."""
    frame = dc.open(url).results().compute()
    return {(key, kind): value for key, kind, value in zip(frame["item_key"], frame["key_kind"], frame["value"], strict=True)}


# ------------------------------------------------------------------------------------------------------------------------ streams


def test_an_endless_generator_is_only_consumed_as_far_as_needed(tmp_path: Path) -> None:
    """The first outcomes come, and the run can be ended."""
    with dc.map(text, itertools.count(), tmp_path / "d", batch_size=8) as run:
        seen = list(itertools.islice(run.as_completed(), 20))
        run.cancel()
    assert len({outcome.key for outcome in seen}) == 20
    assert run.summary().state == "cancelled"


def test_items_of_a_slow_generator_go_out_as_they_come(tmp_path: Path) -> None:
    """Each input is only made after the one before it was committed: none is kept back for a batch to fill."""
    committed = [threading.Event() for _ in range(4)]
    in_time = []

    def slow() -> Iterator[int]:
        for number in range(4):
            yield number
            in_time.append(committed[number].wait(30))

    run = dc.map(text, slow(), tmp_path / "d")
    for outcome in run.as_completed():
        committed[int(outcome.key.text)].set()
    assert in_time == [True] * 4
    assert run.summary().succeeded == 4


def test_what_came_before_a_generator_raised_is_committed(tmp_path: Path) -> None:
    """wait() raises InputError, with the number of inputs that came and the cause; the same line goes on."""

    def broken() -> Iterator[int]:
        yield from range(300)
        raise OSError("the disk was unplugged")

    run = dc.map(text, broken(), tmp_path / "d", batch_size=4)
    with pytest.raises(InputError, match=r"OSError: the disk was unplugged, after 300") as caught:
        run.wait(60, progress="quiet")
    assert isinstance(caught.value.__cause__, OSError)
    assert len(values(tmp_path / "d")) == 300
    again = finished(text, iter(range(302)), tmp_path / "d").summary()
    assert (again.skipped, again.succeeded) == (300, 2)


def test_a_generator_that_raises_at_once_commits_nothing(tmp_path: Path) -> None:
    """There is no first item, and the error is that of the inputs."""

    def broken() -> Iterator[int]:
        yield from ()
        raise LookupError("no such table")

    with pytest.raises(InputError, match="no such table"):
        dc.map(text, broken(), tmp_path / "d").wait(60, progress="quiet")
    assert dc.open(tmp_path / "d").status().succeeded == 0


def test_no_inputs_are_no_error(tmp_path: Path) -> None:
    """An empty list is a run with nothing to do, and a dataset that reads as empty."""
    run = finished(text, [], tmp_path / "d")
    assert run.summary().state == "finished"
    assert list(run.results().compute().columns) == ["item_key", "key_kind"]
    assert len(run.failures().compute()) == 0
    assert "there were no inputs" in str(run.summary())


# -------------------------------------------------------------------------------------------------------------------------- files


def test_a_changed_file_is_redone_alone_and_its_old_rows_are_gone(tmp_path: Path) -> None:
    """The fingerprint tells; a new file is done, others are not touched."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text("one\ntwo\nthree\n")
    finished(lines, dc.files(folder / "*.txt"), tmp_path / "d")
    (folder / "b.txt").write_text("changed\n")
    (folder / "d.txt").write_text("new\n")
    run = finished(lines, dc.files(str(folder / "*.txt")), tmp_path / "d")
    summary = run.summary()
    assert (summary.succeeded, summary.skipped, summary.redone) == (2, 2, 1)
    frame = run.results().compute()
    assert frame.groupby("item_key").size().to_dict() == {
        str(folder / f"{name}.txt"): rows for name, rows in zip("abcd", (3, 1, 3, 1), strict=True)
    }
    assert frame[frame["item_key"] == str(folder / "b.txt")]["line"].tolist() == ["changed"]
    assert len(run.attempts().compute()) == 5
    assert "1 was done again because its input" in str(summary)


def test_files_elsewhere_come_as_their_urls(tmp_path: Path) -> None:
    """On any file system of fsspec; key and value are the URL."""
    storage = fsspec.filesystem("memory")
    storage.pipe({"/inputs/one.bin": b"1", "/inputs/two.bin": b"22"})
    try:
        finished(text, dc.files("memory://inputs/*.bin"), tmp_path / "d")
        storage.pipe("/inputs/two.bin", b"333")
        run = finished(text, dc.files("memory://inputs/*.bin"), tmp_path / "d")
    finally:
        storage.rm("/inputs", recursive=True)
    assert run.summary().redone == 1
    assert values(tmp_path / "d") == {(url, "str"): repr(url) for url in ("memory:///inputs/one.bin", "memory:///inputs/two.bin")}


def test_a_missing_file_is_refused_at_once(tmp_path: Path) -> None:
    """dc.map raises, and no dataset is made."""
    with pytest.raises(InputError, match="there is no file"):
        dc.map(lines, dc.files(tmp_path / "none.txt"), tmp_path / "d")
    assert not (tmp_path / "d").exists()


# --------------------------------------------------------------------------------------------------------------- grids and tables


def test_a_grid_calls_with_keyword_arguments(tmp_path: Path) -> None:
    """Every combination once; its key is JSON with sorted names."""
    finished(keywords, dc.grid(b=[1, 2], a=["x"]), tmp_path / "d")
    assert values(tmp_path / "d") == {
        ('{"a":"x","b":1}', "dict"): '{"a": "x", "b": "1"}',
        ('{"a":"x","b":2}', "dict"): '{"a": "x", "b": "2"}',
    }


def test_axes_that_the_workload_does_not_take_are_refused_at_once(tmp_path: Path) -> None:
    """dc.map names them; nothing runs."""

    def area(width: int, height: int) -> int:
        return width * height

    with pytest.raises(WorkloadError, match="depth"):
        dc.map(area, dc.grid(width=[1], depth=[2]), tmp_path / "d")
    with pytest.raises(WorkloadError, match="height"):
        dc.map(area, pd.DataFrame({"width": [1]}), tmp_path / "d")
    with pytest.raises(WorkloadError, match="width"):
        dc.map(area, dc.grid(width=[1], height=[2]), tmp_path / "d", params={"width": 3})
    assert not (tmp_path / "d").exists()


def test_a_table_calls_with_its_columns_and_is_keyed_by_all_values(tmp_path: Path) -> None:
    """An index without a name is no key; a plain dict in a list is the one positional argument."""
    frame = pd.DataFrame({"city": ["Oslo", "Lima"], "size": [7, 10]})
    finished(keywords, frame, tmp_path / "table")
    assert values(tmp_path / "table") == {
        ('{"city":"Oslo","size":7}', "dict"): '{"city": "Oslo", "size": "7"}',
        ('{"city":"Lima","size":10}', "dict"): '{"city": "Lima", "size": "10"}',
    }
    finished(text, frame.to_dict("records"), tmp_path / "dicts")
    assert values(tmp_path / "dicts") == {
        ('{"city":"Oslo","size":7}', "dict"): "{'city': 'Oslo', 'size': 7}",
        ('{"city":"Lima","size":10}', "dict"): "{'city': 'Lima', 'size': 10}",
    }


def test_a_named_index_is_the_key_of_a_row(tmp_path: Path) -> None:
    """A row whose values change under the same index is redone alone; ``key=`` takes a column in its place."""
    frame = pd.DataFrame({"size": [7, 10]}, index=pd.Index(["Oslo", "Lima"], name="city"))
    finished(keywords, frame, tmp_path / "d")
    frame.loc["Oslo", "size"] = 8
    summary = finished(keywords, frame, tmp_path / "d").summary()
    assert (summary.skipped, summary.redone) == (1, 1)
    assert values(tmp_path / "d") == {("Oslo", "str"): '{"size": "8"}', ("Lima", "str"): '{"size": "10"}'}
    finished(keywords, frame.reset_index(), tmp_path / "column", key="size")
    assert set(values(tmp_path / "column")) == {("8", "int"), ("10", "int")}


def test_a_dask_dataframe_gives_an_item_a_row(tmp_path: Path) -> None:
    """Partition by partition, with the same keys as the pandas dataframe has."""
    dd = pytest.importorskip("dask.dataframe")
    frame = pd.DataFrame({"size": range(6), "name": list("abcdef")}, index=pd.Index(range(10, 16), name="id"))
    finished(keywords, dd.from_pandas(frame, npartitions=3), tmp_path / "d")
    again = finished(keywords, frame, tmp_path / "d").summary()
    assert (again.skipped, again.executed) == (6, 0)
    assert values(tmp_path / "d")["10", "int"] == '{"name": "a", "size": "0"}'


# --------------------------------------------------------------------------------------------------------------------------- keys


def test_keys_are_readable_text_with_a_kind(tmp_path: Path) -> None:
    """``1`` and ``"1"`` are two items; dates, paths and tuples are written out."""
    inputs = [1, "1", 1.0, True, datetime.date(2024, 5, 1), Path("raw/x.csv"), ("a", 2), {"b": 1, "a": None}]
    finished(text, inputs, tmp_path / "d")
    expected = [
        ("1", "int"), ("1", "str"), ("1.0", "float"), ("true", "bool"), ("2024-05-01", "date"), ("raw/x.csv", "path"),
        ('["a",2]', "tuple"), ('{"a":null,"b":1}', "dict"),
    ]  # fmt: skip
    assert values(tmp_path / "d") == dict(zip(expected, map(repr, inputs), strict=True))
    assert finished(text, inputs, tmp_path / "d").summary().skipped == len(inputs)


def test_a_value_without_a_key_needs_one(tmp_path: Path) -> None:
    """The error says which input and what to pass; with ``key=`` it works."""
    inputs = [[1, 2], [3, 4]]
    with pytest.raises(KeyDerivationError, match=r"input 0 .*key="):
        dc.map(text, inputs, tmp_path / "d").wait(60, progress="quiet")
    finished(text, inputs, tmp_path / "d", key=lambda pair: pair[0])
    assert values(tmp_path / "d") == {("1", "int"): "[1, 2]", ("3", "int"): "[3, 4]"}
    summary = finished(text, [[1, 2], [3, 5]], tmp_path / "d", key=lambda pair: pair[0]).summary()
    assert (summary.skipped, summary.redone) == (1, 1)


def test_a_run_with_nothing_to_do_says_why(tmp_path: Path) -> None:
    """No file matches, or all was done before: in the summary, and in the figures that progress shows."""
    run = finished(text, dc.files(tmp_path / "raw" / "*.cvs"), tmp_path / "d")
    assert f"there were no inputs: no file matches {tmp_path}/raw/*.cvs: there is no folder {tmp_path}/raw" in str(run.summary())
    assert run.status().before == 0
    finished(text, [1, 2], tmp_path / "d")
    again = finished(text, [1, 2, 2], tmp_path / "d")
    assert (again.status().before, again.summary().why_none) == (2, "")


def test_a_key_function_that_raises_says_for_which_input(tmp_path: Path) -> None:
    """Before anything runs, where inputs can be counted."""
    with pytest.raises(InputError, match=r"key= raised KeyError: 'id' for input 1"):
        dc.map(text, [{"id": 1}, {}], tmp_path / "d", key=lambda value: value["id"]).wait(60, progress="quiet")
    assert dc.open(tmp_path / "d").status().attempts == 0


# ------------------------------------------------------------------------------------------------------------------------ doubles


def test_the_same_key_and_value_count_once(tmp_path: Path) -> None:
    """In a list and in a stream; the summary says how many."""
    for name, inputs in (("list", [1, 2, 1, 1, 3]), ("stream", iter([1, 2, 1, 1, 3]))):
        run = finished(text, inputs, tmp_path / name)
        assert (run.summary().succeeded, run.summary().doubled) == (3, 2)
        assert "2 inputs were given more than once" in str(run.summary())
        assert len(run.results().compute()) == 3


def test_one_key_with_two_values_is_found_before_anything_runs(tmp_path: Path) -> None:
    """Where inputs can be counted; the error has the key and both positions."""
    inputs = [{"id": "a", "x": 1}, {"id": "b", "x": 1}, {"id": "a", "x": 2}]
    with pytest.raises(DuplicateKeyError, match="'a'") as caught:
        dc.map(text, inputs, tmp_path / "d", key="id").wait(60, progress="quiet")
    assert caught.value.key == "a"
    assert caught.value.positions == (0, 2)
    assert dc.open(tmp_path / "d").status().attempts == 0


def test_one_key_with_two_values_in_a_stream_harms_nothing_committed(tmp_path: Path) -> None:
    """It is found when it is met: what came before is committed, and stays."""
    first = threading.Event()

    def stream() -> Iterator[dict[str, Any]]:
        yield {"id": "a", "x": 1}
        yield {"id": "b", "x": 1}
        assert first.wait(30)
        yield {"id": "a", "x": 2}

    run = dc.map(text, stream(), tmp_path / "d", key="id")
    outcomes = run.as_completed()
    assert next(outcomes).succeeded
    first.set()
    with pytest.raises(DuplicateKeyError, match="'a'") as caught:
        run.wait(60, progress="quiet")
    assert caught.value.positions[1] == 2
    assert set(values(tmp_path / "d")) == {("a", "str"), ("b", "str")}


# ------------------------------------------------------------------------------------------------------------------------ refused


def test_a_value_over_a_megabyte_is_refused(tmp_path: Path) -> None:
    """The error says to pass a path."""
    with pytest.raises(ValueTooLargeError, match=r"input 1 .*pass a path"):
        dc.map(text, ["small", "x" * 1_100_000], tmp_path / "d").wait(60, progress="quiet")


def test_futures_and_delayed_objects_are_refused_with_the_line_that_does_it(tmp_path: Path) -> None:
    """dc.map itself raises."""
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    with pytest.raises(InputError, match=r"future\.result\(\)"):
        dc.map(text, [future], tmp_path / "d")
    with pytest.raises(InputError, match=r"dask\.compute\(\*inputs\)"):
        dc.map(text, [dask.delayed(text)(1)], tmp_path / "d")
    with pytest.raises(InputError, match=r"\.compute\(\)"):
        dc.map(text, dask.delayed([1, 2]), tmp_path / "d")
    with pytest.raises(InputError, match=r"dask\.compute\(\*inputs\)"):
        dc.map(text, iter([dask.delayed(text)(1)]), tmp_path / "d").wait(60, progress="quiet")


@pytest.mark.parametrize("inputs", ["raw/*.csv", b"x", Path("raw"), {"a": [1]}, 7, text])
def test_what_is_no_iterable_of_inputs_is_refused_at_once(tmp_path: Path, inputs: Any) -> None:
    """One text, a mapping, a number or a function is a mistake; the error says what to pass."""
    with pytest.raises(InputError, match="pass"):
        dc.map(text, inputs, tmp_path / "d")
    assert not (tmp_path / "d").exists()
