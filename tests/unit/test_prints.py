from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import dcompute as dc
from dcompute.errors import InputError, UsageError
from dcompute.inputs import Inputs
from dcompute.inputs.listing import Files
from dcompute.records import Item, ItemKey

NOW = 2_000_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files that last changed an hour before the clock of the tests, and one a minute before it."""
    for name, age in {"a": 3600, "b": 3600, "c": 3600, "young": 60}.items():
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (NOW - age, NOW - age))
    return tmp_path


@pytest.fixture
def bucket() -> Iterator[str]:
    """Somewhere else than on a disk."""
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/prints/x[1].csv", b"x")
    yield "memory://prints"
    memory.rm("/prints", recursive=True)


def read(found: Files) -> dict[str, str]:
    """The fingerprint of each file once its content is read."""
    inputs = Inputs.of(found)
    assert inputs.prints is not None
    return {os.path.basename(item.value): item.fingerprint for item in inputs.prints.completed(list(inputs))}


def same(found: Files, now: str, before: str) -> bool:
    return found.prints.is_same(now, before)


# ------------------------------------------------------------------------------------------------------------------------ content


def test_a_touched_file_has_its_content_still(folder: Path) -> None:
    """With the content as fingerprint a file that was touched is the same, and one of the same size with other letters is not."""
    found = dc.files(folder / "?", fingerprint="content")
    before = read(found)
    os.utime(folder / "a", (NOW, NOW))
    (folder / "b").write_text("B")
    now = read(dc.files(folder / "?", fingerprint="content"))
    assert now["a"] != before["a"]
    assert same(found, now["a"], before["a"])
    assert not same(found, now["b"], before["b"])
    assert now["c"] == before["c"]


def test_what_was_not_read_has_no_content_in_common(folder: Path) -> None:
    """Two files of which nobody knows the content are the same by what their storage says only."""
    os.utime(folder / "b", (NOW - 7200, NOW - 7200))
    found = dc.files(folder / "?", fingerprint="content")
    first, second, _ = (item.fingerprint for item in Inputs.of(found))
    assert first[16:] == second[16:]
    assert not same(found, first, second)
    assert same(found, first, first)


def test_listing_reads_no_content(folder: Path) -> None:
    """A file that cannot be opened is listed with the others, and keeps what its storage says of it when its content is asked for."""
    (folder / "gone").write_text("x")
    found = dc.files(folder / "gone", fingerprint="content")
    (item,) = Inputs.of(found)
    (folder / "gone").unlink()
    assert found.prints.completed([item]) == [item]


def test_fingerprints_of_both_kinds_compare(folder: Path) -> None:
    """To begin or to end with contents redoes no file that its storage calls unchanged."""
    by_stat, by_content = dc.files(folder / "?"), dc.files(folder / "?", fingerprint="content")
    old, new = read(by_stat), read(by_content)
    assert all(same(by_content, new[name], old[name]) and same(by_stat, old[name], new[name]) for name in old)
    os.utime(folder / "a", (NOW, NOW))
    assert not same(by_stat, read(dc.files(folder / "?"))["a"], new["a"])


def test_contents_of_objects_are_read_by_url(bucket: str) -> None:
    """An object whose name looks like a pattern is read under its name."""
    before = read(dc.files(f"{bucket}/*", fingerprint="content"))
    fsspec.filesystem("memory").pipe_file("/prints/x[1].csv", b"x")
    again = dc.files(f"{bucket}/*", fingerprint="content")
    assert read(again)["x[1].csv"][16:] == before["x[1].csv"][16:] != "0" * 16


def test_a_touched_file_is_reproduced(folder: Path) -> None:
    """What is executed again for eyes is the file with the content that the dataset knows; one with another is refused."""
    from dcompute.reproduction import _input

    path = folder / "a"
    recorded = read(dc.files(path, fingerprint="content"))["a"]
    os.utime(path, (NOW, NOW))
    assert _input(ItemKey(str(path), "str"), recorded, str(path)) == str(path)
    path.write_text("A")
    with pytest.raises(UsageError, match="is another one"):
        _input(ItemKey(str(path), "str"), recorded, str(path))


# ------------------------------------------------------------------------------------------------------------------------- settle


def settling(pattern: Any, settle: Any = "5 min") -> Files:
    return Files(pattern, settle=settle, now=lambda: NOW)


def test_what_changed_a_moment_ago_is_left(folder: Path) -> None:
    """A file younger than the time is no input; it is known to be there, with its fingerprint."""
    found = settling(folder / "*")
    assert [os.path.basename(path) for path in found] == ["a", "b", "c"]
    (left,) = [item for items in Inputs.of(found).left() for item in items]
    assert (os.path.basename(left.value), len(found.left)) == ("young", 1)
    (young,) = Inputs.of(settling(folder / "young", 30))
    assert young.fingerprint == left.fingerprint


def test_a_storage_whose_clock_is_ahead_makes_files_young(folder: Path) -> None:
    """A file that changed in the future is young until that time has come, and for the time to settle after it."""
    os.utime(folder / "a", (NOW + 100, NOW + 100))
    assert not settling(folder / "a").count
    assert not Files(folder / "a", settle=60, now=lambda: NOW + 159).count
    assert Files(folder / "a", settle=60, now=lambda: NOW + 160).count


def test_a_file_that_grows_after_its_listing_is_found_out(folder: Path) -> None:
    """Between listing and its turn a file grew: it is left; without settle= nobody looks."""
    for found, expected in ((settling(folder / "?"), {1}), (dc.files(folder / "?"), set())):
        items = list(Inputs.of(found))
        with (folder / "b").open("a") as file:
            file.write("more")
        assert found.prints.growing(items) == expected
        os.utime(folder / "b", (NOW - 3600, NOW - 3600))


def test_objects_have_times_too(bucket: str) -> None:
    """What is in memory was made just now; the clock of the storage is compared with that of this machine."""
    assert not dc.files(f"{bucket}/*", settle="1 h").count
    assert Files(f"{bucket}/*", settle="1 h", now=lambda: 4e9).count == 1


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"LastModified": "2033-05-18T03:33:20Z"}, NOW),
        ({"updated": "2033-05-18T03:33:20.000+00:00"}, NOW),
        ({"LastModified": datetime.datetime(2033, 5, 18, 3, 33, 20)}, NOW),
        ({"mtime": NOW}, NOW),
        ({"mtime": "yesterday"}, None),
        ({}, None),
    ],
)
def test_times_of_storages_are_understood(info: dict[str, Any], expected: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers and ISO 8601 are, in UTC where no zone is named; all else is no time."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    from dcompute.inputs.listing import _changed

    assert _changed(info) == expected
    monkeypatch.undo()
    time.tzset()


def test_where_nothing_tells_the_time_settle_is_refused(monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    """Where a storage does not say when a file changed, settle= cannot be kept, and says so."""
    memory = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(memory, "glob", lambda *_, **__: {"/prints/x": {"type": "file", "size": 1, "name": "/prints/x"}})
    assert dc.files(f"{bucket}/*").count == 1
    with pytest.raises(InputError, match="does not say when a file changed"):
        _ = dc.files(f"{bucket}/*", settle=1).count


def test_all_files_too_young_is_told(folder: Path) -> None:
    """Where no file has settled yet, that is what to look at."""
    assert "1 file changed less than settle=300 seconds ago" in Inputs.of(settling(folder / "young")).why_none()


@pytest.mark.parametrize(("options", "words"), [({"settle": "soon"}, "settle='soon' is no time"), ({"fingerprint": "md5"}, "md5")])
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], words: str) -> None:
    """A time that is none, and a fingerprint that there is not, are errors where they are said."""
    with pytest.raises(InputError, match=words):
        dc.files("*.csv", **options)


def test_items_of_other_inputs_have_no_prints() -> None:
    """Only files know more of their fingerprints than their items say."""
    assert Inputs.of([1, 2]).prints is None
    assert not list(Inputs.of([1, 2]).left())
    assert isinstance(next(iter(Inputs.of([1]))), Item)
