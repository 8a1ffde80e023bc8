"""A dataset as the input of another: an item a row, an item a key, or an item a part.

Values go out as places of rows, which the workers read: the driver reads rows for their fingerprints, a batch or a row group at a time, and
forgets them. What counts is that of one entry of each log, which stands in the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from dcompute.dataset.filters import check_columns
from dcompute.dataset.hiding import Hides
from dcompute.dataset.many import Datasets
from dcompute.dataset.opening import open as open_dataset
from dcompute.dataset.produced import with_marks
from dcompute.dataset.reading import results_schema
from dcompute.dataset.references import Part, Place, Row, Table, together
from dcompute.dataset.schema import RESERVED
from dcompute.dataset.slabs import Slab, Wanted, scattered, slab, units
from dcompute.dataset.state import State
from dcompute.dataset.status import Dataset
from dcompute.dataset.store import Store
from dcompute.errors import InputError, InternalError, UsageError, ValueTooLargeError
from dcompute.inputs import LARGEST_VALUE
from dcompute.inputs.sources import Bunch, Ready
from dcompute.keys import derive, digest_of, fingerprint
from dcompute.records import ItemKey

By = Literal["row", "key", "part"]

_BETWEEN = "\0"
_NOBODY = ItemKey("", "")
#: Bytes of a place when it is sent: its share of what a batch says once of a part among them.
_ROW_BYTES, _PLACE_BYTES, _SPAN_BYTES, _PART_BYTES = 64, 5, 12, 200


def rows(dataset: Any, *, by: By = "row", columns: Sequence[str] | None = None) -> Rows:
    """The results of a dataset as inputs: what changed of them is done again, and nothing else.

    Parameters
    ----------
    dataset
        As :func:`dcompute.open` takes or gives it: a URL, a pattern, a list, one or several open datasets. What it says now counts, or
        what it said at the time as of which it was opened.
    by
        ``"row"``: the columns of each row are keyword arguments, and its key is that of its item with the number of the row among the
        item's rows. ``"key"``: the rows of each item as one pandas dataframe, under its key. ``"part"``: the path or URL of each Parquet
        file; all rows in them have to count.
    columns
        These only, of which ``item_key`` and ``key_kind`` may be; None: all but these two. A change in other columns is none. Not with
        ``by="part"``.

    Examples
    --------
    >>> import dcompute as dc
    >>> dc.map(clean, dc.rows("lab/raw", by="key"), "lab/clean", on_gone="drop")  # doctest: +SKIP

    Raises
    ------
    DatasetNotFoundError
        There is none.
    InputError
        ``by`` is nothing that there is.
    UsageError
        There is no such column, one is named twice or none at all, or columns of ``by="part"``, whose files the workload opens itself.
    """
    found = dataset if isinstance(dataset, (Dataset, Datasets)) else open_dataset(dataset)
    return Rows(found, by, columns)


class Rows(Ready):
    """The results of one dataset or of several, as inputs; made by :func:`rows`."""

    def __init__(self, dataset: Dataset | Datasets, by: str, columns: Sequence[str] | None) -> None:
        if by not in ("row", "key", "part"):
            raise InputError(f'rows(by={by!r}): say "row", "key" or "part"')
        self._by = by
        # of their own: what others read on meanwhile changes nothing here
        each = [Dataset(one._store, one.at) for one in (dataset if isinstance(dataset, Datasets) else (dataset,))]
        for one in each:
            one._refuse_removed()
        self._dataset: Dataset | Datasets = Datasets(each) if isinstance(dataset, Datasets) else each[0]
        self._each = [(one._store, one.state) for one in each]
        schema = self._dataset._results(None, None, False).schema
        every = [name for name in schema.names if name not in RESERVED]
        wanted = every if columns is None else _wanted(check_columns(columns, schema), by)
        self._schema = pa.schema([schema.field(name) for name in wanted])
        self.names: tuple[str, ...] | None = tuple(wanted) if by == "row" else None
        self.sources = tuple((store.url, state.number) for store, state in self._each)
        self._made = self._requests()  # before, and by others

    @property
    def requests(self) -> int:
        """Requests made for it so far to an object store."""
        return self._requests() - self._made

    @property
    def takes_key(self) -> bool:
        """Whether ``key=`` may name something else than what the dataset calls an item."""
        return self._by == "row"

    def bunches(self, size: int) -> Iterator[Bunch]:
        """Items in the order of the log."""
        made = self._parts() if self._by == "part" else self._of_rows()
        found: list[_Made] = []
        for one in made:
            found.append(one)
            if len(found) == size:
                yield _bunch(found)
                found = []
        if found:
            yield _bunch(found)

    def pick(self, positions: Sequence[int]) -> Bunch:
        """Nothing: it would be read again."""
        raise InternalError(f"a dataset is not read again, for {len(positions)} items")

    def describe(self) -> str:
        """Whose rows they are."""
        what = {"row": "the rows", "key": "the items", "part": "the parts"}[self._by]
        return f"{what} of {', '.join(f'{url} at entry {number}' for url, number in self.sources[:3])}{', ...' * (len(self.sources) > 3)}"

    def why_none(self) -> str:
        """Where to look."""
        return f"no result counts in {', '.join(url for url, _ in self.sources[:3])}"

    def __repr__(self) -> str:
        return f"<{self.describe()}>"

    def _requests(self) -> int:
        return sum(store.requests for store in {id(store): store for store, _ in self._each}.values())

    def _parts(self) -> Iterator[_Made]:
        files = self._dataset.files()
        if not files.are_the_truth:
            raise InputError(
                f'rows(by="part"): not all rows in the files count, or their columns differ ({files.reasons[0]}). Use by="key", or let '
                "compact(all=True) make the files the truth"
            )
        for url in files:
            key = ItemKey(f"results/{url.rpartition('/')[2]}", "str")
            yield key, url, digest_of(key), None, len(url)

    def _of_rows(self) -> Iterator[_Made]:
        doubles = self._dataset._doubles if isinstance(self._dataset, Datasets) else (None,)
        for (store, state), double in zip(self._each, doubles, strict=True):
            hides = Hides.of(state.hides)
            if double is not None and len(double.kinds):
                hides = hides.joined(double())
            yield from _Read(store, state, hides, self._schema, is_by_row=self._by == "row").items()


def _wanted(columns: list[str], by: str) -> list[str]:
    """Columns that were asked for, each of them one of the dataset's."""
    if by == "part":
        raise UsageError('rows(by="part", columns=...): the workload opens the files itself, and chooses columns there: leave columns= out')
    if not columns:
        raise UsageError("rows(columns=[]): no column would be passed; name one at least, such as item_key, or leave columns= out")
    for name in columns:
        if columns.count(name) > 1:
            raise UsageError(f"rows(columns=...) has {name!r} twice: name each column once")
    return columns


#: Key, value, fingerprint, what a function of the value is shown, size.
_Made = tuple[ItemKey, Any, str, Any, int]
#: Rows of one item in one part, and their fingerprints.
_Places = tuple[Part, tuple[Place, ...], list[str]]


def _bunch(made: Sequence[_Made]) -> Bunch:
    keys, values, stamps, shown, sizes = zip(*made, strict=True)
    return Bunch(values, stamps=stamps, named=keys, shown=shown, sizes=sizes)


class _Read:
    """One dataset's rows as items."""

    def __init__(self, store: Store, state: State, hides: Hides, schema: pa.Schema, *, is_by_row: bool) -> None:
        own = results_schema(state)
        # whoever opens a row gets whole URLs of files; fingerprints are of those that the parts have, wherever the dataset lies
        self._state, self._schema = state, with_marks(schema, own)
        both = [*(own.field(name) for name in RESERVED), *(field for field in schema if field.name not in RESERVED)]
        self._wanted = Wanted(store, pa.schema(both), hides, state.renames)
        self._is_by_row = is_by_row
        self._scattered = scattered(self._wanted, state)
        self._before: dict[str, int] = {}  # by key: rows of scattered keys in the units that came
        self._held: dict[str, list[_Places]] = {}  # by key: their places and fingerprints

    def items(self) -> Iterator[_Made]:
        for unit in units(self._wanted.store, self._state):
            found = slab(self._wanted, unit)
            if found.table.num_rows:
                parts = [self._wanted.part(part, self._schema) for part in unit.parts]
                yield from self._rows(found, parts) if self._is_by_row else self._groups(found, parts)
        yield from (_together(key, places) for key, places in self._held.items())

    def _rows(self, found: Slab, parts: Sequence[Part]) -> Iterator[_Made]:
        values = found.table.select(self._schema.names).to_pylist()
        for key, value, part, place in zip(self._keys(found), values, found.parts.tolist(), found.places.tolist(), strict=True):
            yield key, Row(parts[part], place), _print(value), value, _ROW_BYTES

    def _keys(self, found: Slab) -> list[ItemKey]:
        """Of each row the key of its item, and its number among the rows of that."""
        keys = [_NOBODY] * found.table.num_rows
        for key, places in _by_key(found):
            first = 0
            if self._scattered and hash(key) in self._scattered:
                first = self._before.get(key, 0)
                self._before[key] = first + len(places)
            zeroth = _row_key(key)
            begin = zeroth.text[: -len("0]")]
            for number, place in enumerate(places.tolist(), first):
                keys[place] = ItemKey(f"{begin}{number}]", zeroth.kind)
        return keys

    def _groups(self, found: Slab, parts: Sequence[Part]) -> Iterator[_Made]:
        prints = list(map(_print, found.table.select(self._schema.names).to_pylist()))
        for key, rows in _by_key(found):
            places = []
            for part in np.unique(found.parts[rows]).tolist():
                own = rows[found.parts[rows] == part]
                places.append((parts[part], together(found.places[own]), [prints[row] for row in own.tolist()]))
            if hash(key) in self._scattered:
                self._held.setdefault(key, []).extend(places)
            else:
                yield _together(key, places)


def _by_key(found: Slab) -> Iterator[tuple[str, Any]]:
    """Each key, and the numbers of its rows in the slab, ascending."""
    encoded = found.keys.dictionary_encode()
    codes = encoded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    begins = np.flatnonzero(np.diff(codes[order], prepend=-1))
    yield from zip(encoded.dictionary.to_pylist(), np.split(order, begins[1:]), strict=True)


def _together(key: str, places: Sequence[_Places]) -> _Made:
    # sorted: rows that only lie elsewhere are the same rows
    prints = sorted(each for _, _, some in places for each in some)
    size = sum(_PART_BYTES + sum(_PLACE_BYTES if isinstance(row, int) else _SPAN_BYTES for row in rows) for _, rows, _ in places)
    if size > LARGEST_VALUE:
        raise _scattered_too_much(_item_key(key), places)
    value = Table(tuple((part, rows) for part, rows, _ in places))
    return _item_key(key), value, blake2b("".join(prints).encode(), digest_size=16).hexdigest(), None, size


def _scattered_too_much(key: ItemKey, places: Sequence[_Places]) -> ValueTooLargeError:
    url, count = places[0][0].store.url, sum(len(rows) for _, rows, _ in places)
    return ValueTooLargeError(
        f"the rows of {key.text[:80]!r} in {url} lie at {count:,} places apart from each other, too many to go through the scheduler: let "
        f'dc.open({url!r}).compact(all=True, sort_by="item_key") lay the rows of an item together, or take by="part"'
    )


def _print(value: dict[str, Any]) -> str:
    # a column that came later is null in older rows: they did not change by it
    return fingerprint({name: member for name, member in value.items() if member is not None})


def _item_key(joined: str) -> ItemKey:
    kind, _, text = joined.partition(_BETWEEN)
    return ItemKey(text, kind)


def _row_key(joined: str) -> ItemKey:
    """The key of an item's first row."""
    text, kind = _item_key(joined)
    return derive((text, 0) if kind == "str" else (text, kind, 0))
