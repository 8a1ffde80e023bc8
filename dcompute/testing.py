"""For tests of what is built on dcompute: a clock that stands still, devices and storages as told, and a kit that a storage must pass."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import pickle
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dcompute.dataset.reader import Reader
from dcompute.dataset.store import Store
from dcompute.errors import StoreError
from dcompute.worker.device import Device

__all__ = ["FakeDevices", "Fault", "FaultStore", "ManualClock", "StoreTests"]

L = TypeVar("L", bound=Collection[Any])
T = TypeVar("T")


class ManualClock:
    """A clock that moves only when told, or slept on; it stands in for the module ``time``.

    Parameters
    ----------
    now
        Seconds since 1970.
    on_sleep
        Called with the seconds of each sleep, after the clock has moved: where a test lets others act meanwhile.
    """

    def __init__(self, now: float = 1_700_000_000.0, on_sleep: Callable[[float], None] | None = None) -> None:
        self.now = now
        self.slept: list[float] = []  #: seconds of each sleep
        self.on_sleep = on_sleep

    def time(self) -> float:
        """Seconds since 1970."""
        return self.now

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return self.now - 1_000_000_000.0

    def sleep(self, seconds: float, /) -> None:
        """Move the clock by so much, at once."""
        self.slept.append(seconds)
        self.advance(seconds)
        if self.on_sleep is not None:
            self.on_sleep(seconds)

    def advance(self, seconds: float) -> None:
        """Move the clock."""
        self.now += seconds


class FakeDevices:
    """Devices that no machine needs to have: a kind for the setting ``dcompute.worker.devices`` (``dcompute.testing:FakeDevices``).

    The variable ``FAKE_DEVICES`` names them, as ``a,b``, and ``FAKE_VISIBLE_DEVICES`` those that a process sees. The size of a file named
    like a device, in the folder ``FAKE_DEVICES_USED``, is its memory in use.
    """

    kind = "fake"

    def find(self) -> list[Device]:
        """Those that this process sees."""
        there = [name for name in os.environ.get("FAKE_DEVICES", "").split(",") if name]
        seen = os.environ.get("FAKE_VISIBLE_DEVICES")
        return [Device(id=name, name="Fake 1", kind=self.kind, memory=1 << 30) for name in there if seen is None or name in seen.split(",")]

    def environment(self, ids: Sequence[str]) -> dict[str, str]:
        """The variable of a process that sees these."""
        return {"FAKE_VISIBLE_DEVICES": ",".join(ids)}

    def used(self, id: str) -> int | None:
        """The size of its file."""
        file = Path(os.environ.get("FAKE_DEVICES_USED", "/nowhere"), id)
        return file.stat().st_size if file.exists() else 0


@dataclass(slots=True)
class Fault:
    """One row of a fault table: which calls of a storage fail, and how."""

    op: str  #: pattern of a method of :class:`Store`: ``read``, ``stream``, ``exists``, ``size``, ``names``, ``create``, ``upload``, ...
    name: str = "*"  #: pattern of names, as in a shell
    how: str = (
        "before"  #: ``before``: nothing is done; ``after``: done, the answer is lost; ``torn``: every second name is missing; ``slow``
    )
    skip: int = 0  #: so many calls go well first
    times: int = 1  #: then so many fail
    act: Callable[[], None] | None = None  #: called at the fault: what another writer does meanwhile, or what a slow answer takes
    error: BaseException | None = None  #: raised; None: a ``StoreError``


class FaultStore(Store):
    """A storage that fails as a table says.

    Parameters
    ----------
    inner
        Does what does not fail.
    faults
        The table; for one call the first row that fits counts.
    """

    def __init__(self, inner: Store, faults: Iterable[Fault] = ()) -> None:
        super().__init__(inner.url, inner.protocol, inner.storage_options)
        self.inner = inner
        self.faults = list(faults)
        self.calls: list[tuple[str, str]] = []  #: (operation, name) of every call
        self._faulted = 0

    def read(self, name: str) -> bytes:
        """See :meth:`Store.read`."""
        return self._do("read", name, lambda: self.inner.read(name))

    @contextlib.contextmanager
    def stream(self, name: str, block_size: int | None = None, size: int | None = None) -> Iterator[Reader]:
        """See :meth:`Store.stream`; each piece that is read is a call."""
        with self.inner.stream(name, block_size, size) as reader:
            yield Reader(reader, lambda act: self._do("stream", name, act))

    def exists(self, name: str) -> bool:
        """See :meth:`Store.exists`."""
        return self._do("exists", name, lambda: self.inner.exists(name))

    def size(self, name: str) -> int:
        """See :meth:`Store.size`."""
        return self._do("size", name, lambda: self.inner.size(name))

    def names(self, folder: str) -> list[str]:
        """See :meth:`Store.names`."""
        fault = self._fault("names", folder)
        if fault is None or fault.how == "slow":
            return self.inner.names(folder)
        if fault.how == "torn":
            return self.inner.names(folder)[::2]
        raise fault.error or StoreError(f"could not list {folder}: as the fault table says")

    def create(self, name: str, data: bytes) -> None:
        """See :meth:`Store.create`."""
        self._do("create", name, lambda: self.inner.create(name, data))

    def create_from(self, local_path: str | os.PathLike[str], name: str) -> None:
        """See :meth:`Store.create_from`."""
        self._do("create_from", name, lambda: self.inner.create_from(local_path, name))

    def upload(self, local_path: str | os.PathLike[str], name: str) -> None:
        """See :meth:`Store.upload`."""
        self._do("upload", name, lambda: self.inner.upload(local_path, name))

    def take(self, local_path: str | os.PathLike[str], name: str) -> None:
        """See :meth:`Store.take`."""
        self._do("take", name, lambda: self.inner.take(local_path, name))

    def write(self, name: str, data: bytes) -> None:
        """See :meth:`Store.write`."""
        self._do("write", name, lambda: self.inner.write(name, data))

    def remove(self, names: Iterable[str]) -> None:
        """See :meth:`Store.remove`."""
        for name in names:
            self._do("remove", name, lambda: self.inner.remove([name]))  # noqa: B023  called at once

    def listed(self, act: Callable[[], L], *, deep: bool = False) -> L:
        """See :meth:`Store.listed`."""
        return self.inner.listed(act, deep=deep)

    @contextlib.contextmanager
    def paced(self, per_second: float) -> Iterator[None]:
        """See :meth:`Store.paced`."""
        with self.inner.paced(per_second):
            yield

    @property
    def requests(self) -> int:
        """See :attr:`Store.requests`."""
        return self.inner.requests

    @property
    def failures(self) -> int:
        """See :attr:`Store.failures`; what the table let fail counts too."""
        return self.inner.failures + self._faulted

    def sync(self, folder: str) -> None:
        """See :meth:`Store.sync`."""
        self._do("sync", folder, lambda: self.inner.sync(folder))

    def _do(self, op: str, name: str, act: Callable[[], T]) -> T:
        fault = self._fault(op, name)
        if fault is None or fault.how == "slow":
            return act()
        self._faulted += 1
        if fault.how == "after":
            # the answer is lost, also where it would have been an error
            with contextlib.suppress(OSError):
                act()
        raise fault.error or StoreError(f"could not {op} {name}: as the fault table says")

    def _fault(self, op: str, name: str) -> Fault | None:
        self.calls.append((op, name))
        for fault in self.faults:
            if fault.times > 0 and fnmatch.fnmatch(op, fault.op) and fnmatch.fnmatch(name, fault.name):
                if fault.skip > 0:
                    fault.skip -= 1
                    return None
                fault.times -= 1
                if fault.act is not None:
                    fault.act()
                return fault
        return None


class StoreTests:
    """What every storage must do: subclass it with a fixture ``store`` that gives an empty one.

    It passes on local disk, ``memory://``, S3, Azure Blob and Google Cloud Storage. Run it on a server or file system before you trust it
    with datasets.
    """

    #: Writers that race for one name, and how often they do.
    racers = 16
    race_rounds = 10
    #: Bytes of a large file; more than your storage takes in one request.
    large = 8 << 20

    def test_reads_what_was_created(self, store: Store) -> None:
        """A created file is read back as it was, from a folder that did not exist."""
        data = bytes(range(256)) * 100
        store.create("log/deep/one.json", data)
        assert store.read("log/deep/one.json") == data
        assert store.size("log/deep/one.json") == len(data)
        assert store.exists("log/deep/one.json")

    def test_streams_what_was_created(self, store: Store) -> None:
        """A file is read in pieces, from any position; one that is not there is told as such."""
        data = bytes(range(256)) * 1000
        store.create("results/a.parquet", data)
        with store.stream("results/a.parquet", 4096) as file:
            assert file.read(10) == data[:10]
            assert file.seek(-8, 2) == len(data) - 8
            assert file.read() == data[-8:]
            assert file.seek(1000) == file.tell() == 1000
            assert file.read(2000) == data[1000:3000]
        with _raises(FileNotFoundError), store.stream("results/b.parquet") as file:
            file.read(1)

    def test_creates_once(self, store: Store) -> None:
        """The second creation of a name fails and leaves the first one's bytes."""
        store.create("log/1.json", b"first")
        with _raises(FileExistsError):
            store.create("log/1.json", b"second")
        assert store.read("log/1.json") == b"first"

    def test_creates_from_a_file_once(self, store: Store, tmp_path: Path) -> None:
        """Creation from a local file is exclusive too, and leaves the local file."""
        local = tmp_path / "part"
        local.write_bytes(b"rows" * 1000)
        store.create_from(local, "attempts/a.parquet")
        with _raises(FileExistsError):
            store.create_from(local, "attempts/a.parquet")
        assert store.read("attempts/a.parquet") == local.read_bytes()

    def test_has_one_winner(self, store: Store) -> None:
        """Of writers that create one name at the same moment exactly one succeeds, the others hear of it, and its bytes stand."""
        for round_ in range(self.race_rounds):
            name = f"race/{round_}"
            won, lost = _race(store, name, self.racers)
            assert len(won) == 1, f"{len(won)} of {self.racers} writers won {name}"
            assert len(lost) == self.racers - 1, f"only {len(lost)} writers of {name} heard that they lost"
            assert store.read(name) == _of(won[0])

    def test_has_no_winner_beside_who_was_first(self, store: Store) -> None:
        """Writers that come later, however many at once, change nothing."""
        store.create("race/taken", b"first")
        won, _ = _race(store, "race/taken", self.racers)
        assert won == []
        assert store.read("race/taken") == b"first"

    def test_says_what_is_missing(self, store: Store) -> None:
        """What is not there is a FileNotFoundError, or None, or an empty listing."""
        with _raises(FileNotFoundError):
            store.read("log/none.json")
        with _raises(FileNotFoundError):
            store.size("log/none.json")
        assert store.read_or_none("log/none.json") is None
        assert not store.exists("log/none.json")
        assert store.names("nothing") == []

    def test_replaces(self, store: Store) -> None:
        """A written file replaces the one before it, at once and for every reader."""
        other = _another(store)
        for number in range(10):
            store.write("log/last.json", b"%d" % number * (number + 1))
            assert other.read("log/last.json") == b"%d" % number * (number + 1)
            assert other.size("log/last.json") == number + 1

    def test_lists_what_is_there_now(self, store: Store, tmp_path: Path) -> None:
        """A listing has the files of the folder, also those made since the last one, and nothing of what lies below."""
        local = tmp_path / "part"
        local.write_bytes(b"rows")
        store.upload(local, "results/b")
        assert store.names("results") == ["results/b"]
        store.create("results/a", b"")
        store.create("results/below/c", b"")
        assert store.names("results") == ["results/a", "results/b"]

    def test_remembers_no_listing(self, store: Store) -> None:
        """What another one creates or removes is seen, although the folder and the name were asked for before."""
        other = _another(store)
        store.create("attempts/1", b"1")
        assert store.names("attempts") == ["attempts/1"]
        assert not store.exists("attempts/2")
        other.create("attempts/2", b"22")
        assert store.exists("attempts/2")
        assert store.size("attempts/2") == 2
        assert store.names("attempts") == ["attempts/1", "attempts/2"]
        other.remove(["attempts/1"])
        assert store.names("attempts") == ["attempts/2"]

    def test_keeps_large_files(self, store: Store, tmp_path: Path) -> None:
        """A file of many requests is whole, and its creation as exclusive as that of a small one."""
        local = tmp_path / "large"
        local.write_bytes(os.urandom(1 << 20) * (self.large >> 20) + b"end")
        store.upload(local, "results/large")
        assert store.size("results/large") == self.large + 3
        assert store.read("results/large") == local.read_bytes()
        store.create_from(local, "attempts/large")
        with _raises(FileExistsError):
            store.create_from(local, "attempts/large")
        assert store.size("attempts/large") == self.large + 3

    def test_uploads_several(self, store: Store, tmp_path: Path) -> None:
        """Files uploaded together all arrive, each under its name; an error of one is not lost."""
        files: list[tuple[str | os.PathLike[str], str]] = []
        for number in range(20):
            (tmp_path / str(number)).write_bytes(b"%d" % number)
            files.append((tmp_path / str(number), f"results/{number:02d}"))
        store.upload_all(files)
        assert [store.read(name) for _, name in files] == [b"%d" % number for number in range(20)]
        with _raises(StoreError):
            store.upload_all([*files[:3], (tmp_path / "missing", "results/missing")])

    def test_takes_files_of_items(self, store: Store, tmp_path: Path) -> None:
        """They arrive whole under any name that an item may give, are listed at any depth, and go; to take one again does no harm."""
        from dcompute.dataset.listing import below

        given = ["map.npz", "maps/2024-01-02T03:04 (a).nc", "Zürich + b & c = 'd', e; @f!$.png"]
        files: list[tuple[str | os.PathLike[str], str]] = []
        for number, name in enumerate(given):
            (tmp_path / str(number)).write_bytes(b"%d" % number * 1000)
            files.append((tmp_path / str(number), f"files/r-000001-00000001-e/{number}/{name}"))
        store.take_all(files)
        store.take_all(files)
        assert [store.read(name) for _, name in files] == [b"%d" % number * 1000 for number in range(len(given))]
        assert {name: file.size for name, file in below(store, "files").items()} == {name: 1000 for _, name in files}
        assert all(abs(file.changed - time.time()) < 86_400 for file in below(store, "files").values())
        store.remove([name for _, name in files])
        assert below(store, "files") == below(store, "nothing") == {}

    def test_removes(self, store: Store) -> None:
        """Removed files are gone, and those that were not there are no error; an emptied folder lists nothing."""
        names = [f"x/{number}" for number in range(12)]
        for name in names:
            store.create(name, b"1")
        store.remove([*names, "x/none"])
        assert not any(store.exists(name) for name in names)
        assert store.names("x") == []
        store.create("x/1", b"again")
        assert store.names("x") == ["x/1"]

    def test_proves_itself(self, store: Store) -> None:
        """The proof of exclusive creation passes and leaves nothing behind."""
        store.prove()
        assert store.names("") == []

    def test_travels(self, store: Store) -> None:
        """A copy in another process would read the same files; no secret shows."""
        store.create("log/1.json", b"first")
        copy = pickle.loads(pickle.dumps(store))  # noqa: S301  our own bytes
        assert copy.url == store.url
        assert copy.read("log/1.json") == b"first"
        assert not any(str(value) in repr(store) for value in store.storage_options.values())


def _race(store: Store, name: str, writers: int) -> tuple[list[int], list[int]]:
    barrier, won, lost = threading.Barrier(writers), list[int](), list[int]()

    def race(number: int) -> None:
        barrier.wait()
        try:
            store.create(name, _of(number))
        except FileExistsError:
            lost.append(number)
        else:
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won, lost


def _of(number: int) -> bytes:
    return b"%d" % number * 1000


def _another(store: Store) -> Store:
    """The storage as another process sees it, as far as one process can have two."""
    copy: Store = pickle.loads(pickle.dumps(store))  # noqa: S301  our own bytes
    if not store.is_local and not store.is_memory:
        copy.storage_options["skip_instance_cache"] = True
    return copy


@contextlib.contextmanager
def _raises(error: type[BaseException]) -> Iterator[None]:
    try:
        yield
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised")
