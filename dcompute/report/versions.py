"""What a report published: one version, as the small JSON file that makes it count says it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dcompute.errors import DatasetCorruptError

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A Parquet file of a report."""

    name: str  #: from the report's folder on; no other file ever has it
    size: int  #: bytes
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far a report has read one dataset, or another report."""

    url: str
    id: str  #: of the dataset, or of the report's version; "": it was not written down
    number: int  #: of the last entry of its log; of a report its version


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """What was computed from some files of the first source, where a report is mergeable."""

    files: tuple[File, ...]
    units: str  #: the file that names what it was computed from
    rows_in: Mapping[str, int]  #: by source
    dropped: Mapping[str, int]  #: by reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a run of a report."""

    step: str  #: read, compute, combine, check
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One published version of a report; ``str()`` of it is for people."""

    report: str
    number: int  #: from 1
    id: str  #: random: tells a writer its own version from another's
    published: float  #: seconds since 1970, on the clock of who published it
    seconds: float  #: that it took
    host: str
    pid: int
    digest: str  #: of the function and of all that is declared
    sources: Mapping[str, tuple[Place, ...]]  #: what it was computed from, by source
    columns: Mapping[str, str]  #: a digest of the columns of each source
    schema: str  #: text of ``dataset.schema``
    partial: str = ""  #: the same of the portions, where a result is combined from them
    files: tuple[File, ...]
    rows_in: Mapping[str, int]  #: rows that this version was computed from, by source
    dropped: Mapping[str, int] = field(default_factory=dict)  #: rows that ``dc.drop`` left out, by reason
    portions: tuple[Portion, ...] = ()
    computed: int = 1  #: portions that were computed for it; the others stayed
    reason: str = ""  #: why all of it was computed
    steps: tuple[Step, ...] = ()
    is_new: bool = field(default=True, compare=False)  #: False: nothing had changed, and this version was there

    @property
    def rows(self) -> int:
        """Rows of the result."""
        return sum(file.rows for file in self.files)

    def __str__(self) -> str:
        came = ", ".join(f"{count:,} rows of {name}" for name, count in self.rows_in.items())
        lines = [f"{self.report}: version {self.number} of {_time(self.published)}, {self.rows:,} rows from {came}"]
        lines += [f"  {count:,} rows dropped: {reason}" for reason, count in self.dropped.items()]
        if not self.is_new:
            lines[0] += "; up to date, nothing was computed"
        elif self.portions:
            lines.append(f"  {self.computed:,} of {len(self.portions):,} portions computed{f': {self.reason}' if self.reason else ''}")
        return "\n".join(lines)

    def to_bytes(self) -> bytes:
        """The file's content."""
        content = asdict(self)
        del content["is_new"]
        return (json.dumps({"format": FORMAT, **content}, ensure_ascii=False, separators=(",", ":")) + "\n").encode()

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> Version:
        """The version of a file's content.

        Raises
        ------
        DatasetCorruptError
            It is none, or one of a newer dcompute.
        """
        try:
            content = json.loads(data)
            if content["format"] != FORMAT:
                raise DatasetCorruptError(f"{name} is of format {content['format']}, which a newer dcompute wrote: update dcompute")
            known = {one.name for one in fields(cls)}
            return cls(**{key: _DECODE.get(key, _same)(value) for key, value in content.items() if key in known})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DatasetCorruptError(
                f"{name} is no version of a report ({type(error).__name__}: {error}). dcompute writes it whole and never changes it: "
                "something else wrote here. Restore the file from a copy, or remove the report's folder and run the report again"
            ) from error


def summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts by name, added up."""
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _files(data: Any) -> tuple[File, ...]:
    return tuple(File(**one) for one in data)


def _portions(data: Any) -> tuple[Portion, ...]:
    return tuple(Portion(**{**one, "files": _files(one["files"])}) for one in data)


def _places(data: Any) -> dict[str, tuple[Place, ...]]:
    return {name: tuple(Place(**one) for one in places) for name, places in data.items()}


def _steps(data: Any) -> tuple[Step, ...]:
    return tuple(Step(**one) for one in data)


def _same(value: Any) -> Any:
    return value


_DECODE: dict[str, Any] = {"files": _files, "portions": _portions, "sources": _places, "steps": _steps}
