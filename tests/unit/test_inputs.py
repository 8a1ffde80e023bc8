from __future__ import annotations

import datetime
import itertools
import os
import re
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dcompute as dc
from dcompute.errors import InputError, KeyDerivationError, ValueTooLargeError
from dcompute.inputs import Inputs
from dcompute.keys import derive, fingerprint
from dcompute.records import Item, ItemKey


def _all(inputs: Any, key: Any = None) -> list[Item]:
    return list(Inputs.of(inputs, key))


def _keys(inputs: Any, key: Any = None) -> list[tuple[str, str]]:
    return [tuple(item.key) for item in Inputs.of(inputs, key)]  # type: ignore[misc]


ITERABLES = [
    [3, "a", 1.5],
    (1, 2),
    range(5),
    {7},
    frozenset({"a"}),
    deque([1, 2]),
    np.arange(3),
    pd.Series([1, 2]),
    {"a": 1}.keys(),
]


@pytest.mark.parametrize("inputs", ITERABLES, ids=repr)
def test_what_has_a_length_is_counted_and_gives_its_members(inputs: Any) -> None:
    """Keys, values, fingerprints and positions, in order."""
    made = Inputs.of(inputs)
    items = list(made)
    assert made.count == len(inputs) == len(items)
    assert [item.value for item in items] == list(inputs)
    assert [item.key for item in items] == [derive(value) for value in inputs]
    assert [item.fingerprint for item in items] == [fingerprint(value) for value in inputs]
    assert [item.position for item in items] == list(range(len(items)))
    assert not made.keywords


def test_a_stream_is_taken_one_by_one() -> None:
    """Nothing is read before it is asked for, and each item comes as soon as its value does."""
    taken = []

    def values() -> Iterator[Any]:
        for value in itertools.cycle([1, "a", (1, 2), "ä"]):
            taken.append(value)
            yield value

    made = Inputs.of(values())
    assert made.count is None
    items = iter(made)
    first = [next(items) for _ in range(4)]
    assert taken == [1, "a", (1, 2), "ä"]
    assert [item.key for item in first] == [derive(value) for value in taken]
    assert [item.fingerprint for item in first] == [fingerprint(value) for value in taken]
    assert [item.position for item in first] == [0, 1, 2, 3]


@given(st.lists(st.integers() | st.text() | st.booleans() | st.floats() | st.tuples(st.integers())), st.integers(1, 5))
def test_items_do_not_depend_on_how_they_are_read(values: list[Any], size: int) -> None:
    """One by one, in chunks, by position, or as a stream."""
    items = list(Inputs.of(values))
    by_chunk = [item for chunk in Inputs.of(values).chunks(size) for item in chunk]
    picked = Inputs.of(values).pick(range(len(values)))
    stream = list(Inputs.of(iter(values)))
    assert _ids(items) == _ids(by_chunk) == _ids(picked) == _ids(stream)


def _ids(items: list[Item]) -> list[tuple[Any, ...]]:
    return [(item.key, item.fingerprint, item.position, item.replaces) for item in items]


@given(
    st.lists(st.integers(0, 3) | st.sampled_from(["0", "1", "ä"]) | st.booleans() | st.sampled_from([np.int64(1), 1.0, (1,)]), max_size=8)
)
def test_one_key_has_one_hash(values: list[Any]) -> None:
    """Whatever stands beside it: doubles are found by hash."""
    hashes = np.concatenate([*Inputs.of(values).hashes(), np.empty(0, dtype=np.uint64)])
    keys = [derive(value) for value in values]
    for (key, one), (other, two) in itertools.combinations(zip(keys, hashes, strict=True), 2):
        assert key != other or one == two


@pytest.mark.parametrize("text", ["a", "é", "\udcff", "\\udcff", np.str_("\udcff")])
def test_a_text_has_its_hash_beside_other_types_too(text: str) -> None:
    """Texts alone are hashed as they are: beside a date, in another bunch, it is the same hash."""
    alone, beside = (next(iter(Inputs.of(values).hashes())) for values in ([text], [text, datetime.date(2024, 5, 1)]))
    assert alone[0] == beside[0]


def test_one_and_the_text_one_differ() -> None:
    """By the recorded kind."""
    assert _keys([1, "1"]) == [("1", "int"), ("1", "str")]


# ------------------------------------------------------------------------------------------------------------------------ refusing


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ("raw/*.csv", r"dc.files\('raw/\*.csv'\)"),
        (b"abc", "one value"),
        (PurePosixPath("a"), "dc.files"),
        ({"a": [1]}, r"dc.grid\(\*\*mapping\)"),
        (3, "cannot be iterated"),
        (None, "cannot be iterated"),
        (lambda: [1], "pass what it returns"),
        ([Future()], r"\[future.result\(\) for future in inputs\]"),
        (Future(), "future"),
    ],
)
def test_what_cannot_be_inputs_is_refused_with_the_line_that_does_it(inputs: Any, words: str) -> None:
    """At once, or where it is met."""
    with pytest.raises(InputError, match=words):
        _all(inputs)


def test_what_dask_has_not_computed_is_refused() -> None:
    """Delayed objects, bags and arrays, as inputs and among them."""
    import dask.bag
    from dask import delayed

    one = delayed(len)([1])
    for inputs in ([one], one, dask.bag.from_sequence([1]), (value for value in [1, one])):
        with pytest.raises(InputError, match=r"dask.compute\(\*inputs\)"):
            _all(inputs)


@pytest.mark.parametrize("hold", [lambda x: (1, x), lambda x: [[x]], lambda x: {"k": 1, "d": {"e": (x,)}}], ids=["tuple", "list", "dict"])
def test_what_is_not_computed_is_refused_within_values_too(hold: Any) -> None:
    """In tuples, lists and mappings, of inputs that can be counted and of streams: it would reach the workload as what it is."""
    from dask import delayed

    for lazy, words in ((delayed(len)([1]), r"dask.compute\(\*inputs\)"), (Future(), "future")):
        for inputs in ([hold(lazy)], [hold(1), hold(lazy)], iter([hold(1), hold(lazy)])):
            with pytest.raises(InputError, match=words):
                _all(inputs, lambda value: repr(type(value)))
    assert [item.value for item in _all([hold(1)], lambda value: 1)] == [hold(1)]


def test_a_value_that_holds_itself_is_not_looked_into_for_ever() -> None:
    """It is looked into so deep and no deeper."""
    ring: list[Any] = [1]
    ring.append(ring)
    assert len(_all([ring], lambda value: "ring")) == 1


def test_a_future_of_distributed_is_answered_with_gather() -> None:
    """Recognised by its type, without a cluster."""
    from distributed import Future as DistributedFuture

    class Unconnected(DistributedFuture):  # type: ignore[misc]
        def __init__(self) -> None:
            """A future of no client."""

        def __del__(self) -> None:
            """There is nothing to release."""

    with pytest.raises(InputError, match=r"client.gather\(inputs\)"):
        _all([Unconnected()])


def test_inputs_whose_changes_cannot_be_seen_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """With the type that is to blame and what to do; inputs that can be compared cause no words."""
    odd = [{"k": name, "n": 1, "pattern": re.compile(name)} for name in "abc"]
    assert [item.fingerprint for item in _all([{"k": "z"}, *odd], "k")][1:] == ["", "", ""]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "changes of these inputs cannot be seen: input 1 (from 0) with key 'a' holds a re.Pattern" in record.getMessage()
    assert "version=" in record.getMessage()
    caplog.clear()
    _all([{"k": 1, "n": [1]}, {"k": 2, "when": datetime.date(2024, 5, 1)}], "k")
    assert caplog.records == []


def test_values_over_a_megabyte_are_refused() -> None:
    """Texts, bytes and arrays, in lists and streams, with their position."""
    for value in ("x" * 1_000_001, {"a": b"x" * 1_000_001}, np.zeros(10**6)):
        key = None if isinstance(value, str) else (lambda value: "k")
        for inputs in ([1, value], iter([1, value])):
            with pytest.raises(ValueTooLargeError, match=r"input 1 .*pass a path"):
                _all(inputs, key)
    assert len(_all(["x" * 900_000])) == 1


def test_a_value_without_a_key_is_named_with_its_position() -> None:
    """The way out is in the error."""
    with pytest.raises(KeyDerivationError, match=r"input 1 \(from 0\).*pass key="):
        _all([1, [2]])


# ---------------------------------------------------------------------------------------------------------------------------- key


def test_key_as_a_function_of_the_value() -> None:
    """What it returns is derived from, the value keeps its fingerprint; streams too."""
    for inputs in ([[1, 2], [3]], iter([[1, 2], [3]])):
        items = _all(inputs, len)
        assert [item.key for item in items] == [ItemKey("2", "int"), ItemKey("1", "int")]
        assert [item.fingerprint for item in items] == [fingerprint([1, 2]), fingerprint([3])]


def test_key_as_a_column_or_member() -> None:
    """Of a table, a grid, or mappings."""
    frame = pd.DataFrame({"name": ["a", "b"], "x": [1, 2]})
    assert _keys(frame, "name") == [("a", "str"), ("b", "str")]
    assert _keys(dc.grid(a=[1, 2], b=[3]), "a") == [("1", "int"), ("2", "int")]
    assert _keys([{"id": "q"}], "id") == [("q", "str")]


@pytest.mark.parametrize(
    ("inputs", "key", "words"),
    [
        (pd.DataFrame({"a": [1]}), "b", "no such column; there are a"),
        ([1], 3, "say a function"),
        ([1], "a", r"^input 0 \(from 0\): key='a' names a member of each input, and this one is of type int: give a function"),
        ([{"a": 1}, {"b": 1, "c": 2}], "a", r"input 1 \(from 0\): key='a' names a member .* this one has b, c"),
        ([1], lambda value: 1 / 0, r"ZeroDivisionError: division by zero for input 0"),
        ([1], lambda value: None, r"input 0 \(from 0\): key= gives None, and has to give a text or a number"),
        (dc.files("*.py"), "name", "files have no columns"),
    ],
)
def test_a_key_that_cannot_be_had_is_an_error(inputs: Any, key: Any, words: str) -> None:
    """Which says whose fault it is."""
    with pytest.raises(InputError, match=words):
        _all(inputs, key)


# ------------------------------------------------------------------------------------------------------------------------- tables


def test_a_row_of_a_table_is_keyword_arguments() -> None:
    """Without a named index all values are the key; whole numbers beside missing values stay what they are."""
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    made = Inputs.of(frame)
    assert (made.keywords, made.count, made.names) == (True, 2, ("a", "b"))
    assert [item.value for item in made] == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert _keys(frame)[0] == ('{"a":1,"b":"x"}', "dict")
    assert type(next(iter(made)).value["a"]) is int


def test_a_named_index_is_the_key() -> None:
    """A simple one, one of several levels, one of dates."""
    frame = pd.DataFrame({"x": [1, 2]})
    assert _keys(frame.set_index(pd.Index(["p", "q"], name="id"))) == [("p", "str"), ("q", "str")]
    levels = pd.MultiIndex.from_tuples([("p", 1), ("q", 2)], names=["id", "n"])
    assert _keys(frame.set_index(levels)) == [('["p",1]', "tuple"), ('["q",2]', "tuple")]
    dates = pd.DatetimeIndex(["2024-05-01", "2024-05-02"], name="day")
    assert _keys(frame.set_index(dates))[0] == ("2024-05-01T00:00:00", "datetime")
    assert _keys(frame.set_index(pd.Index(["p", "q"], name="id")), "id") == [("p", "str"), ("q", "str")]
    assert Inputs.of(frame.set_index(pd.Index(["p", "q"], name="id"))).distinct
    assert not Inputs.of(frame.set_index(pd.Index(["p", "p"], name="id"))).distinct


def test_tables_without_rows_or_columns() -> None:
    """No rows are no items; no columns are calls without arguments."""
    assert _all(pd.DataFrame({"a": []})) == []
    frame = pd.DataFrame(index=pd.Index(["p", "q"], name="id"))
    assert [item.value for item in Inputs.of(frame)] == [{}, {}]


def test_missing_values_and_types_of_arrow_have_keys() -> None:
    """Whatever pandas calls missing."""
    frame = pd.DataFrame(
        {
            "i": pd.array([1, None], dtype="Int64"),
            "f": [1.5, float("nan")],
            "t": pd.to_datetime(["2024-05-01", None]),
            "c": pd.Categorical(["x", None]),
        }
    )
    assert _keys(frame)[1][0] == '{"c":{"$float":"nan"},"f":{"$float":"nan"},"i":null,"t":null}'


def test_tables_that_cannot_be_called_with_are_refused() -> None:
    """Columns without a text for a name, two of one name, tables of other libraries."""
    import pyarrow as pa

    with pytest.raises(InputError, match="column 0"):
        Inputs.of(pd.DataFrame([[1, 2]]))
    with pytest.raises(InputError, match="two columns 'a'"):
        Inputs.of(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(InputError, match=r"inputs.to_pandas\(\)"):
        Inputs.of(pa.table({"a": [1]}))


def test_a_dask_dataframe_is_a_stream_of_its_rows() -> None:
    """A partition at a time, with the keys of the same pandas dataframe."""
    import dask
    import dask.dataframe as dd

    frame = pd.DataFrame({"x": range(10)}, index=pd.Index(list("abcdefghij"), name="id"))
    for given_ in (frame, frame.reset_index(drop=True)):
        with dask.config.set(scheduler="synchronous"):
            made = Inputs.of(dd.from_pandas(given_, npartitions=3))
            items = list(made)
        assert (made.count, made.keywords) == (None, True)
        assert _ids(items) == _ids(_all(given_))


# -------------------------------------------------------------------------------------------------------------------------- grids


def test_a_grid_is_all_combinations() -> None:
    """The last axis changes quickest, generators are taken once, and any position can be had."""
    grid = dc.grid(a=[1, 2], b=(letter for letter in "xy"))
    made = Inputs.of(grid)
    values = [item.value for item in made]
    assert values == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    assert [item.value for item in made.pick([3, 1])] == [values[3], values[1]]
    assert (made.count, made.keywords, made.names, len(grid)) == (4, True, ("a", "b"), 4)
    assert list(values[0]) == ["a", "b"]


def test_a_grid_knows_whether_an_axis_repeats() -> None:
    """Then its combinations have to be looked at."""
    assert Inputs.of(dc.grid(a=[1, "1", 1.0])).distinct
    assert not Inputs.of(dc.grid(a=[1, 1])).distinct
    assert Inputs.of(dc.grid(a=[], b=[1])).count == 0


@pytest.mark.parametrize("axes", [{}, {"a": "abc"}, {"a": 3}, {"a": {"x": 1}}])
def test_axes_that_are_none_are_refused(axes: dict[str, Any]) -> None:
    """With an example of one."""
    with pytest.raises(InputError, match=r"grid\("):
        dc.grid(**axes)


def _indexed(names: list[Any], columns: list[str]) -> pd.DataFrame:
    """Two rows with an index of these names."""
    index = pd.MultiIndex.from_tuples([(1, 2), (3, 4)], names=names) if len(names) > 1 else pd.Index([1, 2], name=names[0])
    return pd.DataFrame({column: [5, 6] for column in columns}, index=index)


@pytest.mark.parametrize(
    ("names", "columns", "key", "words"),
    [
        (["id"], ["id", "x"], "id", "a column and an index of this name.*rename"),
        (["id", "day"], ["id", "x"], "id", "a column and an index of this name.*rename"),
        (["id", "day"], ["x"], "id", r"one of the 2 levels.*leave key= out.*reset_index\('id'\)"),
        (["id", None], ["x"], None, r"levels 'id', \(no name\).*rename_axis.*reset_index\(drop=True\)"),
        ([None, None], ["x"], None, r"levels \(no name\), \(no name\)"),
        (["id"], ["x"], "ix", "no such column; there are x"),
    ],
)
def test_an_index_that_may_mean_two_things_is_refused(names: list[Any], columns: list[str], key: str | None, words: str) -> None:
    """With what to do: keys are the identity of items for as long as their dataset lives."""
    with pytest.raises(InputError, match=words):
        Inputs.of(_indexed(names, columns), key)


def test_an_index_gives_keys_by_its_name_too() -> None:
    """Of pandas and of Dask; an index without names stays aside where key= says what counts."""
    import dask.dataframe as dd

    table = _indexed(["id"], ["x"])
    assert _keys(table, "id") == _keys(table) == [("1", "int"), ("2", "int")]
    assert _keys(dd.from_pandas(table, npartitions=1), "id") == _keys(table)
    assert _keys(_indexed([None, None], ["x"]), "x") == [("5", "int"), ("6", "int")]


# -------------------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with some files below ``raw``."""
    for name in ("raw/b.csv", "raw/a.csv", "raw/c.txt", "raw/deep/er/d.csv", "raw/.hidden.csv", "raw/x[1].csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _names(inputs: Any, root: Path) -> list[str]:
    return [os.path.relpath(item.value, root / "raw") for item in Inputs.of(inputs)]


def test_files_come_sorted_by_path_as_text(folder: Path) -> None:
    """As a worker in another directory finds them; hidden ones and folders are not meant by a star."""
    assert _names(dc.files("raw/*.csv"), folder) == ["a.csv", "b.csv", "x[1].csv"]
    assert _names(dc.files("raw/**/*.csv"), folder) == ["a.csv", "b.csv", "deep/er/d.csv", "x[1].csv"]
    assert _names(dc.files("raw/*"), folder) == ["a.csv", "b.csv", "c.txt", "x[1].csv"]
    first = _all(dc.files("raw/*.csv"))[0]
    assert first.key == ItemKey(str(folder / "raw" / "a.csv"), "str")
    assert first.value == str(folder / "raw" / "a.csv")


def test_files_by_path_url_and_several_patterns(folder: Path) -> None:
    """Each file once, whatever matches it; brackets of a real name are no pattern."""
    assert _names(dc.files(Path("raw/a.csv")), folder) == ["a.csv"]
    assert _names(dc.files(f"file://{folder}/raw/a.csv"), folder) == ["a.csv"]
    assert _names(dc.files(["raw/a.*", "raw/?.csv", Path("raw") / "c.txt"]), folder) == ["a.csv", "b.csv", "c.txt"]
    assert _names(dc.files("raw/x[1].csv"), folder) == ["x[1].csv"]
    assert _names(dc.files("raw/../raw/a.csv"), folder) == ["a.csv"]


def test_the_fingerprint_of_a_file_changes_with_it(folder: Path) -> None:
    """By size or time; and with nothing else."""

    def now() -> dict[str, str]:
        return {item.value: item.fingerprint for item in Inputs.of(dc.files("raw/[ab].csv"))}

    before = now()
    assert now() == before
    os.utime(folder / "raw" / "a.csv", ns=(1, 1))
    (folder / "raw" / "b.csv").write_text("longer than before")
    after = now()
    assert all(after[path] != before[path] and len(after[path]) == 32 for path in before)


def test_a_link_to_a_file_changes_with_the_file(folder: Path) -> None:
    """And one to nothing is no file."""
    (folder / "raw" / "link.csv").symlink_to(folder / "raw" / "a.csv")
    (folder / "raw" / "dead.csv").symlink_to(folder / "nowhere")
    found = {os.path.basename(item.value): item.fingerprint for item in Inputs.of(dc.files("raw/*.csv"))}
    assert "dead.csv" not in found
    assert found["link.csv"] == found["a.csv"]


def test_files_are_counted_and_distinct(folder: Path) -> None:
    """They are listed once."""
    made = Inputs.of(dc.files("raw/*.csv"))
    assert (made.count, made.distinct, made.keywords) == (3, True, False)
    assert [item.position for item in made.pick([2, 0])] == [2, 0]
    assert Inputs.of(dc.files("raw/*.parquet")).count == 0


def test_the_working_directory_is_that_of_the_call(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are listed later than they are named."""
    found = dc.files("raw/a.csv")
    monkeypatch.chdir("/")
    assert len(found) == 1


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("raw/missing.csv", "there is no file .*raw/missing.csv"),
        ("raw", r"raw is a folder.*raw/\*"),
        ("", "say a path"),
        (3, "say a path"),
        (None, "say a path"),
        (b"raw", "say a path"),
        ("a::memory://b", "within another"),
        ("nonsense://x", "nonsense"),
    ],
)
def test_files_that_cannot_be_are_refused(folder: Path, pattern: Any, words: str) -> None:
    """A literal path that is not there is a mistake; a pattern that matches nothing is not."""
    with pytest.raises(InputError, match=words):
        _all(dc.files(pattern))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("raw/*.cvs", r"no file matches raw/\*.cvs: check the spelling, and what is in /.*/raw; \*\* looks into the folders below too"),
        ("raw/**/*.cvs", r"what is in /.*/raw$"),
        ("row/deep/*.csv", r"there is no folder /.*/row$"),
        (["raw/*.cvs", "row/*.csv"], r"raw/\*.cvs, row/\*.csv: .*; there is no folder"),
        ("memory://nothing/*.csv", r"check memory://nothing/\*.csv, and that its storage"),
    ],
    ids=str,
)
def test_a_pattern_that_matches_nothing_is_told_with_what_to_look_at(folder: Path, pattern: Any, words: str) -> None:
    """Which folder is not there, or in which one to look."""
    made = Inputs.of(dc.files(pattern))
    assert made.count == 0
    assert re.search(words, made.why_none())


def test_other_inputs_that_are_none_say_what_they_are() -> None:
    """A generator that was read before gives nothing, and looks like a mistake of the machine."""
    assert Inputs.of([]).why_none() == "a list of 0"
    assert Inputs.of(pd.DataFrame({"a": []})).why_none() == "a table of 0 rows with 1 column"
    assert Inputs.of(dc.grid(a=[], b=[1])).why_none() == "a grid of 0 a x 1 b = 0"
    assert "only once" in Inputs.of(iter([])).why_none()


def test_files_elsewhere_come_as_urls() -> None:
    """With a fingerprint that changes when they are written anew."""
    root = f"memory://{uuid.uuid4().hex}"
    filesystem = fsspec.filesystem("memory")
    for name in ("b.csv", "a.csv", "c.txt"):
        filesystem.pipe_file(f"{root}/{name}", name.encode())
    items = _all(dc.files(f"{root}/*.csv"))
    assert [item.value.rpartition("/")[2] for item in items] == ["a.csv", "b.csv"]
    assert all(item.value.startswith("memory://") and item.key.kind == "str" for item in items)
    assert all(filesystem.exists(item.value) for item in items)
    filesystem.pipe_file(f"{root}/a.csv", b"other")
    again = _all(dc.files(f"{root}/a.csv"))
    assert again[0].key == items[0].key
    assert again[0].fingerprint != items[0].fingerprint
    with pytest.raises(InputError, match="there is no file"):
        _all(dc.files(f"{root}/missing.csv"))


def test_dates_of_inputs_keep_their_kind() -> None:
    """A date and its text are two keys."""
    assert _keys([datetime.date(2024, 5, 1), "2024-05-01"]) == [("2024-05-01", "date"), ("2024-05-01", "str")]


def test_what_inputs_are_is_told() -> None:
    """In a few words for a person."""
    assert Inputs.of([1, 2]).describe() == "a list of 2"
    assert Inputs.of(iter([1])).describe() == "a stream"
    assert Inputs.of(dc.grid(a=[1, 2], b=[3])).describe() == "a grid of 2 a x 1 b = 2"
    assert Inputs.of(pd.DataFrame({"a": [1]})).describe() == "a table of 1 row with 1 column"


def test_inputs_are_inputs() -> None:
    """What was made once is not made again."""
    made = Inputs.of([1])
    assert Inputs.of(made) is made
