"""A dataset as inputs: each row that counts once, by name, wherever it lies, and the same item as long as it is the same row."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dcompute as dc
from dcompute.dataset.compaction import compact
from dcompute.dataset.deletion import delete
from dcompute.dataset.entries import Add
from dcompute.dataset.names import new_id
from dcompute.dataset.references import together
from dcompute.dataset.store import Store
from dcompute.dataset.vacuum import vacuum
from dcompute.errors import DatasetError, InputError, UsageError, ValueTooLargeError
from dcompute.inputs import Inputs
from dcompute.keys import derive
from dcompute.records import ItemKey
from tests.component.upkeep.driving import Driving

Rows = Sequence[Mapping[str, Any]]


def opened(value: Any) -> Any:
    """A value as the workload gets it."""
    return pickle.loads(pickle.dumps([value]))[0]


def by_row(url: Any, **options: Any) -> dict[str, tuple[dict[str, Any], str]]:
    """Value and fingerprint of each item, by its key."""
    found = [(item.key.text, (opened(item.value), item.fingerprint)) for item in Inputs.of(dc.rows(url, **options))]
    assert len(dict(found)) == len(found)
    return dict(found)


def by_key(url: Any, **options: Any) -> dict[str, tuple[list[dict[str, Any]], str]]:
    found = [
        (item.key.text, (opened(item.value).to_dict("records"), item.fingerprint)) for item in Inputs.of(dc.rows(url, by="key", **options))
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def text(of: str, number: int) -> str:
    return derive((of, number)).text


@pytest.fixture
def driver(tmp_path: Path) -> Driving:
    return Driving(Store.at(tmp_path / "raw"))


def test_an_item_a_row(driver: Driving) -> None:
    """Columns are keyword arguments; the key is that of the item with the number of the row in it."""
    driver.add({"a": [{"x": 1}, {"x": 2}], "b": [{"x": 1}], "none": []})
    found = by_row(driver.store.url)
    assert {key: value for key, (value, _) in found.items()} == {text("a", 0): {"x": 1}, text("a", 1): {"x": 2}, text("b", 0): {"x": 1}}
    assert found[text("a", 0)][1] == found[text("b", 0)][1] != found[text("a", 1)][1]
    assert Inputs.of(dc.rows(driver.store.url)).names == ("x",)


def test_a_column_may_be_the_key(driver: Driving) -> None:
    """``key=`` of a run names a column, or is a function of the row."""
    driver.add({"a": [{"x": 1}, {"x": 2}]})
    rows = dc.rows(driver.store.url)
    assert [item.key for item in Inputs.of(rows, key="x")] == [ItemKey("1", "int"), ItemKey("2", "int")]
    assert [item.key.text for item in Inputs.of(rows, key=lambda row: -row["x"])] == ["-1", "-2"]
    with pytest.raises(InputError, match="no such column"):
        Inputs.of(rows, key="y")
    with pytest.raises(InputError, match="leave it out"):
        Inputs.of(dc.rows(driver.store.url, by="key"), key="x")


def test_an_item_a_key(driver: Driving) -> None:
    """The rows of an item come together, under the key of the item, whatever its kind."""
    driver.add({"a": [{"x": 1}, {"x": 2}], "b": [{"x": 3}]})
    assert {key: rows for key, (rows, _) in by_key(driver.store.url).items()} == {"a": [{"x": 1}, {"x": 2}], "b": [{"x": 3}]}
    assert {item.key.kind for item in Inputs.of(dc.rows(driver.store.url, by="key"))} == {"str"}


def test_columns_that_are_not_asked_for_change_nothing(driver: Driving) -> None:
    """Only what is asked for is passed and compared; a column that came later does not change rows that have none."""
    driver.add({"a": [{"x": 1, "note": "old"}]})
    before, wide = by_row(driver.store.url, columns=["x", "item_key"]), by_row(driver.store.url)
    assert before[text("a", 0)][0] == {"x": 1, "item_key": "a"}
    driver.add({"b": [{"x": 1, "y": 2.0}]})
    assert by_row(driver.store.url)[text("a", 0)] == ({"x": 1, "note": "old", "y": None}, wide[text("a", 0)][1])
    driver.add({"a": [{"x": 1, "note": "new"}]}, hide=["a"])
    assert by_row(driver.store.url, columns=["x", "item_key"])[text("a", 0)] == before[text("a", 0)]
    assert by_row(driver.store.url)[text("a", 0)][1] != wide[text("a", 0)][1]
    with pytest.raises(UsageError, match="nothing"):
        dc.rows(driver.store.url, columns=["nothing"])


def test_only_what_counts_comes(driver: Driving) -> None:
    """Rows that were hidden, left out or deleted are no items, and neither are those that failed."""
    driver.add({"a": [{"x": 1}], "b": [{"x": 2}], "c": [{"x": 3}], "failed": None})
    driver.add({"a": [{"x": 4}], "left": [{"x": 5}]}, hide=["a"], left_out=(ItemKey("left", "str"),))
    driver.close()
    delete(driver.store, ["b"])
    expected = {"a": [{"x": 4}], "c": [{"x": 3}]}
    for _ in range(2):
        assert {key: rows for key, (rows, _) in by_key(driver.store.url).items()} == expected
        assert {value["x"] for value, _ in by_row(driver.store.url).values()} == {3, 4}
        compact(driver.store)


def split(driver: Driving, did: Mapping[str, Rows], more: Mapping[str, Rows]) -> None:
    """Add a batch whose results are in two files."""
    one, two = driver.write(did), driver.write(more)
    name = one.results[0].name.replace("-0.parquet", "-1.parquet")
    driver.store.create(name, driver.store.read(two.results[0].name))
    parts = (*one.results, replace(two.results[0], name=name))
    driver.writer.commit([Add(batches=(replace(one, results=parts, rows=one.rows + two.rows),))])


def test_an_item_of_several_files_comes_whole(driver: Driving) -> None:
    """A batch may write an item's rows into two files: they are one item, and its rows are numbered through."""
    driver.add({"z": [{"x": 0}]})
    split(driver, {"a": [{"x": 1}]}, {"a": [{"x": 2}], "b": [{"x": 3}]})
    assert {key: rows for key, (rows, _) in by_key(driver.store.url).items()} == {
        "z": [{"x": 0}],
        "a": [{"x": 1}, {"x": 2}],
        "b": [{"x": 3}],
    }
    assert by_row(driver.store.url)[text("a", 1)][0] == {"x": 2}


def test_compaction_changes_no_item(driver: Driving, monkeypatch: pytest.MonkeyPatch) -> None:
    """In other files, other row groups and another order the items are the same ones: those that lie apart come together."""
    monkeypatch.setattr("dcompute.dataset.merging.GROUP_ROWS", 2)
    monkeypatch.setattr("dcompute.dataset.merging.SORT_BYTES", 1)
    driver.add({"a": [{"x": 5, "y": 1}, {"x": 1, "y": 2}, {"x": 4, "y": 3}], "b": [{"x": 3, "y": 1}]})
    driver.add({"c": [{"x": 0, "y": 1}, {"x": 9, "y": 1}]})
    before, rows = by_key(driver.store.url), by_row(driver.store.url)
    driver.close()
    compact(driver.store, all=True)
    assert by_row(driver.store.url) == rows
    assert by_key(driver.store.url) == before
    compact(driver.store, all=True, sort_by="x")
    after = by_key(driver.store.url)
    assert {key: stamp for key, (_, stamp) in after.items()} == {key: stamp for key, (_, stamp) in before.items()}
    assert sorted(row["x"] for row in after["a"][0]) == [1, 4, 5]
    assert sorted(by_row(driver.store.url)) == sorted(rows)


def test_a_column_with_another_name_is_read_under_that(driver: Driving) -> None:
    """Of files of before a renaming, after one, and compacted."""
    driver.add({"a": [{"x": 1}]})
    driver.close()
    dc.open(driver.store.url).rename({"x": "width"})
    after = Driving(driver.store, "r2")
    after.add({"b": [{"width": 2}]})
    after.close()
    for _ in range(2):
        assert {key: value for key, (value, _) in by_row(driver.store.url).items()} == {
            text("a", 0): {"width": 1},
            text("b", 0): {"width": 2},
        }
        compact(driver.store, all=True)


def test_places_stay_good_until_vacuum(driver: Driving) -> None:
    """What was planned before a compaction is read after it; what vacuum removed is an error that says so."""
    driver.add({"a": [{"x": 1}]})
    driver.add({"b": [{"x": 2}]})
    (first, second) = [item.value for item in Inputs.of(dc.rows(driver.store.url))]
    driver.close()
    compact(driver.store, all=True)
    assert opened(first) == {"x": 1}
    vacuum(driver.store, 0)
    with pytest.raises(DatasetError, match="vacuum"):
        opened(second)


def test_the_entry_is_that_of_the_call(driver: Driving) -> None:
    """What is committed later is no input of a run that was planned before, and the number of the last entry is known."""
    driver.add({"a": [{"x": 1}]})
    dataset = dc.open(driver.store.url)
    number = dataset.state.number
    rows = dc.rows(dataset)
    driver.add({"b": [{"x": 2}]})
    dataset.refresh()
    assert Inputs.of(rows).sources == ((driver.store.url, number),)
    assert [opened(item.value) for item in Inputs.of(rows)] == [{"x": 1}]
    assert len(by_row(dataset)) == 2
    assert len(by_row(dc.open(driver.store.url, at=number))) == 1


def test_several_datasets_are_one(driver: Driving, tmp_path: Path) -> None:
    """Of a key that two datasets have the first one's rows come."""
    other = Driving(Store.at(tmp_path / "raw2"))
    driver.add({"a": [{"x": 1}], "b": [{"x": 2}]})
    other.add({"b": [{"x": 3}], "c": [{"x": 4}]})
    both = [driver.store.url, other.store.url]
    assert {key: rows for key, (rows, _) in by_key(both).items()} == {"a": [{"x": 1}], "b": [{"x": 2}], "c": [{"x": 4}]}
    assert [url for url, _ in Inputs.of(dc.rows(both)).sources] == both


def test_an_item_a_part(driver: Driving) -> None:
    """The path of each file, as long as all rows in it count."""
    driver.add({"a": [{"x": 1}]})
    driver.add({"b": [{"x": 2}]})
    (first, second) = Inputs.of(dc.rows(driver.store.url, by="part"))
    assert Path(first.value).exists()
    assert (first.key.text, first.fingerprint != second.fingerprint) == (f"results/{Path(first.value).name}", True)
    driver.add({"a": [{"x": 3}]}, hide=["a"])
    with pytest.raises(InputError, match='Use by="key"'):
        list(Inputs.of(dc.rows(driver.store.url, by="part")))


def test_an_item_may_have_any_number_of_rows(driver: Driving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that lie together travel as one range; of an item with too many places apart the error says how to lay them together."""
    monkeypatch.setattr("dcompute.upstream.LARGEST_VALUE", 1000)
    many = [{"x": number % 2} for number in range(1000)]
    driver.add({"many": many, "b": [{"x": 3}]})
    assert {key: rows for key, (rows, _) in by_key(driver.store.url).items()} == {"many": many, "b": [{"x": 3}]}
    assert max(item.size for item in Inputs.of(dc.rows(driver.store.url, by="key"))) < 1000
    driver.close()
    other = Driving(driver.store, "r2")
    other.add({"other": [{"x": 0.5 - number} for number in range(400)] + [{"x": number} for number in range(400)]})
    other.add({"more": [{"x": number + 0.5} for number in range(400)]})
    other.close()
    dc.open(driver.store.url).compact(all=True, sort_by="x")
    with pytest.raises(ValueTooLargeError, match=r'of .* lie at [4-9]\d\d places .*sort_by="item_key"'):
        by_key(driver.store.url)
    dc.open(driver.store.url).compact(all=True, sort_by="item_key")
    assert {key: len(rows) for key, (rows, _) in by_key(driver.store.url).items()} == {"many": 1000, "b": 1, "other": 800, "more": 400}


def test_places_that_lie_together_are_ranges() -> None:
    """Two rows are two numbers, more are a pair; whatever is taken is what was meant."""
    assert together(np.array([5])) == (5,)
    assert together(np.array([1, 2, 4, 5, 6, 9])) == (1, 2, (4, 7), 9)


def test_what_is_no_such_thing_is_refused(driver: Driving) -> None:
    """Items are by row, key or part."""
    driver.add({"a": [{"x": 1}]})
    with pytest.raises(InputError, match='say "row", "key" or "part"'):
        dc.rows(driver.store.url, by="column")  # type: ignore[arg-type]


def test_a_preview_of_rows_writes_nothing_and_a_dataset_is_its_rows(driver: Driving, tmp_path: Path) -> None:
    """An open dataset given as inputs is its rows."""
    driver.add({"a": [{"x": 1}, {"x": 2}]})

    def half(x: int) -> float:
        return x / 2

    found = dc.preview(half, dc.open(driver.store.url), tmp_path / "out")
    assert (found.todo, found.examples) == (2, (text("a", 0), text("a", 1)))


def test_a_dataset_is_not_its_own_input(driver: Driving, tmp_path: Path) -> None:
    """Its outcomes would be new inputs each time; that is refused before anything runs."""
    driver.add({"a": [{"x": 1}]})
    for inputs in (dc.open(driver.store.url), dc.rows([driver.store.url], by="key")):
        with pytest.raises(UsageError, match="both the input and the dataset"):
            dc.preview(abs, inputs, driver.store.url)


@pytest.mark.parametrize(
    ("by", "columns", "why"),
    [
        ("row", ["x", "x"], "'x' twice"),
        ("key", ["x", "item_key", "x"], "'x' twice"),
        ("key", [], "no column"),
        ("part", ["x"], 'by="part"'),
    ],
)
def test_columns_that_make_no_sense_are_refused_at_once(driver: Driving, by: Any, columns: list[str], why: str) -> None:
    """One that is named twice, none at all, and those of whole files."""
    driver.add({"a": [{"x": 1}]})
    with pytest.raises(UsageError, match=why):
        dc.rows(driver.store.url, by=by, columns=columns)


# ------------------------------------------------------------------------------------------------------------------ any history

keys = st.sampled_from("abcd")
steps = st.lists(
    st.one_of(
        st.dictionaries(keys, st.lists(st.integers(0, 3), max_size=4), min_size=1),
        st.sampled_from(["compact", "sort", "merge"]),
    ),
    min_size=1,
    max_size=7,
)


@given(history=steps)
@settings(max_examples=20, deadline=None)
def test_whatever_happened_the_items_are_what_counts(history: list[Any]) -> None:
    """After any adding, replacing and compacting each item has its rows, and a fingerprint that changes with them and with nothing else."""
    driver = Driving(Store.at(f"memory://{new_id()}"))
    driver.add({"first": [{"x": 7}]})
    expected: dict[str, list[int]] = {"first": [7]}
    stamps: dict[str, tuple[list[int], str]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dcompute.dataset.merging.GROUP_ROWS", 2)
        patch.setattr("dcompute.dataset.merging.SORT_BYTES", 1)
        for step in history:
            if isinstance(step, str):
                compact(driver.store, all=step != "merge", sort_by="x" if step == "sort" else None)
                driver.writer.catch_up()
            else:
                driver.add({key: [{"x": x} for x in rows] for key, rows in step.items()}, hide=[key for key in step if key in expected])
                expected |= step
            found = by_key(driver.store.url)
            assert {key: sorted(row["x"] for row in rows) for key, (rows, _) in found.items()} == {
                key: sorted(rows) for key, rows in expected.items() if rows
            }
            assert len(by_row(driver.store.url)) == sum(map(len, expected.values()))
            for key, (_, stamp) in found.items():
                rows, before = stamps.get(key, ([], ""))
                assert (stamp == before) == (sorted(expected[key]) == rows)
                stamps[key] = sorted(expected[key]), stamp
