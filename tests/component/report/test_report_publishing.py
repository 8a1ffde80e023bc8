"""Versions of a report on storage: whole or not there, one of each number, and cleaned up when nobody reads them any more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dcompute.dataset.schema import to_text
from dcompute.dataset.store import Store
from dcompute.errors import DatasetCorruptError, ReportOvertaken, StoreError
from dcompute.report.publishing import Shelf, folder_of, version_name
from dcompute.report.versions import File, Place, Portion, Version
from dcompute.testing import ManualClock


class Room:
    """A report's folder, and the time."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.store = Store.at(folder)
        self.shelf = Shelf(self.store, now=self.clock.time, sleep=self.clock.sleep)

    def version(self, number: int, *uses: str, own: tuple[str, ...] = (), **changed: Any) -> Version:
        """One with files of its own, and others that it goes on using."""
        names = [f"{folder_of(number)}/{name}" for name in own]
        for name in names:
            self.store.write(name, b"x")
        import pyarrow as pa

        given = {
            "report": "r",
            "number": number,
            "id": f"id-{number}",
            "published": self.clock.time(),
            "seconds": 1.0,
            "host": "h",
            "pid": 1,
            "digest": "d",
            "sources": {"lab": (Place(url="u", id="i", number=3),)},
            "columns": {"lab": "c"},
            "schema": to_text(pa.schema([("x", pa.int64())])),
            "files": tuple(File(name=name, size=1, rows=2) for name in (*uses, *names)),
            "rows_in": {"lab": 4},
        }
        return Version(**{**given, **changed})

    def files(self, number: int) -> list[str]:
        return [name.rpartition("/")[2] for name in self.store.names(folder_of(number))]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    """An empty one."""
    return Room(tmp_path / "r")


def test_a_version_is_read_as_it_was_written(room: Room) -> None:
    """Nothing of it is lost on the way, portions and counts too."""
    portion = Portion(files=(File(name="f", size=1, rows=2),), units="u", rows_in={"lab": 2}, dropped={"why": 1})
    version = room.version(1, portions=(portion,), dropped={"why": 1}, reason="first")
    room.shelf.publish(version)
    assert room.shelf.newest() == version
    assert room.shelf.newest().rows == 0  # type: ignore[union-attr]


def test_the_newest_is_found_without_the_hint(room: Room) -> None:
    """A hint that is lost, wrong or damaged costs requests and nothing else."""
    for number in (1, 2, 3):
        room.shelf.publish(room.version(number))
    for hint in (None, b"{", b'{"number": 1, "cleaned": 0}', b'{"number": 9, "cleaned": 0}'):
        room.store.remove(["versions/last.json"])
        if hint is not None:
            room.store.write("versions/last.json", hint)
        newest = room.shelf.newest()
        assert newest is not None
        assert newest.number == 3, hint


def test_of_two_one_wins_and_the_other_says_so(room: Room) -> None:
    """The second version of a number is refused, and the first stays as it is."""
    room.shelf.publish(room.version(1))
    with pytest.raises(ReportOvertaken, match="process 1 on h"):
        room.shelf.publish(room.version(1, id="other"))
    assert room.shelf.newest() == room.version(1)


class Forgetful(Store):
    """A storage that does what it is told and loses its answer the first time."""

    answers = 0

    def create(self, name: str, data: bytes) -> None:
        super().create(name, data)
        self.answers += 1
        if self.answers == 1:
            raise StoreError("no answer")


class Failing(Store):
    """A storage that fails at first."""

    failures = 2

    def create(self, name: str, data: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("not now")
        super().create(name, data)


@pytest.mark.parametrize("kind", [Forgetful, Failing])
def test_a_lost_answer_is_looked_up(room: Room, kind: type[Store]) -> None:
    """A version whose answer was lost counts, once; one that was not written is written again."""
    shelf = Shelf(kind(room.store.url, room.store.protocol, {}), now=room.clock.time, sleep=room.clock.sleep)
    version = room.version(1)
    shelf.publish(version)
    assert room.shelf.newest() == version


def test_a_damaged_version_is_named(room: Room) -> None:
    """What cannot be read as a version is an error that says which file."""
    room.shelf.publish(room.version(1))
    room.store.write(version_name(1), b"{}")
    with pytest.raises(DatasetCorruptError, match=version_name(1)):
        room.shelf.newest()
    room.store.write(version_name(1), json.dumps({"format": 99}).encode())
    with pytest.raises(DatasetCorruptError, match="update dcompute"):
        room.shelf.newest()


def publish_all(room: Room, versions: list[Version]) -> None:
    for version in versions:
        room.shelf.publish(version)


def test_old_versions_go_and_what_newer_ones_use_stays(room: Room) -> None:
    """Files of versions beyond ``keep`` are removed, with what killed runs left beside them; a file that is still used is not."""
    first = room.version(1, own=("a", "b"))
    kept = first.files[0].name
    publish_all(room, [first, room.version(2, kept, own=("c",)), room.version(3, kept, own=("d",))])
    room.store.write(f"{folder_of(1)}/orphan", b"x")
    newest = room.shelf.newest()
    assert newest is not None
    gone = room.shelf.clean(newest, keep=2, retention=0)
    assert sorted(name.rpartition("/")[2] for name in gone) == ["b", "orphan"]
    assert [room.files(number) for number in (1, 2, 3)] == [["a"], ["c"], ["d"]]


def test_young_versions_stay_for_their_readers(room: Room) -> None:
    """A version stays for the retention after the next one was published, however many there are."""
    publish_all(room, [room.version(1, own=("a",)), room.version(2, own=("b",))])
    newest = room.shelf.newest()
    assert newest is not None
    assert room.shelf.clean(newest, keep=1, retention=60) == []
    room.clock.sleep(61)
    assert room.shelf.clean(newest, keep=1, retention=60) == [f"{folder_of(1)}/a"]


def test_cleaning_goes_on_where_it_was(room: Room) -> None:
    """What was cleaned up is not looked at again; where the hint was lost it is, and nothing that counts is removed."""
    publish_all(room, [room.version(number, own=("x",)) for number in (1, 2, 3)])
    newest = room.shelf.newest()
    assert newest is not None
    assert len(room.shelf.clean(newest, keep=1, retention=0)) == 2
    assert room.shelf.clean(newest, keep=1, retention=0) == []
    room.store.remove(["versions/last.json"])
    room.shelf.clean(newest, keep=1, retention=0)
    assert room.files(3) == ["x"]


def test_a_failure_is_counted_from_the_first(room: Room) -> None:
    """Of the same version the time of the first failure stays; of another one it begins anew."""
    began = room.clock.time()
    room.shelf.note_failure(1, "a")
    room.clock.sleep(10)
    room.shelf.note_failure(1, "b")
    failure = room.shelf.failure()
    assert failure is not None
    assert (failure.since, failure.last, failure.times, failure.message) == (began, began + 10, 2, "b")
    room.shelf.note_failure(2, "c")
    failure = room.shelf.failure()
    assert failure is not None
    assert (failure.since, failure.times) == (began + 10, 1)
