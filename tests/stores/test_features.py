"""What works on a disk works on object stores: inputs that lie there, datasets of datasets, quarantine, reports, copies to other stores."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import fsspec
import pyarrow.compute as pc
import pytest

import dcompute as dc
from dcompute.dataset.store import Store
from dcompute.inputs import Inputs
from dcompute.inputs.listing import Files
from tests import servers
from tests.component.upkeep.driving import Driving
from tests.component.upkeep.producing import Producing
from tests.servers import Server
from tests.stores.clusters import workers
from tests.stores.proxy import Proxy

Place = Callable[[Server], str]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Any]]:
    """SeaweedFS, and workers that know it from the settings of this program alone."""
    with servers.seaweedfs(tmp_path_factory.mktemp("features")) as server, workers(server) as client:
        yield server, client


def bucket(server: Server) -> Any:
    """The server's files, as somebody else sees them who remembers nothing."""
    return fsspec.filesystem(server.url.partition("://")[0], **server.options, skip_instance_cache=True, use_listings_cache=False)


def ran(*given: Any, lab: tuple[Server, Any], **options: Any) -> dc.Summary:
    """What a run did whose items all succeeded or were there."""
    run = dc.map(*given, client=lab[1], **options)
    run.wait(progress="quiet")
    assert run.summary().all_succeeded, run.failures().compute().message.tolist()
    return run.summary()


# ------------------------------------------------------------------------------------------------------------------------- files


def prints(pattern: str, **options: Any) -> dict[str, str]:
    """The fingerprints of files by the last letter of their names."""
    found = Inputs.of(Files(pattern, **options))
    assert found.prints is not None
    return {item.key.text[-1]: item.fingerprint for item in found.prints.completed(list(found))}


@pytest.mark.parametrize("fingerprint", ["stat", "content"])
def test_changed_files_are_seen(server: Server, place: Place, fingerprint: str) -> None:
    """A file that grew, and one with other bytes, have other fingerprints, whatever this program listed before; others keep theirs."""
    folder = place(server)
    theirs = bucket(server)
    with dask.config.set({"dcompute.storage": {f"{server.url}/": server.options}}):
        for name in "abc":
            theirs.pipe_file(f"{folder}/{name}", b"0123")
        fsspec.filesystem(server.url.partition("://")[0], **server.options).ls(folder)
        before = prints(f"{folder}/*", fingerprint=fingerprint)
        theirs.pipe_file(f"{folder}/a", b"01234567")
        theirs.pipe_file(f"{folder}/b", b"3210")
        now = prints(f"{folder}/*", fingerprint=fingerprint)
    half = 16 if fingerprint == "content" else 0
    assert {name for name in "abc" if now[name][half:] == before[name][half:]} == {"c"}
    if fingerprint == "content":
        assert now["a"][half:] != now["b"][half:]


def test_files_that_grow_wait(server: Server, place: Place) -> None:
    """Each storage tells when a file changed: what changed in the last hour is left for later, and is no file that disappeared."""
    folder = place(server)
    bucket(server).pipe_file(f"{folder}/young", b"0123")
    with dask.config.set({"dcompute.storage": {f"{server.url}/": server.options}}):
        young = dc.files(f"{folder}/*", settle="1 h")
        assert (list(young), young.left) == ([], [f"{folder}/young"])
        soon = Files(f"{folder}/*", settle=3600, now=lambda: 5e9)
        assert (list(soon), soon.left) == ([f"{folder}/young"], [])


def letters(url: str) -> dict[str, str]:
    from dcompute.config import storage_options

    with fsspec.open(url, **storage_options(url)) as file:
        return {"text": file.read().decode()}


def test_files_of_a_bucket_go_through(lab: tuple[Server, Any], place: Place) -> None:
    """New and changed files are done, those that vanished are dropped, those that still grow keep what they have."""
    server, theirs = lab[0], bucket(lab[0])
    raw, out = place(server), place(server)

    def again(**options: Any) -> dc.Summary:
        return ran(letters, dc.files(f"{raw}/*.txt", fingerprint="content", **options), out, lab=lab, on_gone="drop")

    for name in "abc":
        theirs.pipe_file(f"{raw}/{name}.txt", name.encode())
    assert again().succeeded == 3
    theirs.pipe_file(f"{raw}/a.txt", b"A")
    theirs.pipe_file(f"{raw}/b.txt", b"b")  # touched
    theirs.pipe_file(f"{raw}/d.txt", b"d")
    theirs.rm_file(f"{raw}/c.txt")
    done = again(settle="1 h")
    assert (done.succeeded, done.dropped, done.unsettled) == (0, 1, 3)
    done = again()
    assert (done.succeeded, done.skipped, done.redone) == (2, 1, 1)
    assert sorted(dc.open(out).to_pandas().text) == ["A", "b", "d"]


# ---------------------------------------------------------------------------------------------------------- datasets of datasets


def row_of(n: int, half: float) -> dict[str, float]:
    return {"whole": 2 * half}


def rows_of(frame: Any) -> dict[str, int]:
    return {"rows": len(frame)}


def part_at(url: str) -> dict[str, int]:
    import pyarrow.parquet as pq

    from dcompute.config import storage_options

    with fsspec.open(url, **storage_options(url)) as file:
        return {"rows": pq.read_table(file).num_rows}


def test_a_dataset_is_the_input_of_another(lab: tuple[Server, Any], place: Place) -> None:
    """Rows, keys and parts that lie on the store are inputs; what changed of them is done again, also after compaction."""
    raw, by_row, by_key = place(lab[0]), place(lab[0]), place(lab[0])
    store = Store.at(raw)
    driver = Driving(store)
    for n in range(6):
        driver.add({f"{n}": [{"n": n, "half": n / 2}, {"n": n, "half": -n / 2}]})
    assert ran(row_of, dc.rows(dc.open(raw)), by_row, lab=lab).succeeded == 12
    assert sorted(dc.open(by_row).to_pandas().whole) == sorted(dc.open(raw).to_pandas().half * 2)
    assert ran(rows_of, dc.rows(raw, by="key"), by_key, lab=lab).succeeded == 6
    driver.add({"3": [{"n": 3, "half": 7.0}], "6": [{"n": 6, "half": 3.0}]}, hide=["3"])
    driver.close()
    dc.open(raw).compact(all=True)
    done = ran(rows_of, dc.rows(raw, by="key"), by_key, lab=lab)
    assert (done.succeeded, done.skipped, done.redone) == (2, 5, 1)
    assert ran(part_at, dc.rows(raw, by="part"), place(lab[0]), lab=lab).rows == 1


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_reading_a_dataset_as_inputs_is_counted(server: Server, proxy: Proxy, place: Place) -> None:
    """The driver's requests for the rows of another dataset are among those of its run: one for each small part."""
    url = place(server)
    driver = Driving(Store.at(url, server.options))
    for n in range(6):
        driver.add({f"{n}": [{"n": n}]})
    driver.close()
    rows = dc.rows(dc.open(url, proxy.server.options))
    made = len(proxy.seen)
    inputs = Inputs.of(rows)
    assert len(list(inputs)) == 6
    assert inputs.requests == len(proxy.seen) - made == 6


# ------------------------------------------------------------------------------------------------------------ checks and renames


def test_records_wait_in_quarantine_and_columns_get_other_names(lab: tuple[Server, Any], place: Place) -> None:
    """What does not pass waits on the store, is released or dropped there, and survives a column's new name, compaction and vacuum."""

    def halved(n: int) -> list[dict[str, float]]:
        return [{"n": n, "half": n / 2}, {"n": n, "half": -n / 2}]

    out = place(lab[0])
    done = ran(dc.workload(checks={"positive": pc.field("half") > 0})(halved), range(1, 5), out, lab=lab)
    assert (done.rows, done.quarantined) == (4, 4)
    dataset = dc.open(out)
    assert sorted(dataset.quarantine().compute().item_key) == ["1", "2", "3", "4"]
    assert dataset.release(["2"]).rows == 1
    assert dataset.drop_quarantined(["3"]).records == 1
    dataset.rename({"half": "part"})
    assert dataset.release(["4"]).rows == 1
    dataset.compact(all=True)
    dataset.vacuum(0)
    found = dc.open(out)
    assert sorted(found.to_pandas().part) == [-2.0, -1.0, 0.5, 1.0, 1.5, 2.0]
    assert found.to_arrow(filters=[("part", "<", -1.5)]).column("n").to_pylist() == [4]
    assert found.files().folder_is_the_truth
    assert found.quarantine().compute().item_key.tolist() == ["1"]


# ------------------------------------------------------------------------------------------------- reports, several, other stores


def made(store: Store, numbers: range) -> None:
    """A dataset with files of items, one part for each two items."""
    driver = Producing(store, f"r{numbers.start}")
    for number in numbers[::2]:
        driver.add({f"{one}": [{"n": one}] for one in (number, number + 1)})
    driver.close()


def small(raw: Any) -> Any:
    return dc.drop(raw[["n"]], raw.n > 4, "large")


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_several_datasets_are_reported_and_go_to_another_store(server: Server, place: Place, scratch: Path) -> None:
    """A pattern opens what lies below it, a report of it is published on the store and knows its freshness, copies have all and go on."""
    root = place(server)
    with servers.azurite(scratch) as other:
        profiles = {f"{one.url}/": one.options for one in (server, other)}
        with dask.config.set({"dcompute.storage": profiles}):
            made(Store.at(f"{root}/a"), range(0, 4))
            made(Store.at(f"{root}/b"), range(4, 8))
            both = dc.open(f"{root}/*")
            assert both.status().succeeded == len(both.results()) == 8
            report = dc.Report("small", {"raw": f"{root}/*"}, small, balanced=True, store=place(server))
            assert report.run().dropped == {"large": 3}
            assert report.status().state == "up to date"
            made(Store.at(f"{root}/c"), range(8, 10))
            assert report.status().state == "behind"
            assert report.run().dropped == {"large": 5}
            assert sorted(report.results().compute().n) == [0, 1, 2, 3, 4]
            assert dc.open(f"{root}/*").report("summary").attempts.tolist() == [2]

            away = f"{other.url}/{uuid.uuid4().hex}"
            dc.open(f"{root}/a").copy(away)
            back = place(server)
            dc.open(away).copy(back)
            for url in (away, back):
                frame = dc.open(url).to_pandas().sort_values("n")
                assert frame.n.tolist() == [0, 1, 2, 3]
                assert all(one.startswith(url) for one in frame.map_url)
                with fsspec.open(frame.map_url.iloc[0], **(other if url == away else server).options) as file:
                    assert file.read()
