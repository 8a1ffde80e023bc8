"""Records leave the quarantine: released, so that they count, or dropped for good, by one entry of the log.

Nothing counts before that entry: what is killed before it leaves files that do not count, and what is killed after it is done.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dcompute.dataset.asked import Key, asked
from dcompute.dataset.counted import CountedPart
from dcompute.dataset.entries import Action, Drop, Hide, Release
from dcompute.dataset.hiding import Hides, are_keys
from dcompute.dataset.keeper import Keeper
from dcompute.dataset.merging import TARGET, Files
from dcompute.dataset.parts import corrupt, explained, source_of
from dcompute.dataset.quarantined import INPUT, RESULT, ROW
from dcompute.dataset.reading import results_schema
from dcompute.dataset.renames import Renames
from dcompute.dataset.schema import RESERVED, cast
from dcompute.dataset.state import POSITION_BITS, Ranges, overlap
from dcompute.dataset.store import Store
from dcompute.errors import SchemaError, UsageError
from dcompute.records import CHECK_NAMES, ItemKey, PartRef

_WANTED = (*RESERVED, "source", "check", "fingerprint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What a release did; ``str()`` of it is for people."""

    url: str
    rows: int = 0  #: that are in the results from now on
    inputs: int = 0  #: that the next run executes unchecked

    def __str__(self) -> str:
        rows = f"{self.rows:,} {'row is' if self.rows == 1 else 'rows are'} in the results now"
        inputs = f"{self.inputs:,} {'input is' if self.inputs == 1 else 'inputs are'} executed unchecked when the same line runs again"
        told = [text for count, text in ((self.rows, rows), (self.inputs, inputs)) if count]
        return f"{self.url}: {'; '.join(told) or 'there was nothing to release'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What was dropped from the quarantine; ``str()`` of it is for people."""

    url: str
    records: int = 0

    def __str__(self) -> str:
        return f"{self.url}: {self.records:,} {'record' if self.records == 1 else 'records'} dropped from the quarantine"


@dataclass(frozen=True, slots=True)
class Choice:
    """Records of one part of the quarantine."""

    part: CountedPart
    places: tuple[int, ...]  #: of their rows in the part, ascending
    about: pa.Table  #: whose they are, and what they are

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Their places as half-open ranges."""
        found: list[tuple[int, int]] = []
        for place in self.places:
            if found and found[-1][1] == place:
                found[-1] = found[-1][0], place + 1
            else:
                found.append((place, place + 1))
        return tuple(found)

    def of(self, source: str) -> Choice:
        """Those of one source."""
        mask = np.asarray(pc.equal(self.about.column("source"), source))
        places = tuple(place for place, wanted in zip(self.places, mask, strict=True) if wanted)
        return Choice(self.part, places, self.about.filter(pa.array(mask)))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are asked for."""

    keys: tuple[ItemKey | str, ...] | None = None  #: None: of all
    check: str | None = None

    @classmethod
    def of(cls, verb: str, keys: Iterable[Key] | None, check: str | None, *, all: bool) -> Wanted:
        """From what a user says.

        Raises
        ------
        UsageError
            It says nothing, or two things.
        """
        if bool(all) is (keys is not None or check is not None):
            raise UsageError(f"{verb}() takes keys=, check=, or all=True: say which records are meant")
        return cls(None if keys is None else asked(keys), check)

    def mask(self, about: pa.Table) -> Any:
        """For each record, whether it is asked for."""
        mask = np.ones(about.num_rows, dtype=bool)
        if self.keys is not None:
            texts = pa.array([key for key in self.keys if not isinstance(key, ItemKey)], pa.string())
            pairs = [key for key in self.keys if isinstance(key, ItemKey)]
            mask &= np.asarray(pc.is_in(about.column("item_key"), value_set=texts)) | are_keys(about, pairs)
        if self.check is not None:
            mask &= np.array([self.check in names.split(CHECK_NAMES) for names in about.column("check").to_pylist()], dtype=bool)
        return mask

    def refuse_unknown(self, chosen: Sequence[Choice]) -> None:
        """Raise where a key that is asked for has no record.

        Raises
        ------
        UsageError
            It names one.
        """
        met = {
            ItemKey(*pair) for choice in chosen for pair in zip(*(choice.about.column(name).to_pylist() for name in RESERVED), strict=True)
        }
        met_texts = {key.text for key in met}
        check = f" that did not pass {self.check!r}" if self.check is not None else ""
        for key in self.keys or ():
            if key not in (met if isinstance(key, ItemKey) else met_texts):
                named = repr(tuple(key) if isinstance(key, ItemKey) else key)
                raise UsageError(f"the quarantine has no record of the key {named}{check}: gone before, or mistyped. Nothing was changed")
        if self.check is not None and not met:
            raise UsageError(f"the quarantine has no record that did not pass {self.check!r}: see quarantine(). Nothing was changed")


def release(store: Store, keys: Iterable[Key] | None = None, *, check: str | None = None, all: bool = False) -> Released:
    """Make records of the quarantine count: rows are in the results from now on, inputs are executed unchecked by the next run.

    Parameters
    ----------
    store
        Where the dataset is.
    keys
        Texts of keys, or pairs of text and kind of key.
    check
        Those that did not pass the check of this name.
    all
        All records there are.

    Raises
    ------
    UsageError
        There is no such record; nothing was changed.
    SchemaError
        A row does not fit the columns of the results; nothing was changed.
    """
    wanted = Wanted.of("release", keys, check, all=all)
    keeper = Keeper(store)
    while True:
        chosen, read_at = _chosen(keeper, wanted), keeper.state.number
        if not chosen:
            return Released(url=store.url)
        rows, inputs = ([of for one in chosen if (of := one.of(source)).places] for source in (RESULT, INPUT))
        refs = _written(keeper, rows)
        admitted = tuple(each for one in inputs for each in _inputs(one.about))
        # its failure is no outcome any more: the next run meets the item as a new one
        keys = tuple(dict.fromkeys(ItemKey(text, kind) for text, kind, _ in admitted))
        actions: list[Action] = [Hide(keys=keys)] if keys else []
        actions.append(Release(records=_records(chosen), by=refs, read_at=read_at, admitted=admitted))
        own = {ref.name for ref in refs}
        if keeper.commit(_while_there(keeper, chosen, actions, own=own, keys=keys)) is not None:
            return Released(url=store.url, rows=sum(ref.rows for ref in refs), inputs=len(admitted))
        # somebody else ended one of them meanwhile: what is left is looked for anew
        store.remove(own)


def drop_quarantined(store: Store, keys: Iterable[Key] | None = None, *, check: str | None = None, all: bool = False) -> Dropped:
    """Take records out of the quarantine for good; see :func:`release`. Results and attempts stay as they are."""
    wanted = Wanted.of("drop_quarantined", keys, check, all=all)
    keeper = Keeper(store)
    while chosen := _chosen(keeper, wanted):
        if keeper.commit(_while_there(keeper, chosen, [Drop(records=_records(chosen))])) is not None:
            break
    return Dropped(url=store.url, records=sum(len(one.places) for one in chosen))


def counting_records(store: Store, part: CountedPart, hides: Hides, ended: Ranges) -> Choice:
    """The records of a part that count."""
    with explained(store, part.name), source_of(store, part.name, size=part.size) as source:
        about = pq.ParquetFile(source).read(columns=list(_WANTED))
    if about.num_rows != part.rows:
        raise corrupt(part.name, f"it has {about.num_rows} rows, and the log says {part.rows}", "a part of the quarantine")
    counts = ~are_keys(about, part.left_out) & ~hides.hit(about, part.position)
    for start, stop in ended:
        counts[start:stop] = False
    return Choice(part, tuple(np.flatnonzero(counts).tolist()), about.filter(pa.array(counts)))


def _chosen(keeper: Keeper, wanted: Wanted) -> list[Choice]:
    state, store = keeper.state, keeper.store
    hides = Hides.of(state.hides)
    found = []
    for part in state.quarantine_parts():
        counting = counting_records(store, part, hides, state.ended.get(part.name, ()))
        mask = wanted.mask(counting.about)
        if mask.any():
            places = tuple(place for place, is_meant in zip(counting.places, mask, strict=True) if is_meant)
            found.append(Choice(part, places, counting.about.filter(pa.array(mask))))
    wanted.refuse_unknown(found)
    return found


def _records(chosen: Sequence[Choice]) -> tuple[tuple[str, tuple[tuple[int, int], ...]], ...]:
    return tuple((one.part.name, one.ranges) for one in chosen)


def _while_there(
    keeper: Keeper, chosen: Sequence[Choice], actions: Sequence[Action], *, own: Collection[str] = (), keys: Sequence[ItemKey] = ()
) -> Callable[[], Sequence[Action] | None]:
    """The actions, while none of these records has left, vacuum has not taken the files, and no driver did one of the items again."""
    read = (keeper.state.number + 1) << POSITION_BITS

    def decide() -> Sequence[Action] | None:
        state = keeper.state
        is_late = any(overlap(state.ended.get(one.part.name, ()), one.ranges) for one in chosen)
        if is_late or not keeper.dropped.isdisjoint(own):
            return None
        hides = state.hides if keys and state.hidden_at >= read else {}
        # a later outcome of an item counts now, which must not be hidden
        return None if any(hides.get(key, 0) >= read for key in keys) else actions

    return decide


def _inputs(about: pa.Table) -> Iterator[tuple[str, str, str]]:
    names = (*RESERVED, "fingerprint")
    yield from zip(*(about.column(name).to_pylist() for name in names), strict=True)


def _written(keeper: Keeper, chosen: Sequence[Choice]) -> tuple[PartRef, ...]:
    """Results parts with the rows of some records."""
    if not chosen:
        return ()
    schema = results_schema(keeper.state)
    with tempfile.TemporaryDirectory(prefix="dcompute-release-") as folder:
        files = Files(keeper.store, schema, folder, None, TARGET)
        for one in chosen:
            files.write(_rows_of(keeper.store, one, schema, keeper.state.renames))
        return files.finish()


def _rows_of(store: Store, choice: Choice, schema: pa.Schema, renames: Renames) -> pa.Table:
    """The rows of some records, in the columns of now."""
    name = choice.part.name
    with explained(store, name), source_of(store, name, size=choice.part.size) as source:
        file = pq.ParquetFile(source)
        own = [column for column in file.schema_arrow.names if column.startswith(ROW)]
        table = file.read(columns=[*RESERVED, *own]).take(pa.array(choice.places, pa.int64()))
    names = [column.removeprefix(ROW) for column in own]
    now = {old: new for new, old in renames.stored(names, choice.part.position).items()}
    table = table.rename_columns([*RESERVED, *(now[column] for column in names)])
    for column in table.column_names:
        if column not in schema.names and table.column(column).null_count < table.num_rows:
            raise _unfit(table, f"the results have no column {column!r}")
    try:
        table = cast(table, schema)
    except SchemaError as error:
        raise _unfit(table, error.message) from error
    # the schema's own fields: a table that needed no cast may call the elements of its lists otherwise
    return pa.table(table.columns, schema=schema)


def _unfit(table: pa.Table, why: str) -> SchemaError:
    return SchemaError(
        f"a record of item {table.column('item_key')[0].as_py()!r} cannot be released: {why}. Nothing was changed. Release others by their "
        "keys, or have the workload return what fits and run the item again"
    )
