from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dcompute.errors import KeyDerivationError
from dcompute.keys import derive, derive_many, digest_of, fingerprint, item_seed
from dcompute.records import ItemKey

TABLE: list[tuple[Any, str, str]] = [
    ("raw/a.csv", "str", "raw/a.csv"),
    (np.str_("a"), "str", "a"),
    (7, "int", "7"),
    (np.int64(7), "int", "7"),
    (np.uint8(7), "int", "7"),
    (True, "bool", "true"),
    (np.bool_(False), "bool", "false"),
    (0.1, "float", "0.1"),
    (np.float32(0.5), "float", "0.5"),
    (1.0, "float", "1.0"),
    (float("inf"), "float", "inf"),
    (2 + 1j, "complex", "(2+1j)"),
    (decimal.Decimal("1.10"), "decimal", "1.10"),
    (datetime.date(2024, 5, 1), "date", "2024-05-01"),
    (datetime.datetime(2024, 5, 1, 12), "datetime", "2024-05-01T12:00:00"),
    (pd.Timestamp("2024-05-01T12:00:00"), "datetime", "2024-05-01T12:00:00"),
    (np.datetime64("2024-05-01T12:00:00.000000001"), "datetime", "2024-05-01T12:00:00.000000001"),
    (datetime.time(3, 4), "time", "03:04:00"),
    (datetime.timedelta(days=-1, microseconds=3), "timedelta", "-86399.999997"),
    (pd.Timedelta("1ns"), "timedelta", "0.000000001"),
    (uuid.UUID(int=3), "uuid", "00000000-0000-0000-0000-000000000003"),
    (pathlib.PurePosixPath("a/b"), "path", "a/b"),
    ((1, "1", 1.0, None), "tuple", '[1,"1",1.0,null]'),
    ({"b": 2, "a": (1, 2)}, "dict", '{"a":[1,2],"b":2}'),
    ({1: "a"}, "dict", '{"$dict":[[1,"a"]]}'),
    ({"day": datetime.date(2024, 5, 1)}, "dict", '{"day":{"$date":"2024-05-01"}}'),
    ({"$date": "2024-05-01"}, "dict", '{"$$date":"2024-05-01"}'),
    ((float("nan"), np.int64(1)), "tuple", '[{"$float":"nan"},1]'),
    ({"ä": "ö"}, "dict", '{"ä":"ö"}'),
]


class Colour(enum.Enum):
    RED = 1


class Letter(enum.StrEnum):
    R = "r"


class Shade(enum.StrEnum):
    DARK = "dark"


@dataclasses.dataclass
class Point:
    x: int
    y: float


@pytest.mark.parametrize(("value", "kind", "text"), TABLE, ids=repr)
def test_what_the_key_of_each_type_is(value: Any, kind: str, text: str) -> None:
    """Keys are on disk: their text never changes."""
    assert derive(value) == ItemKey(text, kind)


def _type(value: Any) -> str:
    return type(value).__name__


@pytest.mark.parametrize("value", [None, [1], b"x", {1, 2}, object(), Colour.RED, np.arange(3), pd.NaT, ({"a": b"x"},), len], ids=_type)
def test_what_gives_no_key_is_refused_with_the_way_out(value: Any) -> None:
    """A value without a stable text names its type and says to pass key=."""
    with pytest.raises(KeyDerivationError, match=r"pass key="):
        derive(value)


def test_a_part_without_text_is_named() -> None:
    """Of a mapping with one bad member the error names the type of that member."""
    with pytest.raises(KeyDerivationError, match="a dict, which holds a object"):
        derive({"good": 1, "bad": object()})


def test_text_of_an_enumeration_is_its_value() -> None:
    """A member of a text enumeration is the text that it is."""
    assert derive(Shade.DARK) == ("dark", "str")


#: Half characters, and what their keys look like, as often as other characters.
pieces = st.sampled_from(["\\", "\udcff", "\\udcff", "\\\\udcff", "\ud83d", "\ude00", "\U0001f600", "u", "dcff", '"', "$", "/", "é", "a"])
torn = st.lists(pieces, max_size=6).map("".join)
#: Ways in which a text is the whole of a value, or a part of one.
HOLDERS: dict[str, Callable[[str], Any]] = {
    "text": lambda text: text,
    "text of NumPy": np.str_,
    "path": lambda text: pathlib.PurePosixPath(f"x{text.replace('/', '|')}"),
    "tuple": lambda text: (text,),
    "tuple with a date": lambda text: (text, datetime.date(2024, 5, 1)),
    "tuple with a path": lambda text: (pathlib.PurePosixPath(f"x{text.replace('/', '|')}"),),
    "member": lambda text: {"a": text},
    "member beside a date": lambda text: {"a": text, "b": datetime.date(2024, 5, 1)},
    "name": lambda text: {text: 1},
    "name of a date": lambda text: {text: datetime.date(2024, 5, 1)},
    "member of a mapping by numbers": lambda text: {1: text},
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=list(HOLDERS))
@given(a=torn, b=torn)
@example(a="\udcff", b="\\udcff")
@example(a="\\\udcff", b="\\\\udcff")
def test_different_texts_have_different_keys_whatever_they_spell(hold: Callable[[str], Any], a: str, b: str) -> None:
    """Half characters and backslashes too, alone and inside others; every key is a text that a table can hold."""
    one, other = hold(a), hold(b)
    assert (derive(one) == derive(other)) == (one == other)
    assert (fingerprint(one) == fingerprint(other)) == (one == other)
    derive(one).text.encode()


@given(torn)
def test_half_characters_in_what_has_no_key_are_told_apart(text: str) -> None:
    """Lists have fingerprints only, and those follow every character."""
    assert fingerprint([text]) not in ("", fingerprint([text + "\udcff"]), fingerprint([text + "\\udcff"]))


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("caf\udce9", "str_escaped", "caf\\udce9"),
        ("caf\\udce9", "str", "caf\\udce9"),
        ("\\caf\udce9", "str_escaped", "\\\\caf\\udce9"),
        (pathlib.PurePosixPath("caf\udce9"), "path_escaped", "caf\\udce9"),
        (("caf\udce9", "caf\\udce9"), "tuple", '["caf\\udce9","caf\\\\udce9"]'),
        ((np.str_("caf\udce9"),), "tuple", '["caf\\udce9"]'),
    ],
)
def test_a_file_name_that_is_no_text_gives_a_key_that_is(value: Any, kind: str, text: str) -> None:
    """Half characters are written out in a kind of its own; the key of a text that spells them out is the text itself."""
    assert derive(value) == ItemKey(text, kind)


def test_integers_of_thousands_of_digits_have_keys() -> None:
    """Python refuses to write them in decimal; they are still numbers."""
    large = 10**6000
    assert derive(large).text == hex(large)
    assert derive((large,)) != derive((large + 1,))
    assert derive_many([1, large])[0] == [derive(1), derive(large)]


def test_a_value_that_holds_itself_is_refused() -> None:
    """Endless nesting is an error with a way out, not a crash."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(KeyDerivationError, match="nested"):
        derive((endless,))
    assert fingerprint(endless) == ""


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.dates()
    | st.uuids()
    | st.decimals(allow_nan=False)
)
names = st.text() | st.integers()
members = st.recursive(leaves, lambda inner: st.tuples(inner, inner) | st.dictionaries(names, inner, max_size=3), max_leaves=6)
scalars = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])) | st.dates()


@given(a=members.filter(lambda value: value is not None), b=members.filter(lambda value: value is not None))
def test_two_values_have_one_key_only_if_they_are_one(a: Any, b: Any) -> None:
    """Different values have different keys and fingerprints, equal ones of the same types have the same."""
    same = _typed(a) == _typed(b)
    assert (derive(a) == derive(b)) == same
    assert (fingerprint(a) == fingerprint(b)) == same


def _typed(value: Any) -> Any:
    """The value with its types, so that 1 and True differ; half characters as the key writes them."""
    if isinstance(value, tuple):
        return ("tuple", *map(_typed, value))
    if isinstance(value, dict):
        return ("dict", frozenset((_typed(name), _typed(member)) for name, member in value.items()))
    return (type(value).__name__, repr(value))


@given(st.lists(scalars))
def test_many_at_once_are_as_one_by_one(values: list[Any]) -> None:
    """The quick way for many values gives what the slow one does."""
    keys, prints = derive_many(values)
    assert keys == [derive(value) for value in values]
    assert prints == [fingerprint(value) for value in values]


@given(st.lists(st.integers()) | st.lists(st.text()))
def test_many_of_one_type_are_as_one_by_one(values: list[Any]) -> None:
    """So it does for integers alone and texts alone."""
    assert derive_many(values) == ([derive(value) for value in values], [fingerprint(value) for value in values])


class Range(NamedTuple):
    start: int
    stop: int


class Backwards(NamedTuple):
    stop: int
    start: int


kept = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from([0.0, 1.0, 2.0, "", "1", b"1", "$tuple"])
held = st.recursive(
    kept,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.tuples(inner, inner)
        | st.builds(Range, inner, inner)
        | st.builds(Backwards, inner, inner)
        | st.dictionaries(st.sampled_from(["a", "$tuple", "$names", 1]), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(a=held, b=held)
@example(a={"a": (1, 2)}, b={"a": [1, 2]})
@example(a=((1,), 2), b=([1], 2))
@example(a={1: (2,)}, b={1: [2]})
@example(a=Range(1, 2), b=(1, 2))
@example(a=Range(1, 2), b=Backwards(1, 2))
@example(a={"a": (1,)}, b={"a": {"$tuple": [1]}})
def test_a_fingerprint_tells_apart_what_a_workload_could(a: Any, b: Any) -> None:
    """Tuples, lists and named tuples, however deep, although keys write them alike."""
    assert (fingerprint(a) == fingerprint(b)) == (_shaped(a) == _shaped(b))


def _shaped(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return (getattr(value, "_fields", type(value).__name__), *map(_shaped, value))
    return ("dict", frozenset((name, _shaped(member)) for name, member in value.items())) if isinstance(value, dict) else _typed(value)


def test_a_fingerprint_tells_what_can_be_changed_from_what_cannot() -> None:
    """Sets and bytes have two forms each; a NumPy scalar, an enumerated text and the order of names are no difference."""
    for one, other in [({1}, frozenset({1})), (b"a", bytearray(b"a"))]:
        assert fingerprint([one]) not in ("", fingerprint([other]))
    alike = [([1, 0.5], [np.int64(1), np.float64(0.5)]), (["r"], [Letter.R]), ({"a": 1, "b": [2]}, {"b": [2], "a": 1})]
    for one, other in alike:
        assert fingerprint(one) == fingerprint(other) != ""


@given(st.lists(members.filter(lambda value: value is not None) | st.builds(Range, scalars, scalars)))
@example([{"a": [1]}, {"a": (1,)}, {"a": {"b": "["}}, Range(1, 2), {1: (2,)}])
def test_fingerprints_come_with_the_keys(values: list[Any]) -> None:
    """Together or alone, whatever the values hold."""
    assert derive_many(values)[1] == [fingerprint(value) for value in values]


def test_fingerprints_tell_what_has_no_key() -> None:
    """Arrays, sets, bytes, records and dataframes have fingerprints by content; an unknown object has none."""
    pairs = [
        (np.arange(3), np.array([0, 1, 3])),
        (np.arange(3), np.arange(3.0)),
        ({1, 2}, {1, 3}),
        (b"a", b"b"),
        (Point(1, 2.0), Point(1, 3.0)),
        ([1, 2], [2, 1]),
        (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 3]})),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]})),
        (pd.Series([1, 2]), pd.Series([2, 1])),
    ]
    for one, other in pairs:
        assert fingerprint(one) != fingerprint(other)
    assert fingerprint(np.arange(3)) == fingerprint(np.array([0, 1, 2]))
    assert fingerprint(np.arange(3, dtype=">i8")) == fingerprint(np.arange(3, dtype="<i8"))
    assert fingerprint(np.asfortranarray(np.eye(3, 2))) == fingerprint(np.eye(3, 2))
    assert fingerprint(np.arange(6)[::2]) == fingerprint(np.array([0, 2, 4]))
    assert fingerprint(pd.DataFrame({"a": [1, 2]})) == fingerprint(pd.DataFrame({"a": [1, 2]}))
    assert fingerprint(object()) == ""
    assert fingerprint([object()]) == ""


def test_tables_without_columns_have_fingerprints() -> None:
    """Their number of rows is all there is to tell."""
    prints = {fingerprint(pd.DataFrame(index=range(rows))) for rows in (0, 1, 2)}
    assert len(prints) == 3
    assert "" not in prints


def test_keys_and_fingerprints_are_the_same_in_every_process() -> None:
    """Neither depends on the hashing of texts, which differs between processes."""
    code = "from dcompute.keys import *; v = {'b': {'x', 'y', 'z'}, 'a': ('1', 1)}; print(fingerprint(v), derive(('b', 1)))"
    runs = [
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]


def test_digests_never_change() -> None:
    """They lie in datasets: another algorithm would redo everything."""
    assert digest_of(ItemKey("a", "str")) == fingerprint("a") == "66a7a87e3b3865cf8b5dd196a6c8d6b7"
    assert fingerprint(np.arange(3)) == "19448a7b3eb4f5709500eb9037e9edc0"
    assert fingerprint((1, "a")) == "91f6e58a58ab9df5766d7b48fd638500"
    assert fingerprint({"a": 1.5, "b": None}) == "5a3b9d88ff148614ecdef34a58c99370"
    assert fingerprint([1, "a"]) == "7955a01e446c6603a4eb0a1a660bb8ef"


def test_the_seed_of_an_item_is_that_which_workers_record() -> None:
    """The plan compares it with the recorded one."""
    from dcompute.worker import context

    key = ItemKey("a", "str")
    assert item_seed(7, key) == context.item_seed(7, key)
