"""The records that stages exchange; reading this file is reading the glossary.

Every record is frozen. What crosses a process or lies on storage has a JSON form here; nothing on storage is a pickle.
"""

from __future__ import annotations

import base64
import enum
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple


class Kind(enum.StrEnum):
    """Why an attempt failed; what a workload says of retries is by kind."""

    TRANSIENT = "transient"  #: connection and time-out errors, throttled storage
    RECOVERABLE = "recoverable"  #: missing file, permission
    PERMANENT = "permanent"  #: any other exception of the user's code, invalid data
    TIMEOUT = "timeout"  #: killed after ``timeout``
    MEMORY = "memory"  #: ``MemoryError``, or killed at the memory limit
    CRASH = "crash"  #: ended by a signal or an exit code
    INFRASTRUCTURE = "infrastructure"  #: worker, scheduler or machine lost; never billed to the item
    CANCELLED = "cancelled"  #: by the user


#: Kinds of failure that are the item's own doing: ``retries=N`` counts these and no others.
OWN_KINDS = frozenset({Kind.TRANSIENT, Kind.RECOVERABLE, Kind.PERMANENT, Kind.TIMEOUT, Kind.MEMORY, Kind.CRASH})
#: Kinds that stay as they are when the same line is run again, where the log calls the failure final.
STAYING_KINDS = frozenset({Kind.PERMANENT, Kind.TIMEOUT, Kind.MEMORY, Kind.CRASH})

#: Between the names of checks that one record does not pass.
CHECK_NAMES = "; "

#: What a process prints to.
STREAMS = ("stdout", "stderr")

SUCCEEDED = "succeeded"
FAILED = "failed"


class ItemKey(NamedTuple):
    """The identity of an item on disk; in JSON ``[text, kind]``."""

    text: str  #: column ``item_key``
    kind: str  #: column ``key_kind``: ``str``, ``int``, ...; ``1`` and ``"1"`` differ by it


class Item(NamedTuple):
    """One input. A named tuple because a run makes millions of them."""

    key: ItemKey  #: its identity
    value: Any  #: what the workload is called with; a dict of keyword arguments where the inputs say so
    fingerprint: str  #: tells whether the input changed; 32 hex digits, "" where that cannot be told
    position: int  #: place in the inputs, from 0
    size: int  #: about how many bytes its value takes when pickled
    replaces: bool = False  #: an earlier outcome of it counts, and is hidden when the first new attempt is added
    groups: tuple[Any, ...] = ()  #: by what it belongs together with others, or keeps apart; in the driver only


@dataclass(frozen=True, slots=True, kw_only=True)
class Affinity:
    """Where items of a class may go: one rule."""

    kind: str  #: "on" or "off" workers with labels, "together" with or "apart" from items with the same value
    hard: bool = True  #: False: where there is a choice
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()  #: each with the texts of which one will do, sorted by name
    by: Any = None  #: a function of the input, or a column; None: all items have the same value


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one class of items asks a worker for."""

    cpus: float = 1.0  #: cores
    gpus: float = 0.0  #: whole or shared devices
    memory: int | None = None  #: bytes; None: the slot's share of its worker's
    resources: tuple[tuple[str, float], ...] = ()  #: named resources, sorted by name
    priority: int = 0  #: higher goes first
    uses: tuple[tuple[str, float], ...] = ()  #: of named limits, sorted by name: held by a batch, or taken by an item
    affinity: tuple[Affinity, ...] = ()  #: where they may go


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why one attempt failed, as text: nothing of the user's classes crosses a process."""

    index: int  #: place of the item in its batch
    kind: str  #: a :class:`Kind`
    error: str  #: qualified name of the exception's type, or what ended the process (``SIGSEGV``, ``exit code 3``)
    bases: tuple[str, ...] = ()  #: qualified names of the exception's bases, nearest first
    message: str = ""  #: bounded
    exit_code: int | None = None  #: of a child that exited
    signal: int | None = None  #: of a child that was killed
    traceback: str = ""  #: bounded; the first few of each error in a receipt have it, the attempts part has all


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRef:
    """A part of results, of the quarantine or of what items printed that a mark names."""

    name: str  #: relative to the dataset, ``results/...parquet``
    size: int  #: bytes
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a batch sends back: that it was written, and which of its items failed. Also kept in the metadata of the mark."""

    batch: str  #: batch id
    execution: str  #: random id of the execution that wrote it
    holds: tuple[tuple[int, int], ...]  #: half-open ranges of the item indexes it holds; all of them unless it was cut short
    failures: tuple[Failure, ...] = ()
    results: tuple[PartRef, ...] = ()
    quarantined: tuple[PartRef, ...] = ()  #: parts with records that did not pass a check
    logs: tuple[PartRef, ...] = ()  #: the part with what items printed, where that is more than their rows have
    schema: str | None = None  #: the results' schema (``dataset.schema.to_text``), quarantined rows' too; None where no row was written
    joins: bool = True  #: False: its schema could not be brought together with the one its batch was sent with
    stands_for: str | None = None  #: batch id of a written batch that this one rewrites
    rows: int = 0  #: rows in all results parts
    seconds: float = 0.0  #: sum of the durations of its items
    slot_seconds: float = 0.0  #: how long it held its slot
    setup_seconds: float = 0.0  #: of a child that had to be started for it
    host: str = ""
    worker: str = ""
    peak_memory: int = 0  #: bytes, the largest of its items
    leftovers: int = 0  #: processes its items left behind
    requests: int = 0  #: to an object store, made for the batch by its worker; 0 in the mark, which is one of them

    @property
    def count(self) -> int:
        """How many items it holds an outcome of."""
        return sum(stop - start for start, stop in self.holds)

    def to_json(self) -> dict[str, Any]:
        """A form that JSON and msgpack take."""
        data = asdict(replace(self, failures=()))
        return {**data, "failures": pack_failures(self.failures)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Receipt:
        """The record of :meth:`to_json`; unknown names (a newer writer) are dropped."""
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        known["holds"] = tuple((int(start), int(stop)) for start, stop in data["holds"])
        known["failures"] = _open_failures(data.get("failures") or "")
        for parts in ("results", "quarantined", "logs"):
            known[parts] = tuple(PartRef(**_known(PartRef, part)) for part in data.get(parts, ()))
        return cls(**known)


def _known(cls: type, data: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = cls.__dataclass_fields__  # type: ignore[attr-defined]
    return {name: data[name] for name in fields if name in data}


def pack_failures(failures: Sequence[Failure]) -> str:
    """Failures as text for JSON and msgpack: columns in compressed JSON, as thousands of them differ in little; none are ``""``."""
    if not failures:
        return ""
    columns = {name: [getattr(failure, name) for failure in failures] for name in Failure.__dataclass_fields__}
    return base64.b64encode(zlib.compress(json.dumps(columns).encode())).decode("ascii")


def _open_failures(packed: str) -> tuple[Failure, ...]:
    """What :func:`pack_failures` packed."""
    if not packed:
        return ()
    columns = _known(Failure, json.loads(zlib.decompress(base64.b64decode(packed))))
    met: dict[tuple[str, ...], tuple[str, ...]] = {}  # equal ones are kept once
    columns["bases"] = [met.setdefault(bases, bases) for bases in map(tuple, columns["bases"])]
    return tuple(Failure(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What all batches of a run share; sent once a worker where it is large, and known by its digest."""

    run: str  #: run id
    dataset: str  #: URL or absolute path
    workload: str  #: its name
    code: bytes  #: cloudpickle of ``worker.code.Loaded`` (callable, params, initializer); opened in the child only
    code_digest: str  #: never of pickle bytes
    params_digest: str
    version: str | None = None  #: declared, or "code:<digest>" where derived
    modules: tuple[tuple[str, str, bytes], ...] = ()  #: (name, digest, zip archive) of shipped packages
    keywords: bool = False  #: values are dicts of keyword arguments
    group: int | None = None  #: items a call
    timeout: float | None = None  #: seconds a call
    grace: float = 0.0  #: seconds that a call has beyond that, and after a cancel, to end what it started itself
    setup_timeout: float = 600.0  #: seconds
    isolation: str = "process"  #: or "thread"
    cpus: float = 1.0  #: that a call asks for
    gpus: float = 0.0  #: likewise: whole devices, or a share of one
    idempotent: bool = True  #: False: an item whose call began is never executed again by itself
    seed: int = 0
    schema: str | None = None  #: declared schema as text; None: it grows
    checks: bytes = field(default=b"", repr=False)  #: ``checks.travel.packed``; opened in the child only
    metrics: str = "full"  #: or "basic", "off"
    sources: tuple[tuple[str, int], ...] = ()  #: datasets that the inputs are read from, each with the last entry that counts
    storage_options: tuple[tuple[str, Any], ...] = field(default=(), repr=False)  #: never logged, never written


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSpec:
    """What one Dask task executes."""

    id: str  #: ``<run>-<epoch>-<number>``
    keys: Sequence[ItemKey]  #: these three are tuples, or columns of ``packed`` where there are many
    attempts: Sequence[int]  #: attempt number of each item, from 1
    fingerprints: Sequence[str]
    values: bytes = field(repr=False)  #: pickled list of values; opened in the child only
    schema: str | None = None  #: the dataset's schema when the batch was sent
    memory: int | None = None  #: bytes for one call; None: the slot's share of its worker's
    cpus: float = 1.0
    gpus: float = 0.0  #: whole devices, or a share of one
    alone: bool = False  #: one item, in a fresh child, with nothing else of ours on the worker
    exclude: tuple[int, ...] = ()  #: indexes not to execute (they have an outcome already)
    once: bool = False  #: a second execution of it must not begin, whatever became of the first
    dataset: str = ""  #: id of the dataset that it is for; "": whatever is there
    unchecked: tuple[int, ...] = ()  #: indexes whose inputs were released from the quarantine: they are executed as they are

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an item ended, as the dataset has it."""

    key: ItemKey
    attempt: int  #: the attempt that decided it, from 1
    succeeded: bool
    kind: str | None = None  #: a :class:`Kind` where it failed
    error: str | None = None  #: type of the exception, or what ended the process
    message: str | None = None


def batch_id(run: str, epoch: int, number: int) -> str:
    """The id of a batch; it is also the name of its mark."""
    return f"{run}-{epoch:06d}-{number:08d}"


def split_batch_id(text: str) -> tuple[str, int, int]:
    """Run, epoch and number of a batch id."""
    run, epoch, number = text.rsplit("-", 2)
    return run, int(epoch), int(number)


#: Columns of an attempts part, in their order; their Arrow types are in ``dataset.parts``.
ATTEMPT_COLUMNS = (
    "item_key", "key_kind", "attempt", "fingerprint", "params_digest", "code_digest", "version",
    "outcome", "kind", "error", "message", "traceback", "exit_code", "signal", "stdout", "stderr",
    "started", "duration", "cpu_user", "cpu_system", "peak_memory", "bytes_read", "bytes_written", "io_wait",
    "measured", "memory_measured", "bottleneck", "metrics", "leftovers", "rows", "quarantined",
    "host", "worker", "pid", "batch", "run", "workload", "seed",
)  # fmt: skip


def is_whole(text: str) -> bool:
    """Whether a text has no half characters, which no storage holds."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
