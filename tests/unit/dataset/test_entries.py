"""Entries: what is committed comes back as it was, whoever reads it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcompute.dataset.entries import (
    Add,
    AddBatch,
    Adopted,
    Close,
    Drop,
    Entry,
    Hide,
    Open,
    Release,
    Rename,
    Replace,
    RunInfo,
    Sent,
    SetSchema,
    Vacuum,
    adding,
)
from dcompute.errors import DatasetCorruptError
from dcompute.records import ItemKey, PartRef

texts = st.text(max_size=8)
keys = st.builds(ItemKey, st.one_of(texts, st.just("na\udcffme")), st.sampled_from(["str", "int", "tuple"]))
many_keys = st.lists(keys, max_size=3).map(tuple)
numbers = st.integers(0, 2**40)
floats = st.floats(0, 1e9, allow_nan=False)
sources = st.lists(st.tuples(texts, numbers), max_size=2).map(tuple)
parts = st.lists(st.builds(PartRef, name=texts, size=numbers, rows=numbers), max_size=2).map(tuple)
batches = st.builds(
    AddBatch,
    id=texts,
    holds=st.lists(st.tuples(numbers, numbers), max_size=3).map(tuple),
    left_out=many_keys,
    final=many_keys,
    results=parts,
    succeeded=numbers,
    failed=st.lists(st.tuples(texts, numbers), max_size=2).map(tuple),
    rows=numbers,
    seconds=floats,
    slot_seconds=floats,
    stands_for=st.none() | texts,
    quarantined=parts,
    again=many_keys,
)
records = st.lists(st.tuples(texts, st.lists(st.tuples(numbers, numbers), max_size=2).map(tuple)), max_size=2).map(tuple)
actions = st.one_of(
    st.builds(Open, epoch=numbers, run=texts, workload=texts, host=texts, boot=texts, pid=numbers, started=floats, at=floats),
    st.builds(RunInfo, run=texts, version=st.none() | texts, params_digest=texts, code_digest=texts, seed=numbers, sources=sources),
    st.builds(Add, batches=st.lists(batches, max_size=2).map(tuple)),
    st.builds(Hide, keys=many_keys, scope=st.sampled_from(["results", "all"])),
    st.builds(Vacuum, until=numbers, dropped=st.lists(texts, max_size=3).map(tuple)),
    st.builds(Replace, parts=st.lists(texts, max_size=2).map(tuple), by=parts, read_at=numbers),
    st.builds(
        Release, records=records, by=parts, read_at=numbers, admitted=st.lists(st.tuples(texts, texts, texts), max_size=2).map(tuple)
    ),
    st.builds(Drop, records=records),
    st.builds(SetSchema, schema=texts),
    st.builds(Rename, columns=st.lists(st.tuples(texts, texts), max_size=2).map(tuple)),
    st.builds(Sent, batch=texts, keys=many_keys),
    st.builds(Adopted, epochs=st.lists(numbers, max_size=3).map(tuple)),
    st.builds(Close, epoch=numbers),
)


@given(st.lists(actions, max_size=4).map(tuple))
def test_round_trip(made):
    """Every action is read back as it was written, keys that are no valid Unicode too."""
    entry = Entry(7, "ab12", 1.5, made)
    assert Entry.from_bytes(7, entry.to_bytes()) == entry


def test_form_on_storage():
    """The form on storage is a JSON list with a head, and without what is as always: other programs may read it."""
    entry = Entry(3, "ab12", 1.5, (Hide(keys=(ItemKey("a", "str"),)), Close(epoch=2)))
    assert json.loads(entry.to_bytes()) == [
        {"entry": "ab12", "at": 1.5},
        {"do": "hide", "keys": [["a", "str"]]},
        {"do": "close", "epoch": 2},
    ]
    assert json.loads(Entry(3, "ab12", 1.5, (Close(epoch=2, outcome="failed"),)).to_bytes())[1] == {
        "do": "close",
        "epoch": 2,
        "outcome": "failed",
    }


def test_unknown_fields_are_dropped():
    """A field that a newer version added to an action harms no older one."""
    data = b'[{"entry": "x", "at": 1, "by": "new"}, {"do": "add", "batches": [{"id": "b", "holds": [[0, 1]], "new": 1}], "new": 2}]'
    assert Entry.from_bytes(1, data).actions == (Add(batches=(AddBatch(id="b", holds=((0, 1),)),)),)


def test_what_checks_nothing_is_written_as_before():
    """A dataset without a quarantine has no word in its log that older versions do not know."""
    data = Entry(1, "id", 1.0, (Add(batches=(AddBatch(id="b", holds=((0, 1),)),)),)).to_bytes()
    assert set(json.loads(data)[1]["batches"][0]) == {"id", "holds"}


def test_unknown_action_names_the_format():
    """An action of a newer version is refused: what it means cannot be guessed."""
    with pytest.raises(DatasetCorruptError, match=r"00012\.json: the action 'forget' is not of format 1\.3.*Update dcompute"):
        Entry.from_bytes(12, b'[{"entry": "x", "at": 1}, {"do": "forget"}]')


@pytest.mark.parametrize(
    "data", [b"", b"[", b"[]", b"{}", b"null", b'[{"entry": "x"}]', b'[{"entry": "x", "at": 1}, {"do": "add"}]', b"\xff"]
)
def test_damaged_entry_is_named(data):
    """What is no entry is said to be damaged, with its name."""
    with pytest.raises(DatasetCorruptError, match=r"log/00000000000000000012\.json is no entry"):
        Entry.from_bytes(12, data)


def test_hides_stand_before_the_add():
    """What a new attempt replaces is hidden before it is added, and nothing is hidden where nothing is replaced."""
    batch, key = AddBatch(id="r-000001-00000001", holds=((0, 1),)), ItemKey("a", "str")
    assert adding([batch], [key]) == (Hide(keys=(key,)), Add(batches=(batch,)))
    assert adding([batch]) == (Add(batches=(batch,)),)
