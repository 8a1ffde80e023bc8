"""Files of items through the life of a dataset: who reads a row finds its file, and what no row names goes."""

from __future__ import annotations

import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from dcompute.dataset.archive import copy
from dcompute.dataset.compaction import compact
from dcompute.dataset.deletion import delete
from dcompute.dataset.entries import Files
from dcompute.dataset.history import history
from dcompute.dataset.keeper import Keeper
from dcompute.dataset.log import Log
from dcompute.dataset.many import Datasets
from dcompute.dataset.names import entry_name, produced_name
from dcompute.dataset.parts import read_mark, results_name
from dcompute.dataset.reading import results_arrow
from dcompute.dataset.renaming import rename
from dcompute.dataset.schema import join
from dcompute.dataset.status import Dataset
from dcompute.dataset.store import Store
from dcompute.dataset.vacuum import vacuum
from dcompute.dataset.writer import Writer, open_dataset
from dcompute.errors import DatasetCorruptError, SchemaError, StoreError
from dcompute.testing import Fault, FaultStore, ManualClock
from tests.component.upkeep.driving import Driving
from tests.component.upkeep.producing import COLUMNS, Producing, content, produced

DAY = 86_400.0


@pytest.fixture
def store() -> FaultStore:
    return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "d")


def later(days: float) -> Any:
    return lambda: time.time() + days * DAY


def added(store: Store, numbers: Any = range(3), run: str = "r1", *, again: bool = False) -> None:
    """A closed run, a batch an item."""
    driver = Producing(store, run)
    for number in numbers:
        driver.add({str(number): [{"n": number}]}, hide=[str(number)] if again else [])
    driver.close()


def whole(store: Store, rows: list[dict[str, Any]]) -> bool:
    """Whether each row's file is there and is that of its item."""
    return all(store.read(row["map_url"].removeprefix(f"{store.url}/")) == content(row) for row in rows)


def rows(store: Store, at: int | None = None) -> list[dict[str, Any]]:
    return results_arrow(store, open_dataset(store, at=at)[1]).to_pylist()


# ------------------------------------------------------------------------------------------------------------------------ reading


def test_every_reader_gives_whole_paths(disk: Store) -> None:
    """What the files hold from the dataset on, readers give with its path, in the same column, with nothing that says so."""
    added(disk)
    dataset, names = Dataset(disk), [f"{disk.url}/files/"] * 3
    found = {
        "arrow": dataset.to_arrow()["map_url"].to_pylist(),
        "pandas": dataset.to_pandas().map_url.tolist(),
        "polars": dataset.to_polars()["map_url"].to_list(),
        "duckdb": [url for (url,) in dataset.to_duckdb().select("map_url").fetchall()],
        "dask": dataset.results(columns=["map_url"]).compute(scheduler="sync").map_url.tolist(),
        "several": Datasets([dataset]).to_arrow(columns=["map_url"])["map_url"].to_pylist(),
        "several in duckdb": [url for (url,) in Datasets([dataset]).to_duckdb().select("map_url").fetchall()],
    }
    for reader, urls in found.items():
        assert [url[: len(names[0])] for url in urls] == names, reader
        assert {Path(url).read_bytes() for url in urls} == {content({"n": n}) for n in range(3)}, reader
    assert [field.metadata for field in dataset.to_arrow().schema] == [None] * 6


def test_sizes_and_checksums_are_those_of_the_files(disk: Store) -> None:
    """Beside the path; items without files have nulls in all three columns."""
    import hashlib

    driver = Producing(disk)
    driver.add({"a": [{"n": 1}]})
    super(Producing, driver).add({})
    driver.close()
    plain = Driving(disk, "r2")
    plain.add({"b": [{"n": 2}]})
    plain.close()
    first, second = rows(disk)
    data = Path(first["map_url"]).read_bytes()
    assert (first["map_size"], first["map_checksum"]) == (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}")
    assert [second[name] for name in COLUMNS] == [None] * 3
    assert Dataset(disk).to_duckdb().filter("n = 2").select("map_url").fetchall() == [(None,)]


@pytest.mark.parametrize("of", [lambda one: one, lambda one: Datasets([one])], ids=["one", "several"])
def test_filters_compare_whole_paths(disk: Store, of: Any) -> None:
    """What the statistics of a part know are other texts: no part is left out for them, and other filters leave out as ever."""
    added(disk)
    dataset = of(Dataset(disk))
    url = dataset.to_arrow(filters=[("n", "==", 1)])["map_url"][0].as_py()
    assert dataset.to_arrow(filters=[("map_url", "==", url)])["n"].to_pylist() == [1]
    assert dataset.to_arrow(["n"], pc.starts_with(pc.field("map_url"), disk.url)).num_rows == 3
    assert dataset.to_arrow(filters=[("map_url", "==", url.removeprefix(f"{disk.url}/"))]).num_rows == 0
    assert dataset.to_duckdb().filter(f"map_url = '{url}'").select("n").fetchall() == [(1,)]


def test_a_dataset_that_was_moved_names_its_files_where_they_are(disk: Store) -> None:
    """Nothing in a dataset says where it lies."""
    added(disk)
    there = shutil.move(disk.url, f"{disk.url}-moved")
    moved = Store.at(there)
    assert whole(moved, rows(moved))
    assert all(row["map_url"].startswith(there) for row in rows(moved))


def test_a_column_with_another_name_still_names_files(disk: Store, tmp_path: Path) -> None:
    """In every reader, for filters, vacuum and copies; one of the old name that comes later is a column of its own."""
    added(disk)
    rename(disk, {"map_url": "chart", "n": "m"})
    added(disk, [7], run="r2")
    dataset = Dataset(disk)
    charts = dataset.to_pandas().chart.dropna().tolist()
    assert {Path(chart).read_bytes() for chart in charts} == {content({"n": n}) for n in range(3)}
    assert dataset.to_arrow(filters=[("chart", "==", charts[1])])["chart"].to_pylist() == [charts[1]]
    assert [url for (url,) in dataset.to_duckdb().filter("chart is not null").select("chart").fetchall()] == charts
    assert Path(dataset.to_arrow(["map_url"])["map_url"].drop_null()[0].as_py()).read_bytes() == content({"n": 7})
    compact(disk, all=True)
    vacuum(disk, 0)
    assert len(produced(disk)) == 4
    copy(disk, Store.at(tmp_path / "copy"))
    assert len(produced(Store.at(tmp_path / "copy"))) == 4


def test_the_log_says_once_that_rows_name_files(store: FaultStore) -> None:
    """By an action that versions which know no files refuse; a dataset without files has none."""
    plain = Driving(store, "r0")
    plain.add({"a": [{"n": 1}]})
    plain.close()
    before = open_dataset(store)[1].number
    assert b'"files"' not in b"".join(store.read(entry_name(number)) for number in range(1, before + 1))
    added(store)
    more = Producing(store, "r2")
    more.add({"b": [{"n": 1, "other": "column"}]})
    more.close()
    said = [entry.number for entry in Log(store).read_all() if any(isinstance(action, Files) for action in entry.actions)]
    assert said == [before + 2]
    assert "files" in history(store).what.tolist()[before + 1]


def test_files_that_nobody_added_are_adopted(store: FaultStore) -> None:
    """A driver that died after its first batch with files was written: its successor says in the log what it takes over."""
    Producing(store).write({"a": [{"n": 1}]})
    Writer.acquire(store, workload="flux", run="r2", takeover=True, clock=ManualClock()).adopt(read_mark, lambda *_: True, join=join)
    assert whole(store, rows(store))
    assert any(isinstance(action, Files) for entry in Log(store).read_all() for action in entry.actions)


def test_text_of_the_same_name_does_not_meet_files(store: FaultStore) -> None:
    """What items return as text is no path in the dataset: a column is one or the other."""
    added(store)
    with pytest.raises(SchemaError, match=r"'map_url' .*files that items produced.*another column="):
        Driving(store, "r2").add({"x": [{"map_url": "s3://elsewhere/x"}]})


# ------------------------------------------------------------------------------------------------------------------------ vacuum


def test_files_stay_as_long_as_a_part_names_them(store: FaultStore) -> None:
    """Compaction leaves them; a row that was redone keeps its file until the part that names it goes, so that what was before is read."""
    added(store)
    before = produced(store)
    added(store, [0, 1], run="r2", again=True)
    was = open_dataset(store)[1].number
    assert vacuum(store, 0).removed == ()
    compact(store, all=True)
    assert vacuum(store, now=later(6)).removed == ()
    assert len(produced(store)) == 5
    assert whole(store, rows(store, at=was))
    assert whole(store, rows(store, at=4))
    done = vacuum(store, now=later(8))
    # five parts, the two old files
    assert len(done.removed) == 7
    assert done.bytes > 5 * 100
    assert len(produced(store) & before) == 1
    assert whole(store, rows(store))
    assert vacuum(store, 0).removed == ()


def test_a_file_that_only_a_compacted_part_names_stays(store: FaultStore) -> None:
    """Its own part is gone for long."""
    added(store, range(12))
    compact(store, all=True)
    assert len(vacuum(store, 0).removed) == 12
    assert len(produced(store)) == 12
    assert whole(store, rows(store))


def test_files_that_no_row_names_go_when_no_run_may_add_them(store: FaultStore) -> None:
    """Those of a batch that was never committed stay while a driver may still add it, then until they are old."""
    driver = Producing(store)
    driver.add({"a": [{"n": 1}]})
    driver.write({"b": [{"n": 2}]})
    store.create(produced_name("r1-000001-00000003", "killed", 0, "map.bin"), b"no part of it was written")
    assert vacuum(store, 0).removed == ()
    driver.close()
    done = vacuum(store)
    # the part and the mark of b, with whose part its file stays, and the other file
    assert (done.removed, done.kept) == ((), 3)
    planned = vacuum(store, 0, dry_run=True)
    assert len(produced(store)) == 3
    assert set(planned.removed) == set(vacuum(store, 0).removed)
    assert len(planned.removed) == 4
    assert len(produced(store)) == 1
    assert whole(store, rows(store))


def test_files_of_epochs_that_nobody_opened_stay(store: FaultStore) -> None:
    """And what lies there with a name that dcompute does not give; what a run left whose dataset was here before goes."""
    added(store)
    names = {produced_name("r2-000002-00000001", "e", 0, "a"), "files/notes.txt"}
    for name in names:
        store.create(name, b"")
    assert vacuum(store, 0).removed == ()
    assert all(store.exists(name) for name in names)
    store.create(produced_name("other-000001-00000001", "e", 0, "a"), b"")
    assert vacuum(store, 0).removed == (produced_name("other-000001-00000001", "e", 0, "a"),)


def test_orphans_go_where_no_item_that_counts_has_files(store: FaultStore) -> None:
    """The columns are not known then, and nothing needs to be read."""
    driver = Driving(store)
    driver.add({"a": [{"n": 1}]})
    store.create(produced_name("r1-000001-00000009", "e", 0, "map.bin"), b"x")
    driver.close()
    store.calls.clear()
    assert vacuum(store, 0).removed == ("files/r1-000001-00000009-e/0/map.bin",)
    assert [name for op, name in store.calls if op == "stream"] == []


def test_vacuum_reads_no_part_while_each_has_its_own_files(store: FaultStore) -> None:
    """A part of the same execution that stays says enough."""
    added(store)
    store.calls.clear()
    vacuum(store, 0)
    assert [name for op, name in store.calls if op == "stream"] == []


def test_what_a_compaction_makes_beside_the_vacuum_is_asked(store: FaultStore) -> None:
    """A part that is committed after the folder was listed, and takes the place of all that named the files."""
    added(store, range(12))
    store.create(results_name("r1-000001-00000099", "e", 0), b"what there is to remove")
    done: list[Any] = []

    def compacted() -> None:
        done.append(compact(store.inner, all=True))

    # the listing of marks comes after that of results
    store.faults.append(Fault("names", "attempts", how="slow", act=compacted))
    vacuum(store, 0)
    assert done[0].replaced == 12
    assert len(store.names("results")) == 1
    assert len(produced(store)) == 12
    assert whole(store, rows(store))


def test_what_a_run_adds_beside_the_vacuum_stays(store: FaultStore) -> None:
    """Its files were listed, its part was not, and its epoch is settled when all is decided."""
    added(store, [0])
    store.create(results_name("r1-000001-00000099", "e", 0), b"what there is to remove")
    driver = Producing(store, "r2")
    driver.add({"a": [{"n": 1}]})

    def finish() -> None:
        driver.add({"b": [{"n": 2}]})
        driver.close()
        compact(store.inner, all=True)

    store.write(produced_name("r2-000002-00000002", "e", 0, "map.bin"), content({"n": 2}))
    # the listing of marks comes after that of results
    store.faults.append(Fault("names", "attempts", how="slow", act=finish))
    vacuum(store, 0)
    assert len(produced(store)) == 3
    assert whole(store, rows(store))


def test_a_part_that_is_damaged_keeps_all_files(store: FaultStore) -> None:
    """Nobody knows what it names: nothing is removed."""
    added(store, range(12))
    compact(store, all=True)
    (part,) = [name for name in store.names("results") if "compact" in name]
    store.write(part, b"torn")
    with pytest.raises(DatasetCorruptError, match=part):
        vacuum(store, 0)
    assert len(produced(store)) == 12
    assert len(store.names("results")) == 13


def test_files_of_deleted_items_end_as_their_rows_do(disk: Store) -> None:
    """After compaction and vacuum they are gone, with the folders that they lay in."""
    added(disk, range(3))
    delete(disk, ["1"])
    vacuum(disk, 0)
    assert len(produced(disk)) == 3
    compact(disk, all=True)
    vacuum(disk, 0)
    assert len(produced(disk)) == 2
    assert whole(disk, rows(disk))
    assert len(list((Path(disk.url) / "files").iterdir())) == 2


# ------------------------------------------------------------------------------------------------------------------------ archives


def test_an_archive_has_the_files_that_its_parts_name(disk: Store, tmp_path: Path) -> None:
    """No others; a copy names its own, and goes on where it was interrupted."""
    added(disk)
    orphan = produced_name("r1-000001-00000009", "e", 0, "map.bin")
    disk.create(orphan, b"x")
    target = FaultStore(Store.at(tmp_path / "copy"), [Fault("upload", "files/*", skip=1)])
    with pytest.raises(StoreError):
        copy(disk, target)
    made = copy(disk, target)
    assert produced(target) == produced(disk) - {orphan}
    shutil.rmtree(disk.url)
    assert whole(target.inner, rows(target.inner))
    assert made.bytes > sum(row["map_size"] for row in rows(target.inner))


def test_a_file_that_is_gone_or_changed_is_named(disk: Store, tmp_path: Path) -> None:
    """A copy without it would be no copy."""
    added(disk)
    name = min(produced(disk))
    disk.write(name, b"other")
    with pytest.raises(DatasetCorruptError, match=f"{name} .*has 5 bytes"):
        copy(disk, Store.at(tmp_path / "a"))
    disk.remove([name])
    with pytest.raises(DatasetCorruptError, match=f"{name} is gone"):
        copy(disk, Store.at(tmp_path / "b"))


def test_a_checkpoint_knows_which_columns_name_files(disk: Store) -> None:
    """Whatever way the log was read."""
    from dcompute.dataset.checkpoint_file import from_bytes, to_bytes

    added(disk)
    data = to_bytes(Keeper(disk).state)
    # a version that does not know files must not take it for all that the log says
    assert b'"checkpoint": 3' in data
    state = from_bytes(data)
    assert state is not None
    assert whole(disk, results_arrow(disk, state).to_pylist())
