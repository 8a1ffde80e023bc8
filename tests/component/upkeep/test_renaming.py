"""Renaming: one name for a column in whatever reads, whenever its part was written, and in the files once they are compacted."""

from __future__ import annotations

import contextlib
import io
import json
import uuid

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dcompute as dc
from dcompute.dataset import duck, fetching
from dcompute.dataset.checkpoint_file import from_bytes, to_bytes
from dcompute.dataset.compaction import compact
from dcompute.dataset.entries import Rename, Replace, SetSchema
from dcompute.dataset.log import Log
from dcompute.dataset.reading import results_arrow
from dcompute.dataset.renames import Renames, outstanding
from dcompute.dataset.renaming import due_before, rename
from dcompute.dataset.schema import declared, from_text, to_text
from dcompute.dataset.store import Store
from dcompute.dataset.vacuum import vacuum
from dcompute.dataset.writer import open_dataset
from dcompute.errors import DatasetBusy, SchemaError, StoreError
from dcompute.testing import Fault, FaultStore, ManualClock
from tests.component.upkeep.driving import Driving


@pytest.fixture
def store(tmp_path):
    return FaultStore(Store.at(tmp_path / "dataset"))


def run_of(store, did, run="r1"):
    driving = Driving(store, run)
    for text, row in did.items():
        driving.add({text: [row]})
    driving.close()


def rows(store, at=None):
    """By key what its row has, nulls left out."""
    table = results_arrow(store, open_dataset(store, at=at)[1])
    return {row.pop("item_key"): {k: v for k, v in row.items() if v is not None and k != "key_kind"} for row in table.to_pylist()}


@pytest.fixture(params=["disk", "memory"])
def mixed(request, tmp_path):
    """Before the renaming of old to new: a and b. After it: c has the new name, and d an old column of its own."""
    store = Store.at(tmp_path / "dataset" if request.param == "disk" else f"memory://{uuid.uuid4().hex}")
    run_of(store, {"a": {"old": 1, "x": "one"}, "b": {"old": 2, "x": "two"}})
    rename(store, {"old": "new"})
    run_of(store, {"c": {"new": 3, "x": "three"}, "d": {"new": 4, "old": "other"}}, "r2")
    return store


EXPECTED = {
    "a": {"new": 1, "x": "one"},
    "b": {"new": 2, "x": "two"},
    "c": {"new": 3, "x": "three"},
    "d": {"new": 4, "old": "other"},
}


def told(table):
    return {row.pop("item_key"): {k: v for k, v in row.items() if v is not None and k != "key_kind"} for row in table.to_pylist()}


def test_every_reader_has_the_new_name(mixed):
    """Arrow, pandas, Polars, DuckDB and Dask: parts of before have the new name, and an old column of later is one of its own."""
    dataset = dc.open(mixed.url)
    assert told(dataset.to_arrow()) == EXPECTED
    assert told(pa.Table.from_pandas(dataset.to_pandas(), preserve_index=False)) == EXPECTED
    assert told(dataset.to_polars().to_arrow()) == EXPECTED
    assert told(dataset.to_duckdb().to_arrow_table()) == EXPECTED
    assert told(dc.open([mixed.url]).to_arrow()) == EXPECTED
    frame = dataset.results(columns=["item_key", "new"]).compute(scheduler="sync")
    assert dict(zip(frame["item_key"], frame["new"], strict=True)) == {"a": 1, "b": 2, "c": 3, "d": 4}


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([("new", ">", 1)], "bcd"),
        ([[("new", "==", 1)], [("old", "==", "other")]], "ad"),
        (pc.field("x") == "two", "b"),
        ([("new", "<", 3), ("x", "!=", "one")], "b"),
    ],
    ids=str,
)
def test_filters_ask_by_the_new_name(mixed, filters, found):
    """Rows of before and after a renaming are found by the names of now."""
    assert sorted(told(dc.open(mixed.url).to_arrow(filters=filters))) == list(found)


def test_statistics_of_a_renamed_column_leave_out_row_groups(tmp_path, monkeypatch):
    """What the statistics of a part say holds under the new name: row groups that hold no such row are not read."""
    store = Store.at(tmp_path / "dataset")
    run_of(store, {f"{n}": {"old": n, "text": f"t{n}"} for n in range(40)})
    monkeypatch.setattr("dcompute.dataset.merging.GROUP_ROWS", 10)
    compact(store, all=True, sort_by="old")
    rename(store, {"old": "new"})
    state = open_dataset(store)[1]
    read = []

    class Watched(pq.ParquetFile):
        def read_row_groups(self, groups, **options):
            read.extend(groups)
            return super().read_row_groups(groups, **options)

    monkeypatch.setattr(fetching.pq, "ParquetFile", Watched)
    assert results_arrow(store, state, filters=[("new", ">", 32)]).num_rows == 7
    assert read == [3]
    assert results_arrow(store, state, filters=[("new", "in", [5, 25])]).num_rows == 2
    assert results_arrow(store, state, filters=pc.field("new").is_null()).num_rows == 0
    assert results_arrow(store, state, filters=~(pc.field("new") < 38)).num_rows == 2


def test_nulls_and_other_values_survive_a_filter_on_a_renamed_column(tmp_path):
    """A filter gives the same rows before and after a renaming, nulls and values without an order among them."""
    store = Store.at(tmp_path / "dataset")
    values = {"a": 1.5, "b": float("nan"), "c": None, "d": -0.0, "e": 7.0}
    run_of(store, {text: {"f": value, "s": text * 3, "t": None if value is None else [1]} for text, value in values.items()})
    compact(store, all=True)
    asked = [
        pc.field("f") >= 1, pc.field("f") < 1, pc.field("f").is_null(), pc.field("f").is_valid() & (pc.field("s") > "b"),
        pc.field("f") != 7, pc.field("f").is_nan(),
    ]  # fmt: skip
    before = [results_arrow(store, open_dataset(store)[1], ["item_key"], each)["item_key"].to_pylist() for each in asked]
    rename(store, {"f": "s", "s": "f"})
    swapped = [
        pc.field("s") >= 1, pc.field("s") < 1, pc.field("s").is_null(), pc.field("s").is_valid() & (pc.field("f") > "b"),
        pc.field("s") != 7, pc.field("s").is_nan(),
    ]  # fmt: skip
    after = [results_arrow(store, open_dataset(store)[1], ["item_key"], each)["item_key"].to_pylist() for each in swapped]
    assert after == before


def test_the_files_have_the_new_names_after_compaction_and_vacuum(mixed):
    """Until then files() says that they alone are not the truth; then they are, for every tool."""
    dataset = dc.open(mixed.url)
    assert not dataset.files().are_the_truth
    dataset.compact(all=True)
    dataset.vacuum(0)
    assert rows(mixed) == EXPECTED
    assert dataset.files().folder_is_the_truth
    (name,) = mixed.names("results")
    assert told(pq.read_table(io.BytesIO(mixed.read(name)))) == EXPECTED


def test_names_that_are_swapped_make_no_file_the_truth(store):
    """Two columns of one type change names at once: their files look as before, and are not what counts."""
    run_of(store, {"a": {"x": 1, "y": 2}})
    rename(store, {"x": "y", "y": "x"})
    assert rows(store) == {"a": {"y": 1, "x": 2}}
    dataset = dc.open(store.path(""))
    assert not dataset.files().are_the_truth
    dataset.compact(all=True)
    assert dataset.files().are_the_truth
    assert rows(store) == {"a": {"y": 1, "x": 2}}
    assert told(dataset.to_duckdb().to_arrow_table()) == {"a": {"y": 1, "x": 2}}


def test_a_file_that_looks_as_after_a_swap_is_written_again(store):
    """Where a file happens to have the columns in the order that the schema has after the swap, compaction is not taken in."""
    driving = Driving(store)
    driving.writer.commit([SetSchema(schema=to_text(declared({"x": "int64", "y": "int64"})))])
    driving.add({"a": [{"y": 2, "x": 1}]})
    driving.close()
    rename(store, {"x": "y", "y": "x"})
    assert compact(store, all=True).replaced == 1
    vacuum(store, 0)
    assert told(pq.read_table(f"{store.path('')}/results")) == {"a": {"y": 1, "x": 2}}


def test_columns_are_renamed_again_and_again(store):
    """Each part has the names of now, however often they changed since it was written."""
    run_of(store, {"a": {"x": 1}})
    rename(store, {"x": "y"})
    run_of(store, {"b": {"y": 2, "x": 20}}, "r2")
    rename(store, {"y": "z", "x": "y"})
    run_of(store, {"c": {"z": 3, "y": 30, "x": 300}}, "r3")
    rename(store, {"x": "w"})
    assert rows(store) == {"a": {"z": 1}, "b": {"z": 2, "y": 20}, "c": {"z": 3, "y": 30, "w": 300}}
    assert told(dc.open(store.path("")).to_duckdb().to_arrow_table()) == rows(store)
    compact(store, all=True)
    vacuum(store, 0)
    assert rows(store) == {"a": {"z": 1}, "b": {"z": 2, "y": 20}, "c": {"z": 3, "y": 30, "w": 300}}


def test_a_name_that_tools_do_not_take_is_renamed(store):
    """One that is empty, or has a zero character, of an older version."""
    run_of(store, {"a": {"": 1, "x\0y": 2}})
    rename(store, {"": "x", "x\0y": "y"})
    assert told(dc.open(store.path("")).to_duckdb().to_arrow_table()) == {"a": {"x": 1, "y": 2}}


def test_names_that_differed_in_case_only_when_they_were_written(store):
    """To DuckDB they are one name: after one of them was renamed no value of the other is lost."""
    run_of(store, {"a": {"n": 1, "N": 2}})
    rename(store, {"n": "x"})
    assert told(dc.open(store.path("")).to_duckdb().to_arrow_table()) == {"a": {"x": 1, "N": 2}}


NAMES = "abc"
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sets(st.sampled_from(NAMES), min_size=1).map(sorted)),
        # which of the columns there are then, and their new names
        st.tuples(st.just("rename"), st.dictionaries(st.integers(0, 2), st.sampled_from("abcd"), min_size=1, max_size=2)),
        st.tuples(st.just("compact"), st.booleans()),
    ),
    max_size=8,
)


@settings(max_examples=max(20, settings.default.max_examples // 10))
@given(STEPS)
def test_whatever_happens_in_whatever_order_the_rows_are_those_of_a_table(steps):
    """Columns written, renamed and compacted in any order: what is read is what a table in memory would have, as of each entry too."""
    store = Store.at(f"memory://{uuid.uuid4().hex}")
    expected, then = {}, {}
    for number, (verb, given_) in enumerate([("write", ["a"]), *steps]):
        if verb == "write":
            expected[f"k{number}"] = {name: 10 * number + at for at, name in enumerate(given_)}
            run_of(store, {f"k{number}": expected[f"k{number}"]}, f"r{number}")
        elif verb == "compact":
            compact(store, all=given_)
        else:
            there = [name for name in from_text(open_dataset(store)[1].schema).names if len(name) == 1]
            columns = {there[place % len(there)]: new for place, new in given_.items()}
            with contextlib.suppress(SchemaError):  # what cannot be is refused, and nothing was renamed
                done = rename(store, columns).columns
                assert done in ({}, columns)
                expected = {key: {done.get(name, name): value for name, value in row.items()} for key, row in expected.items()}
        then[open_dataset(store)[1].number] = dict(expected)
        assert rows(store) == expected
    state = open_dataset(store)[1]
    assert told(results_arrow(store, from_bytes(to_bytes(state)))) == expected
    assert told(duck.relation(duckdb.connect(), store, state).to_arrow_table()) == expected
    for name in NAMES:
        if name in from_text(state.schema).names:
            found = results_arrow(store, state, ["item_key"], [(name, ">=", 30)])["item_key"].to_pylist()
            assert sorted(found) == sorted(key for key, row in expected.items() if row.get(name, 0) >= 30)
    for number, row in then.items():
        assert rows(store, at=number) == row
    compact(store, all=True)
    vacuum(store, 0)
    (name,) = store.names("results")
    assert told(pq.read_table(io.BytesIO(store.read(name)))) == expected
    # each look into this storage goes through all that is in it
    store.fs.rm(store.root, recursive=True)


def test_an_earlier_time_has_the_earlier_names(mixed):
    """As of an entry before the renaming the column has its old name; the history names the entry."""
    history = dc.open(mixed.url).history()
    (number,) = history[history["what"].str.contains("renamed")]["number"]
    assert rows(mixed, at=number - 1) == {"a": {"old": 1, "x": "one"}, "b": {"old": 2, "x": "two"}}
    assert rows(mixed, at=number)["a"] == {"new": 1, "x": "one"}


def test_a_checkpoint_keeps_what_was_renamed(mixed):
    """A state that comes from a checkpoint reads as the log does; a dataset without renamed columns has checkpoints as ever."""
    state = open_dataset(mixed)[1]
    again = from_bytes(to_bytes(state))
    assert again.renames == state.renames
    assert told(results_arrow(mixed, again)) == EXPECTED
    versions = [_version(to_bytes(open_dataset(mixed, at=at)[1])) for at in (1, state.number)]
    assert versions == [1, 2]  # who knows nothing of renamed columns passes the second over, and reads the log


def _version(data):
    return json.loads(pq.ParquetFile(pa.BufferReader(data)).metadata.metadata[b"dcompute"])["checkpoint"]


def test_a_copy_has_the_new_names(mixed, tmp_path):
    """An archive reads as the dataset does."""
    dc.open(mixed.url).copy(tmp_path / "copy")
    assert told(dc.open(tmp_path / "copy").to_arrow()) == EXPECTED


@pytest.mark.parametrize("columns", [{"x": "y"}, {"x": "y", "y": "x"}, {"x": "y", "y": "z"}], ids=str)
def test_the_same_renaming_again_does_nothing(store, columns):
    """Neither where the old name is gone, nor where another column has it by the same renaming."""
    run_of(store, {"a": {"x": 1} if len(columns) == 1 else {"x": 1, "y": 2}})
    rename(store, columns)
    number, found = open_dataset(store)[1].number, rows(store)
    assert rename(store, columns).columns == {}
    assert (open_dataset(store)[1].number, rows(store)) == (number, found)


def test_a_column_that_came_back_is_not_passed_over(mixed):
    """It was written under the old name since, and is another column: who renames it again is told, and nothing is done."""
    number = open_dataset(mixed)[1].number
    with pytest.raises(SchemaError, match="done before, and the results have a column 'old' again, written since"):
        rename(mixed, {"old": "new"})
    assert open_dataset(mixed)[1].number == number
    assert rename(mixed, {"old": "other"}).columns == {"old": "other"}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"temp": "t"}, "did you mean 'temps'"),
        ({"zzz": "t"}, "the results have temps, x"),
        ({"temps": "x"}, "already"),
        ({"temps": "z", "x": "z"}, "already"),
        ({"temps": "item_key"}, "item_key"),
        ({"key_kind": "x"}, "key_kind"),
        ({"temps": "temps"}, "itself"),
        ({"temps": ""}, "text"),
        ({"temps": 3}, "text"),
        ({"temps": "t\0"}, "zero character"),
        ({"temps": "t\ud800"}, "text that Parquet can hold"),
        ({"temps\udcff": "t"}, "text that Parquet can hold"),
        ({}, "nothing"),
        ("temps", "nothing"),
    ],
    ids=str,
)
def test_what_cannot_be_renamed_is_refused(store, columns, words):
    """A column that is not there, a name that is taken, one that is no name: nothing is renamed."""
    run_of(store, {"a": {"temps": 1, "x": 2}})
    with pytest.raises(SchemaError, match=words):
        rename(store, columns)
    assert rows(store) == {"a": {"temps": 1, "x": 2}}


def test_no_run_may_be_at_work(store):
    """What a run at work returns has the names that it began with: its driver is named, and nothing is renamed."""
    driving = Driving(store)
    driving.add({"a": [{"x": 1}]})
    with pytest.raises(DatasetBusy, match="r1"):
        rename(store, {"x": "y"})
    driving.close()
    assert rename(store, {"x": "y"}).columns == {"x": "y"}


def test_what_an_interrupted_run_wrote_is_renamed_too(store, monkeypatch):
    """A batch that was written and not committed is added before the renaming, and has the new name."""
    driving = Driving(store)
    driving.add({"a": [{"x": 1}]})
    driving.write({"b": [{"x": 2}]})
    driving.writer.abandon()
    assert rename(store, {"x": "y"}, clock=ManualClock()).columns == {"x": "y"}
    assert rows(store) == {"a": {"y": 1}, "b": {"y": 2}}
    assert not open_dataset(store)[1].unsettled


def test_a_compaction_that_read_before_a_renaming_counts(store, monkeypatch):
    """Files that were merged under the old name and committed after the renaming read under the new one."""
    run_of(store, {"a": {"x": 1}, "b": {"x": 2}})
    number = open_dataset(store)[1].number
    create = FaultStore.create

    def late(self, name, data):
        # the compaction is about to commit: another process is quicker
        if name.startswith("log/") and b'"replace"' in data and not open_dataset(Store.at(store.path("")))[1].renames:
            rename(Store.at(store.path("")), {"x": "y"})
        return create(self, name, data)

    monkeypatch.setattr(FaultStore, "create", late)
    assert compact(store, all=True).replaced == 2
    assert [type(action) for action in _actions(store, number + 1)] == [Rename, SetSchema]
    assert [type(action) for action in _actions(store, number + 2)] == [Replace]
    assert rows(store) == {"a": {"y": 1}, "b": {"y": 2}}
    assert told(dc.open(store.path("")).to_duckdb().to_arrow_table()) == rows(store)
    compact(store, all=True)
    vacuum(store, 0)
    assert told(pq.read_table(f"{store.path('')}/results")) == {"a": {"y": 1}, "b": {"y": 2}}


def _actions(store, number):
    entry = Log(store).read(number)
    assert entry is not None
    return entry.actions


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_storage_that_fails_renames_once(store, how):
    """Whether the entry was written or not when its answer was lost: the same line again ends with the columns swapped once."""
    run_of(store, {"a": {"x": 1, "y": 2}})
    store.faults.append(Fault("create", "log/*", how=how))
    with contextlib.suppress(StoreError):
        rename(store, {"x": "y", "y": "x"})
    rename(store, {"x": "y", "y": "x"})
    assert rows(store) == {"a": {"y": 1, "x": 2}}


def test_a_report_in_portions_is_computed_anew_after_a_renaming(store):
    """What was computed under the old name is not put beside what is computed under the new one."""
    run_of(store, {"a": {"x": 1}, "b": {"x": 2}})
    report = dc.Report("all", store.path(""), lambda raw: raw, mergeable="partition")
    report.run()
    rename(store, {"x": "y"})
    assert report.status().state == "behind"
    run_of(store, {"c": {"y": 3}}, "r2")
    assert "columns" in report.run().reason
    assert dict(zip(*(report.to_arrow()[name].to_pylist() for name in ("item_key", "y")), strict=True)) == {"a": 1, "b": 2, "c": 3}


# -- declared by a workload ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("renames", "columns", "due"),
    [
        ({"a": "b"}, "ax", {"a": "b"}),
        ({"a": "b"}, "bx", {}),
        ({"a": "c", "b": "c"}, "ax", {"a": "c"}),
        ({"a": "c", "b": "c"}, "bx", {"b": "c"}),
        ({"a": "b", "b": "a"}, "ab", {"a": "b", "b": "a"}),
    ],
    ids=str,
)
def test_a_workload_may_meet_datasets_of_any_age(renames, columns, due):
    """One declaration serves a dataset that has the old names, one that has those in between, and one that began with the new."""
    assert dict(outstanding(tuple(renames.items()), list(columns), Renames(), by_workload=True)) == due


def test_a_workload_is_told_of_a_column_that_never_was():
    """Neither the old name nor the new one is there: the nearest is named."""
    with pytest.raises(SchemaError, match="did you mean 'temps'"):
        outstanding((("temp", "t"),), ["temps", "x"], Renames(), by_workload=True)


def test_a_pair_that_is_added_to_a_declaration_is_all_that_is_left_to_do():
    """What was done before is not done again, a swap neither; what was undone by another renaming is."""
    swap = (("a", "b"), ("b", "a"))
    done = Renames().then(5, swap)
    assert outstanding(swap, ["b", "a", "c"], done, by_workload=True) == ()
    assert outstanding((*swap, ("c", "d")), ["b", "a", "c"], done, by_workload=True) == (("c", "d"),)
    there_and_back = Renames().then(5, (("a", "b"),)).then(6, (("b", "a"),))
    assert outstanding((("a", "b"),), ["a"], there_and_back) == (("a", "b"),)


def test_a_column_that_only_an_interrupted_run_wrote_is_not_missed_too_early(store):
    """Before what that run wrote is added nobody knows which columns there are: the driver judges, after it."""
    driving = Driving(store)
    driving.add({"a": [{"x": 1}]})
    driving.write({"b": [{"temp": 2}]})
    driving.writer.abandon()
    work = dc.workload(renames={"temp": "celsius"})(lambda x: {"celsius": x})
    assert dc.preview(work, [1], store.path(""), name="flux").todo == 1
    rename(store, {"x": "y"}, clock=ManualClock())
    with pytest.raises(SchemaError, match="no column 'tmp'"):
        dc.preview(work.options(renames={"tmp": "celsius"}), [1], store.path(""), name="flux")


def test_the_declared_schema_is_held_against_the_new_names(store):
    """A column gets its new name first, and then meets what is declared for that name."""
    run_of(store, {"a": {"x": 1, "y": "text"}})
    state = open_dataset(store)[1]
    schema = to_text(declared({"x": "string", "y": "int64"}))
    with pytest.raises(SchemaError, match=r"'x' as string, and the dataset has it as int64 \(item 'a' has 1\)"):
        due_before(store, state, (), schema=schema)
    rename_, schema_ = due_before(store, state, (("x", "y"), ("y", "x")), schema=schema)
    assert rename_ == Rename(columns=(("x", "y"), ("y", "x")))
    assert isinstance(schema_, SetSchema)
    with pytest.raises(SchemaError, match=r"'x' as int64, and the dataset has it as string \(item 'a' has 'text'\)"):
        due_before(store, state, (("x", "y"), ("y", "x")), schema=to_text(declared({"x": "int64"})))


@pytest.mark.parametrize("renames", [(("x", "y"), ("y", "x")), (("x", "y"), ("y", "z")), (("x", "y"),)])
def test_a_dataset_that_begins_with_the_new_names_keeps_its_rows(store, renames):
    """The same line again renames nothing: a swap cannot be told from the columns, so the first run notes that it holds."""
    driving = Driving(store, "r1")
    driving.writer.commit(due_before(store, driving.writer.state, renames, schema=None))
    driving.add({"a": [{"x": 1, "y": -1, "z": 0}]})
    driving.close()
    again = open_dataset(store)[1]
    assert due_before(store, again, renames, schema=None) == ()
    assert rows(store) == {"a": {"x": 1, "y": -1, "z": 0}}
    assert dc.preview(dc.workload(renames=dict(renames))(lambda n: {"x": n}), [1], store.path(""), name="flux").todo == 1


def test_what_holds_from_the_start_is_noted_once(store):
    """Runs without a result note it no second time, and a declaration that grew is noted whole."""
    driving = Driving(store, "r1")
    driving.writer.commit(due_before(store, driving.writer.state, (("x", "y"),), schema=None))
    assert due_before(store, driving.writer.state, (("x", "y"),), schema=None) == ()
    assert due_before(store, driving.writer.state, (("x", "y"), ("a", "b")), schema=None) == (Rename(columns=(("x", "y"), ("a", "b"))),)
    assert due_before(store, driving.writer.state, (), schema=None) == ()
