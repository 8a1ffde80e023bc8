"""The results parts that count as plain Parquet files: where they are, how they differ, and whether they alone are the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as pads
from pyarrow.fs import LocalFileSystem

from dcompute.dataset.outcomes import prefetched
from dcompute.dataset.parts import explained, source_of
from dcompute.dataset.reading import results_schema
from dcompute.dataset.renames import Renames
from dcompute.dataset.state import CountedPart, State
from dcompute.dataset.store import Store

_PARQUET, _DISK = pads.ParquetFileFormat(), LocalFileSystem()
_FOOTER_BYTES = 128 << 10
_NEIGHBOURS = 256


@dataclass(frozen=True, slots=True)
class Files:
    """The results parts that count. Its ``str()`` says what they are and, where they alone are not the truth, what to do."""

    urls: tuple[str, ...]
    reasons: tuple[str, ...] = ()  #: why these files alone are not the truth; none: they are
    folders: tuple[str, ...] = ()  #: of the datasets that compaction and vacuum can make the truth
    strangers: int = 0  #: Parquet files beside them that do not count

    @property
    def are_the_truth(self) -> bool:
        """Whether all rows in them count, in the types of the dataset: any tool that reads these files reads the results."""
        return not self.reasons

    @property
    def folder_is_the_truth(self) -> bool:
        """Whether that holds for ``results/*.parquet`` too: nothing lies there that does not count."""
        return not self.reasons and not self.strangers

    def __iter__(self) -> Iterator[str]:
        return iter(self.urls)

    def __len__(self) -> int:
        return len(self.urls)

    def __str__(self) -> str:
        lines = [f"{len(self.urls):,} files of results count."]
        if self.are_the_truth:
            lines.append("They alone are the truth: all rows in them count, in the same columns and types.")
        else:
            lines += ["They alone are not the truth:", *(f"* {reason}" for reason in self.reasons)]
        if self.strangers:
            lines.append(f"{self.strangers:,} Parquet files that lie beside them do not count.")
        if self.folders and not self.folder_is_the_truth:
            lines.append("While no run is at work, this makes the folder the truth:")
            lines += [
                line for url in self.folders for line in (f"  dcompute compact --all {url}", f"  dcompute vacuum --retention 0 {url}")
            ]
        return "\n".join(lines)


@dataclass(slots=True)
class Alike:
    """Parts with the same columns in the same order and types, under the same names now."""

    columns: pa.Schema  #: as they lie in the files
    stored: dict[str, str]  #: by their names of now, those in the files
    parts: list[CountedPart]


def files_of(store: Store, state: State) -> Files:
    """The results parts that count; the footer of each is read.

    Parameters
    ----------
    store
        The dataset's.
    state
        What its log says.
    """
    parts = [part for part in state.counted_parts() if part.rows]
    names = {part.name for part in parts}
    beside = [name for name in store.names("results") if name.endswith(".parquet") and name not in names]
    return Files(
        urls=tuple(f"{store.url}/{part.name}" for part in parts),
        reasons=tuple(_reasons(store, state, parts)),
        folders=(store.url,),
        strangers=len(beside),
    )


def is_hit(state: State, parts: Sequence[CountedPart]) -> bool:
    """Whether a row of these parts may not count."""
    newest = max(state.hides.values(), default=-1)
    return any(part.position < newest or part.left_out for part in parts)


def alike(store: Store, parts: Sequence[CountedPart], renames: Renames) -> list[Alike]:
    """The parts by their columns; the footer of each is read.

    Raises
    ------
    DatasetCorruptError
        One is gone, or no Parquet file.
    """
    groups: dict[str, Alike] = {}
    last: Alike | None = None
    for part, columns in zip(parts, _columns(store, parts), strict=True):
        stored = renames.stored(columns.names, part.position)
        if last is None or not last.columns.equals(columns) or last.stored != stored:
            text = columns.to_string(show_schema_metadata=False, show_field_metadata=False)
            last = groups.setdefault(f"{text}\n{list(stored)}", Alike(columns, stored, []))
        last.parts.append(part)
    return list(groups.values())


def _reasons(store: Store, state: State, parts: Sequence[CountedPart]) -> Iterator[str]:
    newest = max(state.hides.values(), default=-1)
    hit = sum(part.position < newest for part in parts)
    if hit:
        yield f"{hit:,} of them may hold rows of items that were run again or deleted since"
    left_out = sum(len(part.left_out) for part in parts)
    if left_out:
        yield f"{left_out:,} items in them do not count"
    wanted = results_schema(state)
    other = sum(len(group.parts) for group in alike(store, parts, state.renames) if not _has(group, wanted))
    if other:
        yield f"{other:,} of them have other columns or types than the dataset has now"


def _has(group: Alike, wanted: pa.Schema) -> bool:
    return len(group.columns) == len(wanted) and all(
        group.stored.get(field.name) == field.name and group.columns.field(field.name).type == field.type for field in wanted
    )


def _columns(store: Store, parts: Sequence[CountedPart]) -> Iterator[pa.Schema]:
    # a footer on a local disk takes 30 us, so that a thread has to take many at once
    together = _NEIGHBOURS if store.is_local else 1
    blocks = [parts[start : start + together] for start in range(0, len(parts), together)]
    for found in prefetched(lambda block: [_columns_of(store, part) for part in block], blocks, store.is_local):
        yield from found


def _columns_of(store: Store, part: CountedPart) -> pa.Schema:
    with explained(store, part.name), source_of(store, part.name, _FOOTER_BYTES, part.size) as source:
        return _PARQUET.inspect(source, _DISK if store.is_local else None)
