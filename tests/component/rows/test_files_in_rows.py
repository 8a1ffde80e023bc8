"""Files of items on their way into the parts of a batch: columns, names, and whose fault it is where there is none."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcompute.dataset.meeting import FILE
from dcompute.dataset.names import mark_name
from dcompute.dataset.parts import read_attempts
from dcompute.dataset.schema import file_columns, from_text, join, to_text
from dcompute.dataset.store import Store
from dcompute.errors import SchemaError
from dcompute.records import FAILED, SUCCEEDED, BatchSpec, ItemKey, Receipt, RunSpec
from dcompute.worker import context, system
from dcompute.worker.finish import Finisher, Surroundings
from dcompute.worker.journal import Figures, Journal
from dcompute.worker.rewrite import rewrite
from dcompute.worker.rows import encode, to_rows
from dcompute.worker.work import files_folder, size_of_files

BATCH = "r-000001-00000001"
URLS = ("map_url", "map_size", "map_checksum")


class Made:
    """A batch whose items did what these functions do, each the call of one, and what was made of it."""

    def __init__(
        self, folder: Path, calls: Sequence[Any], *, declared: pa.Schema | None = None, known: str | None = None, batch: str = BATCH
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        run = RunSpec(
            run="r",
            dataset="/x",
            workload="w",
            code=b"",
            code_digest="c",
            params_digest="p",
            schema=to_text(declared) if declared else None,
        )
        keys = tuple(ItemKey(f"k{index}", "str") for index in range(len(calls)))
        spec = BatchSpec(id=batch, keys=keys, attempts=(1,) * len(keys), fingerprints=("",) * len(keys), values=b"", schema=known)
        journal = Journal(str(folder / "journal"), create=True)
        for index, call in enumerate(calls):
            room = context.Room(None, str(files_folder(folder)), False, os.getpid())
            item = context.begin(keys[index], 1, "r", params={}, seed=0, room=room)
            payload = item.noted(keys[index], encode(to_rows(call())))
            context.end()
            journal.write(index, True, 1e9, Figures(), b"", payload)
            journal.end()
        made = Finisher(str(folder), run, spec, Surroundings()).finish(
            journal, "e1", {"slot_seconds": 1.0, "setup_seconds": 0.0, "leftovers": 0}
        )
        journal.close()
        assert made is not None
        self.receipt: Receipt = made[0]
        self.files = made[1]
        tables = [pq.read_table(path) for path, name in self.files if name.startswith("results/")]
        self.table = pa.concat_tables(tables) if tables else pa.table({})
        self.produced = {name: Path(path) for path, name in self.files if name.startswith("files/")}
        self.attempts = pq.read_table(self.files[-1][0]).to_pylist()

    @property
    def schema(self) -> pa.Schema:
        return from_text(self.receipt.schema or "")

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.table.to_pylist()

    def message(self, index: int) -> str:
        """Of a failed item; the receipt and its attempt row say the same."""
        (failure,) = [one for one in self.receipt.failures if one.index == index]
        row = self.attempts[index]
        assert (row["outcome"], row["kind"], row["error"], row["message"]) == (FAILED, "permanent", failure.error, failure.message)
        return failure.message


def writes(data: bytes, result: Any = None, name: str = "map.bin", column: str | None = None) -> Any:
    """A call that writes a file."""

    def call() -> Any:
        context.current().output(name, column).write_bytes(data)
        return result

    return call


def test_a_row_says_where_the_file_is_how_large_and_what_its_checksum_is(tmp_path: Path) -> None:
    """In three columns that know themselves as such, in the part and in the receipt; the file comes before the parts."""
    made = Made(tmp_path, [writes(b"one", {"n": 1}), writes(b"", {"n": 2})])
    name = f"files/{BATCH}-e1/0/map.bin"
    assert made.rows[0] == {
        "item_key": "k0", "key_kind": "str", "n": 1,
        "map_url": name, "map_size": 3, "map_checksum": f"sha256:{hashlib.sha256(b'one').hexdigest()}",
    }  # fmt: skip
    assert made.rows[1]["map_size"] == 0
    assert [name for _, name in made.files[:2]] == [name, f"files/{BATCH}-e1/1/map.bin"]
    assert made.files[-1][1] == mark_name(BATCH)
    assert made.produced[name].read_bytes() == b"one"
    for schema in (made.schema, made.table.schema):
        assert file_columns(schema) == URLS
        assert [schema.field(one).metadata[FILE] for one in URLS] == [b"url", b"size", b"checksum"]


@pytest.mark.parametrize(
    ("result", "count"),
    [(None, 1), ([], 1), (pd.DataFrame({"n": []}), 1), (pa.table({"n": [1, 2]}), 2), ([{"n": 1}, {"m": 2}], 2), (7, 1), ({}, 1)],
    ids=["nothing", "no rows", "empty frame", "table", "rows", "scalar", "empty row"],
)
def test_each_row_of_an_item_names_its_file(tmp_path: Path, result: Any, count: int) -> None:
    """Whatever the item returned; where that is no row, it gets one."""
    made = Made(tmp_path, [writes(b"x", result)])
    assert [row["map_url"] for row in made.rows] == [f"files/{BATCH}-e1/0/map.bin"] * count
    assert made.attempts[0]["rows"] == count
    assert made.receipt.rows == count


def test_items_without_files_have_nulls(tmp_path: Path) -> None:
    """And several files of an item have columns each."""
    two = writes(b"a", name="a.bin"), writes(b"b", {"n": 3}, name="sub/b.bin", column="other")
    made = Made(tmp_path, [lambda: {"n": 1}, writes(b"x", {"n": 2}), lambda: (two[0](), two[1]())[1]])
    assert [row["map_url"] is None for row in made.rows] == [True, False, True]
    assert [row["other_url"] for row in made.rows] == [None, None, f"files/{BATCH}-e1/2/sub/b.bin"]
    assert made.rows[2]["a_size"] == 1
    assert len(made.produced) == 3


def fork_of(data: bytes) -> Any:
    """A call that asks for a file and writes something else there."""

    def call() -> None:
        path = context.current().output("map.bin")
        if data == b"nothing":
            return
        if data == b"folder":
            path.mkdir()
        elif data == b"link":
            path.symlink_to("/etc/hostname")
        elif data == b"pipe":
            os.mkfifo(path)

    return call


@pytest.mark.parametrize(
    ("what", "said"), [("nothing", "no file was written"), ("folder", "is a folder"), ("link", "no regular"), ("pipe", "no regular")]
)
def test_an_item_that_wrote_no_file_has_failed(tmp_path: Path, what: str, said: str) -> None:
    """For good, with what to do; its neighbours have their rows."""
    made = Made(tmp_path, [writes(b"x"), fork_of(what.encode()), writes(b"y")])
    assert said in made.message(1)
    assert made.receipt.failures[0].error == "dcompute.errors.UsageError"
    assert [row["item_key"] for row in made.rows] == ["k0", "k2"]
    assert len(made.produced) == 2


def test_a_column_that_the_result_has_too_fails_the_item(tmp_path: Path) -> None:
    """Whatever form the result has, and its file is not taken."""
    results = [{"map_url": "x"}, [{"n": 1}, {"map_size": 3}], pa.table({"map_checksum": ["x"]})]
    made = Made(tmp_path, [writes(b"x", result) for result in results])
    assert all("another column=" in made.message(index) for index in range(3))
    assert made.produced == {}
    assert made.rows == []


def test_text_that_another_item_returns_in_such_a_column_fails(tmp_path: Path) -> None:
    """The first in the order of the batch decides what the column is; both ways."""
    made = Made(tmp_path / "a", [writes(b"x"), lambda: {"map_url": "s3://x"}, writes(b"y")])
    assert "files that items produced, the other is what items returned). Give output() another column=, and" in made.message(1)
    assert [row["item_key"] for row in made.rows] == ["k0", "k2"]
    other = Made(tmp_path / "b", [lambda: {"map_url": "s3://x"}, writes(b"x"), lambda: {"map_url": None}])
    assert "files that items produced" in other.message(1)
    assert other.produced == {}
    known = to_text(pa.schema([pa.field("map_url", pa.string())]))
    assert "files that items produced" in Made(tmp_path / "c", [writes(b"x")], known=known).message(0)


def test_nobody_need_declare_these_columns(tmp_path: Path) -> None:
    """Beside a declared schema they come by themselves; other columns fail as ever, and so do declared ones of the same name."""
    declared = pa.schema([pa.field("n", pa.int32())])
    made = Made(tmp_path / "a", [writes(b"x", {"n": 1}), writes(b"y", {"m": 1}), writes(b"z")], declared=declared)
    assert "not in the declared schema" in made.message(1)
    assert [row["n"] for row in made.rows] == [1, None]
    assert made.table.schema.field("n").type == pa.int32()
    assert file_columns(made.schema) == URLS
    assert len(made.produced) == 2
    clash = Made(tmp_path / "b", [writes(b"x")], declared=pa.schema([pa.field("map_url", pa.string())]))
    assert "files that items produced" in clash.message(0)


def test_a_table_read_from_a_dataset_brings_no_files_along(tmp_path: Path) -> None:
    """A part of another dataset names files of that one: returned by an item it is text."""
    part = Made(tmp_path / "a", [writes(b"x")]).table.drop_columns(["item_key", "key_kind"])
    assert file_columns(part.schema) == URLS
    made = Made(tmp_path / "b", [lambda: part])
    assert file_columns(made.schema) == ()
    assert made.rows[0]["map_url"].startswith("files/")


@pytest.mark.skipif(not system.LINUX, reason="other systems do not tell, and each file is copied")
def test_what_is_still_being_written_is_copied(tmp_path: Path) -> None:
    """A file that somebody may write to later is taken as it is now; any other is not copied."""
    held: list[Any] = []

    def call() -> None:
        path = context.current().output("map.bin")
        held.append(path.open("wb", buffering=0))
        held[0].write(b"now")

    def linked() -> None:
        own = tmp_path / "own"
        own.write_bytes(b"mine")
        os.link(own, context.current().output("map.bin"))

    def elsewhere() -> None:
        path = context.current().output("sub/map.bin")
        path.parent.rmdir()
        (tmp_path / "other").mkdir()
        path.parent.symlink_to(tmp_path / "other")
        path.write_bytes(b"there")

    made = Made(tmp_path / "a", [call, linked, elsewhere, writes(b"x")])
    held[0].write(b" and later")
    (tmp_path / "own").write_bytes(b"other")
    held[0].close()
    data = [path.read_bytes() for path in made.produced.values()]
    assert data == [b"now", b"mine", b"there", b"x"]
    assert [row["map_checksum"] for row in made.rows] == [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in data]
    assert [path.name.startswith("copy-") for path in made.produced.values()] == [True, True, True, False]
    assert size_of_files(tmp_path / "a") > sum(map(len, data))
    assert size_of_files(tmp_path / "none") == 0


def test_a_schema_with_files_is_one_that_older_versions_refuse(tmp_path: Path) -> None:
    """They would take paths for text and forget what they are; one without files is written as ever."""
    import json

    text = Made(tmp_path, [writes(b"x")]).receipt.schema or ""
    assert "arrow" not in json.loads(text)
    assert "update it" in text[:80]
    assert "arrow" in json.loads(to_text(pa.schema([pa.field("n", pa.int64())])))
    assert to_text(from_text(text)) == text
    assert join(text, text) == join(text, to_text(pa.schema([pa.field("map_url", pa.null())]))) == text


def test_a_batch_that_is_rewritten_keeps_its_files(tmp_path: Path) -> None:
    """The rows that fit name them as before; those that do not fit, as the column is text in the dataset, fail and say so."""
    store = Store.at(f"memory://{uuid.uuid4().hex}")
    made = Made(tmp_path, [writes(b"x", {"n": 1}), writes(b"y", {"n": 2})])
    store.take_all(made.files)
    fits = rewrite(store, BATCH, "r-000001-00000009", to_text(pa.schema([pa.field("n", pa.float64())])))
    assert fits.failures == ()
    assert file_columns(from_text(fits.schema or "")) == URLS
    assert join(made.receipt.schema, None) == made.receipt.schema
    declared = rewrite(store, BATCH, "r-000001-00000010", to_text(pa.schema([pa.field("n", pa.int32())])), declared=True)
    assert file_columns(from_text(declared.schema or "")) == URLS
    as_text = rewrite(store, BATCH, "r-000001-00000011", to_text(pa.schema([pa.field("map_url", pa.string())])))
    assert [failure.index for failure in as_text.failures] == [0, 1]
    assert "files that items produced" in as_text.failures[0].message
    assert read_attempts(store, mark_name(as_text.batch), ["outcome"])["outcome"].to_pylist() == [FAILED] * 2
    assert read_attempts(store, mark_name(fits.batch), ["outcome"])["outcome"].to_pylist() == [SUCCEEDED] * 2


def test_the_marks_do_not_meet_each_other() -> None:
    """A URL is no checksum, whatever their types."""
    one, two = (to_text(pa.schema([pa.field("x", pa.string(), metadata={FILE: kind})])) for kind in (b"url", b"checksum"))
    with pytest.raises(SchemaError):
        join(one, two)
