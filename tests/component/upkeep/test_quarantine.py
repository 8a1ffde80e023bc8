"""The quarantine of a dataset: what counts in it, how it ends, and that nothing is lost or doubled whoever is at work or dies."""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid

import dask
import numpy as np
import pytest
from click.testing import CliRunner

import dcompute as dc
from dcompute.cli.main import dcompute
from dcompute.dataset.archive import copy
from dcompute.dataset.compaction import compact
from dcompute.dataset.deletion import delete
from dcompute.dataset.many import Datasets
from dcompute.dataset.outcomes import iter_outcomes
from dcompute.dataset.parts import read_mark
from dcompute.dataset.releasing import drop_quarantined, release
from dcompute.dataset.status import Dataset
from dcompute.dataset.store import Store
from dcompute.dataset.vacuum import vacuum
from dcompute.dataset.writer import open_dataset
from dcompute.errors import DatasetError, SchemaError, UsageError
from dcompute.testing import Fault, FaultStore
from dcompute.worker.rewrite import rewrite
from tests.component.upkeep.checking import REFUSING, Checking, records, results
from tests.component.upkeep.driving import key, on_storage, visible

DAY = 86_400.0


class Killed(BaseException):
    """The process is gone at once."""


@pytest.fixture
def store():
    return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))


@pytest.fixture
def full(store):
    """Rows that did not pass of three items, and the input of a fourth, in two batches; the run is closed."""
    driver = Checking(store)
    driver.add_checked({"a": [{"n": 1}, {"n": -1}], "b": [{"n": -2}]})
    driver.add_checked({"c": [{"n": 3}, {"n": -3}, {"n": None}], "d": None})
    driver.close()
    return store


def outcomes(store):
    tables = [chunk.table for chunk in iter_outcomes(store, open_dataset(store)[1])]
    return {row["item_key"]: row["outcome"] for table in tables for row in table.to_pylist()}


ALL = [
    ("a", "positive", {"n": -1}),
    ("b", "positive", {"n": -2}),
    ("c", "positive", {"n": -3}),
    ("c", "positive", {"n": None}),
    ("d", "small", {"value": 9}),
]


def test_what_is_in_the_quarantine(full):
    """All records of batches that count, with columns and filters as of results."""
    assert records(full) == ALL
    assert results(full) == [("a", 1), ("c", 3)]
    found = Dataset(full).quarantine(["item_key", "source"], [("source", "==", "input")]).compute().to_dict("records")
    assert found == [{"item_key": "d", "source": "input"}]
    assert len(Dataset(full).quarantine()) == 5


def test_filters_of_a_part_of_which_some_records_are_gone(full):
    """What its statistics say of a value leaves no row out, and none of another place in."""
    drop_quarantined(full, ["a"])
    dataset = Dataset(full)
    assert dataset.quarantine(["item_key"], [("item_key", "==", "d")]).compute()["item_key"].tolist() == ["d"]
    assert dataset.quarantine(["item_key"], [("item_key", "in", ["a", "b"])]).compute()["item_key"].tolist() == ["b"]


def test_nothing_counts_before_its_batch_does(store):
    """Written is not added, and a key that is left out has no record."""
    driver = Checking(store)
    receipt = driver.checked({"a": [{"n": -1}]})
    assert (receipt.quarantined[0].rows, records(store)) == (1, [])


def test_an_item_that_was_done_again_has_its_new_records_only(full):
    """The hide of the new attempt ends the old records; those of the attempt itself count."""
    driver = Checking(full, "r2")
    driver.add_checked({"c": [{"n": 5}, {"n": -5}]}, hide=["c"])
    assert [record for record in records(full) if record[0] == "c"] == [("c", "positive", {"n": -5})]


@pytest.mark.parametrize("act", [release, drop_quarantined])
def test_records_are_found_by_check_where_a_part_has_none_that_counts(full, act):
    """An item that was done again leaves a part without one."""
    driver = Checking(full, "r2")
    driver.add_checked({text: [{"n": -5}] for text in "abcd"}, hide=list("abcd"))
    driver.close()
    act(full, check="positive")
    assert records(full) == []


def test_records_of_an_attempt_that_is_tried_again_do_not_count(store):
    """An item that is refused and has attempts left is listed once, by its last one."""
    driver = Checking(store)
    driver.add_checked({"a": [{"n": -1}], "b": [{"n": -2}]}, checks=REFUSING, again=["a"])
    assert records(store) == [("b", "positive", {"n": -2})]
    driver.add_checked({"a": [{"n": 1}]}, checks=REFUSING)
    assert (records(store), results(store)) == ([("b", "positive", {"n": -2})], [("a", 1)])


def test_as_of_then(full):
    """An earlier entry has the records that counted then."""
    release(full, ["a"])
    assert (len(records(full)), len(records(full, 2)), len(records(full, 3))) == (4, 2, 5)


def test_several_datasets(full, store):
    """They read as one, and of a key found twice the first one counts."""
    other = Store.at(f"memory://{uuid.uuid4().hex}")
    driver = Checking(other)
    driver.add_checked({"a": [{"n": -7}], "z": [{"n": -8}]})
    found = Datasets([Dataset(full), Dataset(other)]).labelled().quarantine().compute()
    assert sorted(zip(found["item_key"], found["dataset"] == other.url, strict=True)) == [
        ("a", False), ("b", False), ("c", False), ("c", False), ("d", False), ("z", True),
    ]  # fmt: skip


def test_adoption_finds_them(store):
    """What a killed driver's workers wrote counts, with its records, when the next one adopts it."""
    driver = Checking(store)
    driver.checked({"a": [{"n": 1}, {"n": -1}], "d": None})
    driver.writer.abandon()
    after = Checking(store, "r2")
    after.writer.adopt(read_mark, lambda kind, attempt: True, join=lambda old, new: new or old)
    assert [text for text, *_ in records(store)] == ["a", "d"]


def test_a_rewritten_batch_keeps_them(store):
    """The batch that stands for another one has its records, once."""
    driver = Checking(store)
    receipt = driver.checked({"a": [{"n": 1}, {"n": -1}]})
    new = rewrite(store, receipt.batch, receipt.batch[:-1] + "9", None)
    assert (new.stands_for, new.quarantined, new.rows) == (receipt.batch, receipt.quarantined, 1)


# ------------------------------------------------------------------------------------------------------------------ release


def test_a_released_row_is_in_the_results_and_nowhere_else(full):
    """By key, by check, and all; what was released before stays where it is."""
    done = release(full, ["a", ("b", "str")])
    assert (done.rows, done.inputs) == (2, 0)
    assert "2 rows are in the results now" in str(done)
    assert results(full) == [("a", -1), ("a", 1), ("b", -2), ("c", 3)]
    assert [text for text, *_ in records(full)] == ["c", "c", "d"]
    assert release(full, check="positive").rows == 2
    assert release(full, all=True).inputs == 1
    assert records(full) == []
    assert str(release(full, all=True)).endswith("there was nothing to release")


def test_a_released_input_is_a_new_item_for_the_next_run(full):
    """Its failure is no outcome any more, and the log knows the input that may pass; a deletion forgets that."""
    assert outcomes(full)["d"] == "failed"
    release(full, ["d"])
    assert "d" not in outcomes(full)
    assert open_dataset(full)[1].admitted == {key("d"): "print of d"}
    driver = Checking(full, "r2")
    driver.add_checked({"d": [{"n": 9}]})
    driver.close()
    assert ("d", 9) in results(full)
    delete(full, ["d"])
    assert open_dataset(full)[1].admitted == {}


def test_released_rows_end_with_their_item(full):
    """Done again or deleted, an item takes its released rows along, compacted or not."""
    release(full, ["a", "b"])
    driver = Checking(full, "r2")
    driver.add_checked({"a": [{"n": 7}]}, hide=["a"])
    driver.close()
    assert results(full) == [("a", 7), ("b", -2), ("c", 3)]
    compact(full, all=True)
    delete(full, ["b"])
    assert results(full) == [("a", 7), ("c", 3)]


def test_compacted_and_vacuumed_the_files_are_the_truth(full):
    """Released rows lie in results files as all others do."""
    release(full, check="positive")
    compact(full, all=True)
    vacuum(full, 0)
    assert visible(full) == on_storage(full)
    assert len(results(full)) == 6


@pytest.mark.parametrize("asked", [{"keys": ["x"]}, {"keys": ["a", "x"]}, {"check": "nothing"}, {"keys": ["a"], "check": "small"}])
def test_what_is_not_there_is_refused(full, asked):
    """A key or a check without a record changes nothing."""
    for verb in (release, drop_quarantined):
        with pytest.raises(UsageError, match="Nothing was changed"):
            verb(full, **asked)
    assert records(full) == ALL


@pytest.mark.parametrize(
    "asked",
    [{}, {"all": np.False_}, {"keys": ["a"], "all": True}, {"keys": ["a"], "all": 1}, {"check": "positive", "all": True}, {"keys": "a"},
     {"keys": [3]}],
)  # fmt: skip
def test_it_must_be_said_what_is_meant(full, asked):
    """Nothing, two things, one text in place of a list, and what is no key."""
    for verb in (release, drop_quarantined):
        with pytest.raises(UsageError, match=r"\(\) takes|one text|3 is no key"):
            verb(full, **asked)
    assert records(full) == ALL


def test_a_row_that_does_not_fit_is_not_released(store):
    """A column that the results never had is told, and nothing was changed."""
    driver = Checking(store)
    receipt = driver.checked({"a": [{"n": -1, "odd": 5}]})
    driver.add_checked({"b": [{"n": -1}]})
    batch = rewrite(store, receipt.batch, receipt.batch[:-1] + "9", driver.writer.state.schema)
    from dcompute.dataset.entries import Add, AddBatch

    driver.writer.commit(
        [Add(batches=(AddBatch(id=batch.batch, holds=batch.holds, quarantined=batch.quarantined, stands_for=receipt.batch),))]
    )
    with pytest.raises(SchemaError, match="no column 'odd'"):
        release(store, ["a"])
    assert release(store, ["b"]).rows == 1


def test_columns_that_were_renamed_since(full):
    """A row that is released has the names of now; so has one that was released before."""
    release(full, ["a"])
    Dataset(full).rename({"n": "number"})
    release(full, ["b"])
    found = Dataset(full).to_arrow().to_pylist()
    assert sorted((row["item_key"], row["number"]) for row in found) == [("a", -1), ("a", 1), ("b", -2), ("c", 3)]


def test_released_beside_a_driver(store):
    """A run at work commits before and after, and everything counts."""
    driver = Checking(store)
    driver.add_checked({"a": [{"n": -1}]})
    release(store, ["a"])
    driver.add_checked({"b": [{"n": 2}]})
    driver.close()
    assert results(store) == [("a", -1), ("b", 2)]


def test_an_item_done_again_while_it_is_released(full):
    """Between reading and committing a driver hides the item: its old row is not brought back, and the new one stays."""
    driver = Checking(full, "r2")
    full.faults.append(Fault("create", "log/*", act=lambda: driver.add_checked({"a": [{"n": 7}]}, hide=["a"]), how="slow"))
    release(full, ["a"])
    assert [row for row in results(full) if row[0] == "a"] == [("a", 7)]


def test_an_input_done_again_while_it_is_released(full):
    """Its new outcome is not hidden."""
    driver = Checking(full, "r2")
    full.faults.append(Fault("create", "log/*", act=lambda: driver.add_checked({"d": [{"n": 7}]}, hide=["d"]), how="slow"))
    with pytest.raises(UsageError, match="no record of the key 'd'"):
        release(full, ["d"])
    assert outcomes(full)["d"] == "succeeded"
    assert ("d", 7) in results(full)


def test_two_release_the_same(full):
    """Whoever comes second finds nothing, and leaves no row twice."""
    other = []
    full.faults.append(Fault("create", "log/*", act=lambda: other.append(release(full.inner, ["a", "b", "c"])), how="slow"))
    with pytest.raises(UsageError, match="no record that did not pass"):
        release(full, check="positive")
    assert other[0].rows == 4
    assert results(full) == [("a", -1), ("a", 1), ("b", -2), ("c", -3), ("c", 3), ("c", None)]


def test_a_vacuum_that_takes_the_files_of_a_release(full):
    """Between writing and committing they belong to nobody: the release writes them again, and its rows are in files that are there."""
    full.faults.append(Fault("create", "log/*", act=lambda: vacuum(full.inner, 0), how="slow"))
    assert release(full, check="positive").rows == 4
    assert len(results(full)) == 6


def test_a_release_that_is_killed_at_any_step(store):
    """At each one either nothing or all of it counts, and the same line again ends it."""
    for step in itertools.count():
        store = FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))
        driver = Checking(store)
        driver.add_checked({"a": [{"n": 1}, {"n": -1}], "d": None})
        driver.close()
        store.faults.append(Fault("*", skip=step, error=Killed()))
        try:
            release(store, all=True)
        except Killed:
            pass
        else:
            break
        store.faults.clear()
        assert (results(store), len(records(store))) in (([("a", 1)], 2), ([("a", -1), ("a", 1)], 0))
        release(store, all=True)
        vacuum(store, 0)
        assert results(store) == [("a", -1), ("a", 1)]
        assert visible(store) == on_storage(store)
    assert step > 4


def test_a_lost_answer_of_the_commit(full):
    """An entry whose answer was lost counts once."""
    full.faults.append(Fault("create", "log/*", how="after"))
    assert release(full, ["a"]).rows == 1
    assert results(full) == [("a", -1), ("a", 1), ("c", 3)]


# -------------------------------------------------------------------------------------------------------------- drop, vacuum


def test_dropped_records_are_gone_and_attempts_stay(full):
    """The list ends, the history does not."""
    before = len(Dataset(full).attempts())
    assert str(drop_quarantined(full, ["a"])).endswith("1 record dropped from the quarantine")
    assert drop_quarantined(full, all=True).records == 4
    assert records(full) == []
    assert (len(Dataset(full).attempts()), outcomes(full)["d"]) == (before, "failed")
    assert Dataset(full).history()["what"].tolist()[-2:] == ["dropped", "dropped"]


def test_vacuum_removes_parts_without_a_record(full):
    """A part goes when all of it was dropped, released, done again or deleted, after the retention; one with a record left stays."""
    names = full.names("quarantine")
    drop_quarantined(full, ["a"])
    vacuum(full, 0)
    assert full.names("quarantine") == names
    delete(full, ["b"])
    release(full, ["c"])
    vacuum(full, 0)
    assert full.names("quarantine") == names[1:]
    drop_quarantined(full, ["d"])
    assert vacuum(full, "7 days", now=time.time).removed == ()
    assert vacuum(full, "7 days", now=lambda: time.time() + 8 * DAY).removed == tuple(names[1:])
    with pytest.raises(DatasetError, match="vacuum removed it"):
        records(full, 3)


def test_vacuum_keeps_what_an_open_run_may_add(store):
    """Parts of an epoch that is not settled stay; those that nobody added of one that is go."""
    driver = Checking(store)
    driver.checked({"a": [{"n": -1}]})
    vacuum(store, 0)
    assert len(store.names("quarantine")) == 1
    driver.close()
    assert [name.partition("/")[0] for name in vacuum(store, 0).removed] == ["attempts", "quarantine"]


def test_deleted_items_have_no_records(full):
    """Deletion ends them."""
    delete(full, ["c", "d"])
    assert [text for text, *_ in records(full)] == ["a", "b"]


def test_a_copy_has_what_counts(full):
    """Released, dropped and left: the copy says the same, and can be gone on with."""
    release(full, ["a", "d"])
    drop_quarantined(full, ["b"])
    target = Store.at(f"memory://{uuid.uuid4().hex}")
    copy(full, target)
    assert (records(target), visible(target)) == (records(full), visible(full))
    assert open_dataset(target)[1].admitted == {key("d"): "print of d"}
    assert release(target, all=True).rows == 2


def test_readers_beside_release_and_vacuum(full):
    """At no moment is a row missing, twice, or in both places."""
    stop, seen = threading.Event(), []

    def read():
        while not stop.is_set():
            dataset = Dataset(full.inner)
            _ = dataset.state
            seen.append(len(dataset.to_arrow()) + len(dataset.quarantine().compute()))

    reader = threading.Thread(target=read)
    reader.start()
    for text in ("a", "b", "c"):
        release(full, [text])
        compact(full, all=True)
    stop.set()
    reader.join()
    assert set(seen) == {7}


def test_a_report_in_portions_sees_released_rows(tmp_path):
    """A release makes it fall behind, and its rows are in the next version."""
    store = Store.at(tmp_path / "dataset")
    driver = Checking(store)
    driver.add_checked({"a": [{"n": 1}, {"n": -1}]})
    driver.close()
    report = dc.Report("rows", store.url, lambda raw: raw, mergeable="partition")
    with dask.config.set(scheduler="sync"):
        assert report.run().rows == 1
        release(store, ["a"])
        assert report.status().commits == 1
        assert report.run().rows == 2


# ------------------------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def on_disk(tmp_path):
    store = Store.at(tmp_path / "dataset")
    driver = Checking(store)
    driver.add_checked({"a": [{"n": 1}, {"n": -1}], "b": [{"n": -2}], "d": None})
    driver.close()
    return store


def call(*words, code=0, **given):
    done = CliRunner().invoke(dcompute, ["quarantine", *map(str, words)], **given)
    assert done.exit_code == code, done.output
    return done.output


def test_the_list_of_the_command_line(on_disk):
    """All, by key, by check, limited, and as JSON with all columns."""
    assert sorted(line.split()[0] for line in call("list", on_disk.url).splitlines()) == ["a", "b", "d", "item_key"]
    assert "too large" in call("list", on_disk.url, "--check", "small")
    assert "no rows" in call("list", on_disk.url, "--check", "smal")
    (row,) = map(json.loads, call("list", on_disk.url, "--key", "b", "--json").splitlines())
    assert (row["item_key"], row["check"], json.loads(row["record"])) == ("b", "positive", {"n": -2})
    assert "the first 1 rows" in call("list", on_disk.url, "--limit", "1")
    assert call("list", on_disk.url, on_disk.url).count("\nb ") == 1  # several are one
    assert call("list", on_disk.url, "--columns", "reason", "--check", "small").splitlines()[0] == "reason"


def test_release_and_drop_ask(on_disk):
    """Without --yes they ask, a no changes nothing, somebody must be there to answer, and something must be said."""
    assert "Release records of 1 item in the quarantine" in call("release", on_disk.url, "--key", "a", input="n\n", code=130)
    assert "say --yes" in call("release", on_disk.url, "--key", "a", input="", code=2)
    assert len(records(on_disk)) == 3
    assert "1 row is in the results now" in call("release", on_disk.url, "--key", "a", "--yes")
    assert json.loads(call("drop", on_disk.url, "--check", "positive", "--yes", "--json"))["records"] == 1
    assert "--key, --check, or --all" in call("drop", on_disk.url, code=2)
    assert "1 input is executed unchecked" in call("release", on_disk.url, "--all", input="y\n")
    assert records(on_disk) == []
