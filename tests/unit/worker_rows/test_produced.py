"""What an item may call its files, and where they wait for the end of their batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dcompute.dataset.names import execution_of, produced_batch, produced_name
from dcompute.dataset.parts import results_name
from dcompute.errors import UsageError
from dcompute.records import ItemKey
from dcompute.worker import context, system
from dcompute.worker.context import Context, Room, current
from dcompute.worker.produced import Produced, checked_column, checked_name, taken_apart

KEY, OTHER = ItemKey("a", "str"), ItemKey("2", "int")
BATCH = "run-000001-00000007"


@pytest.fixture(autouse=True)
def _nobody_at_work() -> Iterator[None]:
    yield
    context.end()


def _begin(root: Path, **changed: Any) -> Context:
    room = Room(str(root / "scratch"), str(root / "files"), changed.pop("is_group", False), changed.pop("pid", os.getpid()))
    return context.begin(KEY, 1, "r", params={}, seed=0, room=room)


@pytest.mark.parametrize("name", ["map.npz", "maps/2024-01-02T03:04.nc", "Zürich (a) + b.png", "no_ending", Path("a/b.txt")])
def test_relative_names_are_kept(name: Any) -> None:
    """Folders, spaces and letters of all languages may be in a name."""
    assert checked_name(name) == str(name)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "/etc/passwd", "../map.npz", "a/../b", "a//b", "a/", "./a", "a\0b", "a\nb", "a\\b", "a*", "a?b", "[a]", "a#b", "50%",
        "a::b", "\udc80", "x" * 201, "ü" * 101, ".tmp-1", "a/.tmp-1", "a.", "a ", 3, None, b"map.npz",
    ],
)  # fmt: skip
def test_other_names_are_refused(name: Any) -> None:
    """What leaves the folder, what some storage takes for something else, and what is no text; the error says what to do."""
    with pytest.raises(UsageError, match=r"such as 'map\.npz'"):
        checked_name(name)


def test_a_column_is_called_after_the_stem_of_the_name() -> None:
    """What is no letter, digit or underscore becomes one; a column that is given stays as it is."""
    found = [checked_column(None, name) for name in ("map.npz", "maps/flux map.2024.nc", "-.txt", ".hidden")]
    assert found == ["map", "flux_map_2024", "file", "hidden"]
    assert checked_column("my map", "x.npz") == "my map"
    for column in ("", 3, "a\nb", "x" * 101):
        with pytest.raises(UsageError, match="column="):
            checked_column(column, "x.npz")


def test_a_file_s_name_tells_its_batch_and_execution() -> None:
    """No other attempt has it; other names are those of nobody's files."""
    name = produced_name(BATCH, "e1", 3, "maps/a-b.npz")
    assert name == f"files/{BATCH}-e1/3/maps/a-b.npz"
    assert produced_batch(name) == ("run", 1, 7)
    assert execution_of(name) == execution_of(results_name(BATCH, "e1", 0)) == f"{BATCH}-e1"
    for other in ("files/notes.txt", "files/mine/3/a", f"files/{BATCH}-e1/a.npz", f"results/{BATCH}-e1-0.parquet", "results/x.parquet"):
        assert produced_batch(other) is None
    assert execution_of("results/compact-0123456789abcdef0123456789abcdef-1.parquet") is None


def test_outside_an_item_a_file_stays_in_scratch() -> None:
    """A workload that is called plainly gets a path in a folder that is there, and the same refusals."""
    path = current().output("maps/a.npz")
    assert path.parent.is_dir()
    assert path == current().scratch / "maps" / "a.npz"
    assert current().outputs is None
    with pytest.raises(UsageError, match="plain relative"):
        current().output("../a.npz")


def test_files_of_an_item_that_is_noted_outlive_it(tmp_path: Path) -> None:
    """The path is made for each attempt and asked again the same one; noted with its rows it stays, else it goes with the item."""
    item = _begin(tmp_path)
    path = item.output("maps/a.npz")
    path.write_bytes(b"a")
    assert item.output("maps/a.npz") == path
    payload = item.noted(KEY, b"rows")
    context.end()
    assert path.read_bytes() == b"a"
    produced, rows = taken_apart(payload)
    assert rows == b"rows"
    assert produced == [Produced("a", "maps/a.npz", path.parents[1].name)]
    lost = _begin(tmp_path).output("maps/a.npz")
    assert lost != path
    context.end()
    assert not lost.parents[1].exists()


def test_rows_without_files_are_noted_as_they_are(tmp_path: Path) -> None:
    """No byte more, and no folder."""
    item = _begin(tmp_path)
    assert item.noted(KEY, b"rows") == b"rows"
    assert taken_apart(b"\x80rows") == ([], b"\x80rows")
    assert taken_apart(b"") == ([], b"")
    assert list(tmp_path.iterdir()) == []


def test_two_files_do_not_share_a_column(tmp_path: Path) -> None:
    """Nor has one file two columns; the refusal leaves what was asked for before."""
    item = _begin(tmp_path)
    item.output("a/map.npz")
    with pytest.raises(UsageError, match="column='map_2'"):
        item.output("b/map.npz")
    with pytest.raises(UsageError, match="in another column"):
        item.output("a/map.npz", column="other")
    item.output("b/map.npz", column="other")
    produced, _ = taken_apart(item.noted(KEY, b""))
    assert [(one.column, one.name) for one in produced] == [("map", "a/map.npz"), ("other", "b/map.npz")]


def test_in_a_call_with_several_items_each_has_its_files(tmp_path: Path) -> None:
    """The call itself has none; one that is not at work is refused."""
    item = _begin(tmp_path, is_group=True)
    item.join([(OTHER, 1)])
    with pytest.raises(UsageError, match=r"items\[0\].output"):
        item.output("map.npz")
    paths = [one.output("map.npz") for one in item.items]
    assert len(set(paths)) == 2
    assert taken_apart(item.noted(OTHER, b"x"))[0][0].folder == paths[1].parent.name
    earlier = item.items[1]
    _begin(tmp_path, is_group=True)
    with pytest.raises(UsageError, match="'2' is not at work"):
        earlier.output("map.npz")


def test_another_process_is_refused(tmp_path: Path) -> None:
    """What a process below the item's asks for nobody would note."""
    with pytest.raises(UsageError, match="process of the item itself"):
        _begin(tmp_path, pid=os.getpid() + 1).output("map.npz")


@pytest.mark.skipif(not system.LINUX, reason="other systems do not tell")
def test_a_file_that_is_open_for_writing_is_known(tmp_path: Path) -> None:
    """In this process or another; one that is open for reading is not."""
    path = tmp_path / "file"
    with path.open("w"):
        assert system.may_be_written(str(path))
    with path.open():
        assert not system.may_be_written(str(path))
