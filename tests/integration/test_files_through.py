"""Files that items produce, from end to end: in real runs, whatever fails or is killed, a row that counts has its file and no other has."""

from __future__ import annotations

import hashlib
import os
import pickle
import runpy
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dcompute as dc
from dcompute.code import pack
from dcompute.dataset.produced import listed
from dcompute.dataset.store import Store
from dcompute.graph import pack_values
from dcompute.records import BatchSpec, ItemKey, RunSpec, batch_id
from dcompute.testing import Fault, FaultStore
from dcompute.worker.batch import BatchTask, run_batch
from dcompute.worker.slot import Slot
from dcompute.workload import Workload
from tests.processes import DaskProcesses, dask_processes, kill, until

RUN = "20240101T000000-00000001"


def data_of(number: int) -> bytes:
    return f"{number}\n".encode() * 10_000


def draws(number: int) -> dict[str, int]:
    """An item with a file of its own."""
    dc.current().output(f"maps/{number}.txt", column="map").write_bytes(data_of(number))
    return {"number": number}


def draws_slowly(number: int) -> dict[str, int]:
    """Draws, when another item may have been killed."""
    time.sleep(0.02)
    return draws(number)


def draws_or_fails(number: int) -> dict[str, int] | None:
    """Fails in as many ways as there are after it has written its file; 3 succeeds when it is tried again, 4 forgets its file."""
    current = dc.current()
    path = current.output("map.txt")
    if number == 4:
        return None
    path.write_bytes(data_of(number))
    if number == 0:
        os._exit(3)
    if number == 1:
        raise ValueError("drawn, and wrong")
    if number == 3 and current.attempt == 1:
        raise ConnectionError("once")
    return {"number": number}


def draws_together(numbers: list[int]) -> list[dict[str, int]]:
    """Several items a call, each with its file."""
    for number, item in zip(numbers, dc.current().items, strict=True):
        item.output("map.txt").write_bytes(data_of(number))
    return [{"number": number} for number in numbers]


def draws_for_all(numbers: list[int]) -> list[int]:
    """Several items a call, and a file of all."""
    dc.current().output("map.txt").write_bytes(b"")
    return numbers


def finished(workload: Any, inputs: Any, url: Any, **options: Any) -> dc.Run:
    run = dc.map(workload, inputs, url, **options)
    assert run.wait(60, progress="quiet")
    return run


def whole(url: Any) -> set[int]:
    """The items whose rows count; each names a file that is there, with its size and checksum, and is the only one to do so."""
    table = dc.open(url).to_arrow(["item_key", "number", "map_url", "map_size", "map_checksum"])
    store = Store.at(url)
    for row in table.to_pylist():
        assert row["map_url"].startswith(f"{store.url}/files/")
        data = store.read(row["map_url"].removeprefix(f"{store.url}/"))
        assert data == data_of(row["number"])
        assert (row["map_size"], row["map_checksum"]) == (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}")
    assert len(set(table["map_url"].to_pylist())) == table.num_rows
    return set(table["number"].to_pylist())


def files(url: Any) -> set[str]:
    """All files of items that lie there."""
    return set(listed(Store.at(url)))


@pytest.mark.parametrize(("isolation", "group"), [("process", 4), ("thread", 4), ("thread", None)])
def test_files_of_items_lie_in_the_dataset(tmp_path: Path, isolation: Any, group: int | None) -> None:
    """As many as there are items, alone or several a call, and none that no row names."""
    workload = dc.workload(isolation=isolation, group=group)(draws_together if group else draws)
    run = finished(workload, range(10), tmp_path / "d")
    assert run.summary().all_succeeded
    assert whole(tmp_path / "d") == set(range(10))
    assert len(files(tmp_path / "d")) == 10
    assert finished(workload, range(10), tmp_path / "d").summary().executed == 0


def test_a_run_whose_items_have_files_says_so_in_the_log(tmp_path: Path) -> None:
    """Versions that do not know files refuse such a dataset, and only such a one."""
    for name, workload in (("d", draws), ("e", len)):
        inputs: list[Any] = [0, 1] if name == "d" else ["x"]
        finished(dc.workload(isolation="thread")(workload), inputs, tmp_path / name)
        said = [path.name for path in (tmp_path / name / "log").glob("*.json") if '"do":"files"' in path.read_text()]
        assert len(said) == (name == "d")


@pytest.mark.parametrize("group", [None, 2])
def test_a_batch_ends_when_its_files_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int | None) -> None:
    """They wait at the worker until it is written: the rest goes out again, and each item is executed once."""
    monkeypatch.setattr("dcompute.worker.thread.MOST_WAITING", len(data_of(1)) * 2)
    run = finished(dc.workload(isolation="thread", group=group)(draws_together if group else draws), range(6), tmp_path / "d", batch_size=6)
    assert whole(tmp_path / "d") == set(range(6))
    attempts = run.attempts().compute()
    assert sorted(attempts.groupby("batch").size()) == [2, 2, 2]
    assert set(attempts.attempt) == {1}


def test_items_that_fail_have_no_file(tmp_path: Path) -> None:
    """However they fail; one that succeeds when it is tried again has one, and one that wrote none has failed."""
    workload = dc.workload(retries=dc.Retry(kinds={"transient": dc.Rule(retries=1, delay=0.01), "crash": 0}))
    run = finished(workload(draws_or_fails), range(5), tmp_path / "d", batch_size=5)
    assert whole(tmp_path / "d") == {2, 3}
    assert len(files(tmp_path / "d")) == 2
    failed = run.failures().compute().set_index("item_key")
    assert dict(failed.kind) == {"0": "crash", "1": "permanent", "4": "permanent"}
    assert "no file was written" in failed.message["4"]


def test_a_file_of_a_whole_group_is_refused(tmp_path: Path) -> None:
    """With what to do."""
    run = finished(dc.workload(group=4, isolation="thread")(draws_for_all), range(3), tmp_path / "e")
    assert "items[0].output" in run.failures().compute().message[0]
    assert files(tmp_path / "e") == set()


def test_files_in_memory(tmp_path: Path) -> None:
    """A dataset in the memory of this process has them, too."""
    url = f"memory://{uuid.uuid4().hex}"
    finished(dc.workload(isolation="thread")(draws), range(6), url)
    assert whole(url) == set(range(6))


def test_changed_items_have_new_files(tmp_path: Path) -> None:
    """The old ones go with compaction and vacuum."""
    for version in ("1", "2"):
        finished(dc.workload(version=version, isolation="thread")(draws), range(6), tmp_path / "d")
    assert len(files(tmp_path / "d")) == 12
    dataset = dc.open(tmp_path / "d")
    dataset.compact(all=True)
    dataset.vacuum(0)
    assert len(files(tmp_path / "d")) == 6
    assert whole(tmp_path / "d") == set(range(6))


def counts(number: int, map_url: str, **others: Any) -> dict[str, int]:
    """An item of another dataset's row, which opens the file that the row names."""
    return {"number": number, "bytes": Path(map_url).stat().st_size}


def test_a_dataset_that_is_the_input_of_another_names_its_files(tmp_path: Path) -> None:
    """An item that gets a row gets a path that it can open; where the dataset lies makes no item a changed one."""
    threads = dc.workload(isolation="thread")
    finished(threads(draws), range(4), tmp_path / "d")
    run = finished(threads(counts), dc.open(tmp_path / "d"), tmp_path / "e")
    assert run.summary().all_succeeded
    assert run.results().compute().set_index("number")["bytes"].to_dict() == {number: len(data_of(number)) for number in range(4)}
    (tmp_path / "d").rename(tmp_path / "moved")
    again = finished(threads(counts), dc.open(tmp_path / "moved"), tmp_path / "e")
    assert again.summary().executed == 0


# ----------------------------------------------------------------------------------------------------------------- the batch alone


def task(store: Store, number: int = 1, count: int = 3) -> BatchTask:
    """A batch in this thread, whose storage is given."""
    code, code_digest, params_digest = pack(Workload.of(draws), {})
    run = RunSpec(
        run=RUN, dataset=store.url, workload="w", code=code, code_digest=code_digest, params_digest=params_digest, isolation="thread"
    )
    keys = tuple(ItemKey(str(index), "int") for index in range(count))
    values = pack_values(list(range(count)))
    batch = BatchSpec(id=batch_id(RUN, 1, number), keys=keys, attempts=(1,) * count, fingerprints=("",) * count, values=values)
    made = BatchTask(Slot(), run, batch, sleep=lambda _: None)
    made._store = store
    return made


class Killed(BaseException):
    """The process is gone at once."""


@pytest.mark.parametrize(("op", "name"), [("take", "files/*/1/*"), ("upload", "results/*"), ("create_from", "attempts/*")])
@pytest.mark.parametrize("how", ["before", "after"])
def test_a_kill_at_any_step_leaves_no_mark_without_files(tmp_path: Path, op: str, name: str, how: str) -> None:
    """What is written before the mark is not there for anybody; with the mark all of it is."""
    store = FaultStore(Store.at(tmp_path), [Fault(op, name, how, error=Killed())])
    with pytest.raises(Killed):
        task(store).execute()
    marked = (op, how) == ("create_from", "after")
    assert bool(store.names("attempts")) is marked
    answer = task(Store.at(tmp_path)).execute()
    urls = [part["name"] for part in answer["receipt"]["results"]]
    execution = urls[0].rpartition("-")[0].removeprefix("results/")
    assert {name.split("/")[-1] for name in files(tmp_path) if name.startswith(f"files/{execution}/")} == {"0.txt", "1.txt", "2.txt"}
    assert len(files(tmp_path)) <= (3 if marked else 6)


def test_a_storage_that_fails_for_a_while_gets_the_files_all_the_same(tmp_path: Path) -> None:
    """An answer that was lost is asked for again, under the same name."""
    store = FaultStore(Store.at(tmp_path), [Fault("take", "*/2.txt", "after"), Fault("take", "*/0.txt", "before")])
    task(store).execute()
    assert len(files(tmp_path)) == 3


def test_who_loses_the_race_takes_its_files_away(tmp_path: Path) -> None:
    """Two executions of a batch: those of the first to write its mark stay."""
    store = FaultStore(Store.at(tmp_path))
    store.faults.append(Fault("create_from", how="slow", act=lambda: first.append(task(Store.at(tmp_path)).execute())))
    first: list[Any] = []
    answer = task(store).execute()
    assert answer["receipt"]["execution"] == first[0]["receipt"]["execution"]
    assert {name.split("/")[1].rpartition("-")[2] for name in files(tmp_path)} == {answer["receipt"]["execution"]}
    assert len(list((tmp_path / "files").iterdir())) == 1


def test_files_are_linked_where_they_can_be(tmp_path: Path) -> None:
    """Nobody else holds a file that was written and closed: it is moved, not copied, and its worker keeps nothing."""
    made = task(Store.at(tmp_path / "d"))
    inodes: list[int] = []
    publish = made._publish

    def seen(receipt: Any, listed: list[tuple[str, str]]) -> Any:
        inodes.extend(os.stat(path).st_ino for path, name in listed if name.startswith("files/"))
        return publish(receipt, listed)

    made._publish = seen  # type: ignore[method-assign]
    made.execute()
    assert sorted(inodes) == sorted((tmp_path / "d" / name).stat().st_ino for name in files(tmp_path / "d"))
    assert [(tmp_path / "d" / name).stat().st_nlink for name in files(tmp_path / "d")] == [1, 1, 1]


def test_a_batch_that_was_written_is_not_executed_again(tmp_path: Path) -> None:
    """Nor are its files written twice."""
    made = task(Store.at(tmp_path))
    made.execute()
    before = files(tmp_path)
    run_batch(pickle.dumps(made._run), pickle.dumps(made._batch))
    assert files(tmp_path) == before


# ----------------------------------------------------------------------------------------------------------------- killed workers


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path_factory.mktemp("cluster")) as processes:
        yield processes


def test_a_killed_worker_leaves_no_row_without_its_file(cluster: DaskProcesses, tmp_path: Path) -> None:
    """At the end all items have their files, and vacuum finds what is nobody's."""
    url = tmp_path / "d"
    run = dc.map(draws_slowly, range(40), url, client=cluster.address, batch_size=5)
    pid = cluster.worker_pids()[0]
    until(lambda: (url / "files").exists(), 30, "a file")
    kill(pid)
    assert run.wait(60, progress="quiet")
    assert run.summary().all_succeeded
    assert whole(url) == set(range(40))
    # nothing else is there: what killed workers left
    dc.open(url).vacuum(0)
    assert len(files(url)) == 40
    assert whole(url) == set(range(40))


def test_the_example_of_a_shared_store_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And again: nothing is executed twice, what may be written once only neither."""
    monkeypatch.chdir(tmp_path)
    for expected in ("8 succeeded", "up to date"):
        runpy.run_path(str(Path(__file__).parents[2] / "examples" / "shared_store.py"), run_name="__main__")
        said = capsys.readouterr().out
        assert said.count(expected) == 2
        assert "64 x 1000, mean 1.00" in said
