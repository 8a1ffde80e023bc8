"""The storages pass the kit, and say what is wrong in words a user can act on."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcompute.dataset.clients import AnyClient
from dcompute.dataset.disk import Disk, rename_exclusively
from dcompute.dataset.merging import opened
from dcompute.dataset.remote import Objects
from dcompute.dataset.store import Store
from dcompute.errors import DatasetCorruptError, StoreError, UsageError
from dcompute.testing import Fault, FaultStore, StoreTests


class TestLocal(StoreTests):
    @pytest.fixture
    def store(self, tmp_path):
        return Store.at(tmp_path / "of" / "mine")


class TestMemory(StoreTests):
    @pytest.fixture
    def store(self):
        return Store.at(f"memory://{uuid.uuid4().hex}/mine")


class TestFaultStoreWithoutFaults(StoreTests):
    @pytest.fixture
    def store(self):
        return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}/mine"))

    def test_travels(self, store):
        """A storage with a fault table stays where its test is."""


class TestLocalWithoutHardLinks(StoreTests):
    """A local disk on which os.link is refused: a rename that never replaces stands in."""

    @pytest.fixture
    def store(self, tmp_path):
        store = Store.at(tmp_path / "mine")
        store._backend = Disk(store.url, link=rename_exclusively)
        return store


#: Where there is no other file system for sure, and no place that not even root can write.
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs files in memory and /proc of Linux")


@ON_LINUX
def test_a_file_of_another_file_system_is_copied(tmp_path):
    """It cannot become the dataset's own, and arrives all the same; nothing else is left."""
    # a file in memory is on a file system of the kernel's own, whatever is mounted here
    with os.fdopen(os.memfd_create("other"), "wb") as file:
        assert os.fstat(file.fileno()).st_dev != tmp_path.stat().st_dev
        file.write(b"data")
        file.flush()
        Store.at(tmp_path).take(f"/proc/self/fd/{file.fileno()}", "files/a")
    assert (tmp_path / "files" / "a").read_bytes() == b"data"
    assert os.listdir(tmp_path / "files") == ["a"]


class S3Files:
    """A conditional write as s3fs 2026.9 does it: what exists is EINVAL, like much else."""

    def __init__(self, folder):
        self.disk = Disk(str(folder))

    def cat_file(self, path, start=None, end=None):
        return self.disk.read(path)[start:end]

    def exists(self, path):
        return self.disk.exists(path)

    def info(self, path):
        return {"size": self.disk.size(path)}

    def ls(self, path, detail):
        found = self.disk.names(path)
        if not found:
            raise FileNotFoundError(path)
        return [{"name": name, "type": "file"} for name in found]

    def find(self, path, detail):
        root = Path(self.disk.path(""))
        found = [one for one in (root / path).rglob("*") if one.is_file()]
        return {
            str(one.relative_to(root)): {"type": "file", "size": one.stat().st_size, "LastModified": one.stat().st_mtime} for one in found
        }

    def pipe_file(self, path, data, mode="overwrite"):
        if mode == "overwrite":
            self.disk.write(path, data)
            return
        try:
            self.disk.create(path, data)
        except FileExistsError:
            raise OSError(22, "At least one of the pre-conditions you specified did not hold") from None

    def put_file(self, local, path):
        self.disk.upload(str(local), path)

    def rm_file(self, path):
        self.disk.remove([path])

    def invalidate_cache(self, path=None):
        pass


def objects(files):
    """A store's files on what stands for an object store's file system."""
    return Objects(AnyClient(files), files, "bucket/mine")


class LikeS3(Store):
    """A storage on S3 whose copies find the same stand-in."""

    def __init__(self, folder):
        super().__init__("s3://bucket/mine", "s3", {"secret": "hunter2"})
        self.folder = folder
        self._fs = S3Files(folder)
        self._backend = objects(self._fs)

    def __reduce__(self):
        return (LikeS3, (self.folder,))


class TestLikeS3(StoreTests):
    @pytest.fixture
    def store(self, tmp_path):
        return LikeS3(tmp_path)


def part_on(store, rows):
    """A results part of so many rows, and its size."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"n": pa.array(np.random.default_rng(0).random(rows))}), sink, row_group_size=rows // 4)
    store.create("results/part.parquet", sink.getvalue())
    return len(sink.getvalue())


def requests_for(store, size):
    """How many it takes to read the part."""
    before = store.requests
    with opened(store, "results/part.parquet", 100 << 10, size) as file:
        assert file.read().num_rows > 0
    return store.requests - before


def test_a_small_part_is_one_request(tmp_path):
    """A part of no more than a block, whether its size is known or not."""
    store = LikeS3(tmp_path)
    size = part_on(store, 1000)
    assert [requests_for(store, size), requests_for(store, None)] == [1, 1]


def test_a_large_part_is_not_measured_where_its_size_is_known(tmp_path):
    """It takes its footer and its blocks; where nobody knows its size, that is asked for too."""
    store = LikeS3(tmp_path)
    size = part_on(store, 100_000)
    known, unknown = requests_for(store, size), requests_for(store, None)
    assert known <= 1 + 4
    assert known < unknown <= known + 2


@pytest.mark.parametrize("size", [1_000_000, 1_000, 100])
def test_a_part_of_another_size_than_the_log_says_is_damaged(tmp_path, size):
    """Whoever reads it hears that it is the file's fault, and one that is not there is called gone."""
    store = LikeS3(tmp_path)
    part_on(store, 10_000)
    with pytest.raises(DatasetCorruptError, match="damaged or changed from outside"), opened(store, "results/part.parquet", 4096, size):
        pass
    with pytest.raises(DatasetCorruptError, match="is gone"), opened(store, "results/other.parquet", 4096, size):
        pass


def test_a_pace_is_kept_while_it_is_asked_for(tmp_path):
    """Requests of whatever threads are spread, and are as quick as they come before and after."""
    store, waited = LikeS3(tmp_path), []
    store._backend._sleep = waited.append
    names = [f"log/{number}" for number in range(40)]
    for name in names:
        store.create(name, b"x")
    assert waited == []
    with store.paced(0.01), ThreadPoolExecutor(8) as pool:
        list(pool.map(store.read, names))
    store.read(names[0])
    assert len(waited) == 40
    assert sorted(round(seconds, -2) for seconds in waited) == [100.0 * number for number in range(40)]


def test_error_of_object_store_that_is_not_the_condition_is_an_error(tmp_path):
    """EINVAL for a name that is not there says nothing about the name."""

    class Strict(S3Files):
        def pipe_file(self, path, data, mode="overwrite"):
            raise OSError(22, "The provided token is malformed")

    store = Store("s3://bucket/mine", "s3", {})
    store._backend = objects(Strict(tmp_path))
    with pytest.raises(StoreError, match="malformed"):
        store.create("log/1", b"x")


def test_storage_that_ignores_the_condition_is_refused(tmp_path):
    """A server that overwrites in spite of the condition is found out by the proof, which leaves no probe behind."""

    class Careless(S3Files):
        def pipe_file(self, path, data, mode="overwrite"):
            self.disk.write(path, data)

    store = Store("s3://bucket/mine", "s3", {})
    store._backend = objects(Careless(tmp_path))
    with pytest.raises(StoreError, match="takes exclusive creation and ignores it"):
        store.prove()
    assert store.names("") == []


@pytest.mark.parametrize("url", ["ftp://host/x", "https://host/x", "simplecache::s3://b/x", "hdfs://x/y"])
def test_unproven_storages_are_refused(url):
    """A storage whose exclusive creation nobody has proved is refused before anything is written."""
    with pytest.raises(StoreError, match="dataset"):
        Store.at(url)


@pytest.mark.parametrize("url", ["s3://me:hunter2@bucket/x", "s3://bucket/x?token=hunter2"])
def test_secrets_in_a_url_are_refused_and_not_repeated(url):
    """A URL with a password or token is refused, in words that do not show it."""
    with pytest.raises(StoreError, match="storage_options") as caught:
        Store.at(url)
    assert "hunter2" not in str(caught.value)


def test_local_paths_are_absolute(tmp_path, monkeypatch):
    """A relative path, ~ and file:// are the same absolute place for driver and workers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = str(tmp_path / "x")
    assert [Store.at(given).url for given in ("x", "./x", "~/x", "no/../x", f"file://{expected}", Path("x"))] == [expected] * 6


def test_folder_that_is_a_file_is_explained(tmp_path):
    """A dataset below a file is a storage error that names the place."""
    (tmp_path / "data.csv").write_text("a,b")
    store = Store.at(tmp_path / "data.csv")
    with pytest.raises(StoreError, match=r"data\.csv"):
        store.prove()


@ON_LINUX
def test_read_only_place_is_explained():
    """A place that cannot be written is a storage error that says what to do."""
    with pytest.raises(StoreError, match="could not create /proc/nowhere"):
        Store.at("/proc/nowhere/ds").prove()


def test_file_system_without_links_and_renames_is_refused(tmp_path):
    """Neither way of exclusive creation: refused, and nothing is left."""

    def neither(temporary, path):
        raise StoreError("the file system has neither")

    store = Store.at(tmp_path / "mine")
    store._backend = Disk(store.url, link=neither)
    with pytest.raises(StoreError, match="neither"):
        store.create("log/1", b"x")
    assert os.listdir(tmp_path / "mine" / "log") == []


def test_repeated_link_of_a_network_file_system_is_ones_own(tmp_path):
    """A link that was made and then answered with "exists", as NFS may, is a success; somebody else's is not."""
    from dcompute.dataset.disk import claim

    (tmp_path / "temporary").write_text("mine")
    os.link(tmp_path / "temporary", tmp_path / "final")
    claim(str(tmp_path / "temporary"), str(tmp_path / "final"))
    (tmp_path / "other").write_text("theirs")
    with pytest.raises(FileExistsError):
        claim(str(tmp_path / "other"), str(tmp_path / "final"))


def test_nothing_temporary_stays(tmp_path):
    """Won, lost and replaced files leave nothing but what has a name, and listings never show what is being written."""
    store = Store.at(tmp_path)
    store.create("log/1", b"x")
    with pytest.raises(FileExistsError):
        store.create("log/1", b"y")
    store.write("log/2", b"z")
    (tmp_path / "log" / ".tmp-dead").write_bytes(b"half")
    assert store.names("log") == ["log/1", "log/2"]
    assert sorted(os.listdir(tmp_path / "log")) == [".tmp-dead", "1", "2"]


def test_faults_come_as_the_table_says():
    """A row skips, then fails, before or after the work is done."""
    inner = Store.at(f"memory://{uuid.uuid4().hex}")
    store = FaultStore(inner, [Fault("create", "a/*", skip=1), Fault("create", "b", how="after"), Fault("names", how="torn")])
    store.create("a/1", b"")
    with pytest.raises(StoreError):
        store.create("a/2", b"")
    assert not inner.exists("a/2")
    with pytest.raises(StoreError):
        store.create("b", b"")
    assert inner.exists("b")
    store.create("a/2", b"")
    assert store.names("a") == ["a/1"]
    assert store.names("a") == ["a/1", "a/2"]


def test_storage_costs_no_heavy_import():
    """Local storage needs neither fsspec nor pyarrow: a worker's first file is not held up by them."""
    code = (
        "import sys; from dcompute.dataset.writer import Writer; print({'fsspec', 'pyarrow', 'pandas', 'distributed'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("file.txt", "/file.txt is a file, and a dataset is a folder"),
        ("file.txt/below/it", "/file.txt is a file"),
        ("", "names no place"),
        ("  ", "names no place"),
        (None, "no path and no URL"),
        (7, "no path and no URL"),
    ],
)
def test_what_names_no_place_for_a_dataset_is_refused(tmp_path, monkeypatch, place, words):
    """A person mistook an argument: it is said in words, and nothing is written beside the script by accident."""
    (tmp_path / "file.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, StoreError), match=words):
        Store.named(place)
    assert Store.named("folder/d").url == str(tmp_path / "folder" / "d")
