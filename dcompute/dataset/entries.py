"""Entries of the log: what can be committed, as records and as JSON.

An entry is a file with a JSON list: a head with the entry's random id and its time, then actions that count together, in their order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, get_args

from dcompute.dataset.names import entry_name
from dcompute.errors import DatasetCorruptError
from dcompute.records import ItemKey, PartRef

#: The format of a dataset: another first number cannot be read, a higher second one has actions that older versions do not know.
FORMAT = (1, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddBatch:
    """One written batch that counts from now on."""

    id: str  #: batch id; its attempts part is ``attempts/<id>.parquet``
    holds: tuple[tuple[int, int], ...]  #: half-open ranges of the item indexes it holds
    left_out: tuple[ItemKey, ...] = ()  #: keys in it that do not count
    final: tuple[ItemKey, ...] = ()  #: keys in it whose failure is final
    results: tuple[PartRef, ...] = ()
    succeeded: int = 0  #: items that count
    failed: tuple[tuple[str, int], ...] = ()  #: (kind, how many items that count), final or not
    rows: int = 0  #: in all its results parts
    seconds: float = 0.0  #: sum of the durations of its items
    slot_seconds: float = 0.0  #: how long it held its slot
    stands_for: str | None = None  #: batch id of a written batch that it rewrites, which then never counts
    quarantined: tuple[PartRef, ...] = ()  #: parts with records that did not pass a check
    again: tuple[ItemKey, ...] = ()  #: keys in it that are tried again: of these no quarantined record counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """A driver begins an epoch: who it is, so that others can tell whether it lives."""

    do: ClassVar[str] = "open"
    epoch: int
    run: str
    workload: str  #: name
    host: str
    boot: str  #: boot and process namespace of the host
    pid: int
    started: float  #: when its process started, on the clock of its system
    at: float = 0.0  #: seconds since 1970


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What a run executes; for reports, and to tell what changed since."""

    do: ClassVar[str] = "run"
    run: str
    version: str | None = None
    params_digest: str = ""
    code_digest: str = ""
    seed: int = 0
    sources: tuple[tuple[str, int], ...] = ()  #: datasets that its inputs are read from, each with the last entry that counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    """Written batches count from now on."""

    do: ClassVar[str] = "add"
    batches: tuple[AddBatch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hide:
    """What came earlier of these keys counts no more."""

    do: ClassVar[str] = "hide"
    keys: tuple[ItemKey, ...]
    scope: str = "results"  #: ``results``: attempt rows stay as history (changed, retried); ``all``: they end too (deleted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """Compaction: some results parts give way to others with the rows that counted in them."""

    do: ClassVar[str] = "replace"
    parts: tuple[str, ...]  #: names of results parts that count no more
    by: tuple[PartRef, ...]
    read_at: int  #: number of the last entry that the compaction had read


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Records leave the quarantine: rows for the results, inputs to be executed unchecked."""

    do: ClassVar[str] = "release"
    records: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]  #: parts of the quarantine, and half-open ranges of rows in them
    by: tuple[PartRef, ...] = ()  #: results parts with those of them that are rows
    read_at: int = 0  #: number of the last entry that the release had read
    admitted: tuple[tuple[str, str, str], ...] = ()  #: text and kind of key, and fingerprint of the inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Records leave the quarantine for good."""

    do: ClassVar[str] = "drop"
    records: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]  #: as of a release


@dataclass(frozen=True, slots=True, kw_only=True)
class Vacuum:
    """Files of results parts that do not count are removed from now on."""

    do: ClassVar[str] = "vacuum"
    until: int  #: what this entry or an earlier one replaced may be gone
    dropped: tuple[str, ...] = ()  #: names of compacted parts that nobody committed: nobody may from now on


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSchema:
    """The results' schema from now on."""

    do: ClassVar[str] = "schema"
    schema: str  #: as ``dataset.schema.to_text`` writes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    """Columns of the results that came earlier have other names from now on; the schema of after it stands in the same entry."""

    do: ClassVar[str] = "rename"
    columns: tuple[tuple[str, str], ...]  #: old and new names, all at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Rows name files that items produced from now on; the schema of the same entry marks the columns that do."""

    do: ClassVar[str] = "files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Items that may be executed once at most go out now."""

    do: ClassVar[str] = "sent"
    batch: str  #: batch id
    keys: tuple[ItemKey, ...]  #: in the order of the batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """Nothing that these epochs wrote and that no entry added yet will ever count."""

    do: ClassVar[str] = "adopted"
    epochs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """A driver ends with nothing in flight: its epoch is settled."""

    do: ClassVar[str] = "close"
    epoch: int
    outcome: str = ""  #: how its run ended before its work was done: cancelled or failed; "" where it was done


Action = Open | RunInfo | Add | Hide | Replace | Release | Drop | Vacuum | SetSchema | Rename | Files | Sent | Adopted | Close
_ACTIONS: dict[str, type[Any]] = {cls.do: cls for cls in get_args(Action)}


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit."""

    number: int  #: from 1
    id: str  #: random: tells a writer its own entry from another's
    at: float  #: seconds since 1970, of the writer's clock: for people
    actions: tuple[Action, ...] = field(default=())

    def to_bytes(self) -> bytes:
        """The file's content."""
        head = {"entry": self.id, "at": self.at}
        return (json.dumps([head, *map(encode_action, self.actions)], separators=(",", ":")) + "\n").encode()

    @classmethod
    def from_bytes(cls, number: int, data: bytes) -> Entry:
        """The entry of a file's content.

        Raises
        ------
        DatasetCorruptError
            It is no entry, or one of a newer dcompute.
        """
        try:
            head, *actions = json.loads(data)
            return cls(number, head["entry"], float(head["at"]), tuple(decode_action(action) for action in actions))
        except DatasetCorruptError as error:
            raise DatasetCorruptError(f"{entry_name(number)}: {error}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DatasetCorruptError(
                f"{entry_name(number)} is no entry of a dcompute log ({type(error).__name__}: {error}). dcompute writes entries whole and "
                "never changes them: something else wrote here. Restore the file from a copy"
            ) from error


def encode_action(action: Action) -> dict[str, Any]:
    """The JSON form of an action; fields with their default value are left out."""
    return {"do": action.do, **_plain(action)}


def decode_action(data: dict[str, Any]) -> Action:
    """The action of a JSON form; fields that a newer dcompute added are dropped.

    Raises
    ------
    DatasetCorruptError
        A newer dcompute wrote an action that this one does not know.
    """
    cls = _ACTIONS.get(data["do"])
    if cls is None:
        raise DatasetCorruptError(
            f"the action {data['do']!r} is not of format {FORMAT[0]}.{FORMAT[1]}, the newest that this dcompute knows: a newer one wrote "
            "it. Update dcompute to read this dataset"
        )
    known = {f.name for f in fields(cls)}
    values = {name: _DECODE.get(name, _same)(value) for name, value in data.items() if name in known}
    action: Action = cls(**values)
    return action


def names_files(schema: str | None) -> bool:
    """Whether a schema, as ``dataset.schema.to_text`` writes it, has columns that say where files of items are."""
    return schema is not None and schema.startswith('{"needs":')


def setting(schema: str, before: str | None) -> list[Action]:
    """The actions that set a schema; the first one with files says so to versions that do not know them, and these refuse the dataset."""
    first: list[Action] = [Files()] if names_files(schema) and not names_files(before) else []
    return [*first, SetSchema(schema=schema)]


def adding(batches: Sequence[AddBatch], replaced: Sequence[ItemKey] = ()) -> tuple[Action, ...]:
    """The actions that add batches; what counted earlier of the ``replaced`` keys is hidden first.

    Parameters
    ----------
    batches
        In the order in which they ended.
    replaced
        Keys whose first new attempt is in these batches and of which an earlier outcome counts.
    """
    hide: tuple[Action, ...] = (Hide(keys=tuple(replaced)),) if replaced else ()
    return (*hide, Add(batches=tuple(batches)))


def _plain(record: Any) -> dict[str, Any]:
    # not dataclasses.asdict: its deep copies cost more than all the rest where many keys are named
    given = ((f, getattr(record, f.name)) for f in fields(record))
    return {f.name: _nested(value) for f, value in given if value != f.default}


def _nested(value: Any) -> Any:
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        return [_plain(record) for record in value]
    return value


def _batches(data: Sequence[dict[str, Any]]) -> tuple[AddBatch, ...]:
    known = {f.name for f in fields(AddBatch)}
    return tuple(AddBatch(**{n: _DECODE.get(n, _same)(v) for n, v in batch.items() if n in known}) for batch in data)


def _keys(data: Sequence[Sequence[str]]) -> tuple[ItemKey, ...]:
    return tuple(ItemKey(text, kind) for text, kind in data)


def _parts(data: Sequence[dict[str, Any]]) -> tuple[PartRef, ...]:
    return tuple(PartRef(name=part["name"], size=part["size"], rows=part["rows"]) for part in data)


def _pairs(data: Sequence[Sequence[Any]]) -> tuple[tuple[Any, Any], ...]:
    return tuple((first, second) for first, second in data)


def _records(data: Sequence[Sequence[Any]]) -> tuple[tuple[str, tuple[tuple[int, int], ...]], ...]:
    return tuple((name, _pairs(ranges)) for name, ranges in data)


def _triples(data: Sequence[Sequence[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(each) for each in data)


def _same(value: Any) -> Any:
    return value


_DECODE: dict[str, Any] = {
    "batches": _batches,
    "keys": _keys,
    "left_out": _keys,
    "final": _keys,
    "again": _keys,
    "results": _parts,
    "quarantined": _parts,
    "by": _parts,
    "holds": _pairs,
    "failed": _pairs,
    "columns": _pairs,
    "sources": _pairs,
    "parts": tuple,
    "dropped": tuple,
    "epochs": tuple,
    "records": _records,
    "admitted": _triples,
}
