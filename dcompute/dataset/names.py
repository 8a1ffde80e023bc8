"""Names inside a dataset: where each kind of file lies, and what its name says."""

from __future__ import annotations

import re
import secrets
import time

from dcompute.records import split_batch_id

DATASET = "dataset.json"
#: What a driver writes in place of an execution: nobody began the batch, and nobody can any more.
NOBODY = b"nobody"
LAST = "log/last.json"
ATTEMPTS = "attempts"
RESULTS = "results"
#: What items produced lies below it, a folder an execution of a batch, and in that a folder an item.
FILES = "files"
QUARANTINE = "quarantine"
#: What items printed, where that is more than their attempt rows have.
LOGS = "logs"
#: What reports on it published, a folder a report.
REPORTS = "reports"

#: Files of a writer that has not finished begin with this; no listing shows them, and what a killed writer leaves of them means nothing.
TEMPORARY = ".tmp-"

_MARK = re.compile(r"attempts/(?P<batch>[^/]+)\.parquet")
_PART = re.compile(r"results/(?P<execution>(?P<batch>[^/]+)-[^-/]+)-\d+\.parquet")
_COMPACTED = re.compile(r"results/compact-[0-9a-f]{32}-\d+\.parquet")
_QUARANTINED = re.compile(r"quarantine/(?P<execution>(?P<batch>[^/]+)-[^-/]+)-\d+\.parquet")
_LOG = re.compile(r"logs/(?P<execution>(?P<batch>[^/]+)-[^-/]+)\.parquet")
_PRODUCED = re.compile(r"files/(?P<execution>(?P<batch>[^/]+)-[^-/]+)/\d+/.+", re.DOTALL)
_RUN = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,99}")


def new_id() -> str:
    """A random id, 32 hex digits: of a dataset, an entry, an execution."""
    return secrets.token_hex(16)


def new_run_id() -> str:
    """A run id that sorts by the time of its making (UTC) and that no other run has."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def is_run_id(text: str) -> bool:
    """Whether ``text`` can stand in file names and batch ids."""
    return _RUN.fullmatch(text) is not None


def entry_name(number: int) -> str:
    """The file of an entry of the log; numbers start at 1."""
    return f"log/{number:020d}.json"


def checkpoint_name(number: int) -> str:
    """The file with what the log says up to this entry."""
    return f"log/{number:020d}.checkpoint.parquet"


def heartbeat_name(run: str) -> str:
    """The file in which the driver of a run says that it is alive."""
    return f"runs/{run}.json"


def follow_name(run: str) -> str:
    """The file that asks the driver of a run to pass on what its items print."""
    return f"runs/{run}.follow"


def tail_name(run: str) -> str:
    """The file with the last of what the items of a run printed, where somebody asked for it."""
    return f"runs/{run}.tail"


def started_name(batch: str) -> str:
    """The file that says which execution began a batch that may be executed once only, or that none ever will."""
    return f"runs/{batch}.started"


def request_name(run: str, number: int) -> str:
    """The file of a request to the driver of a run; numbers start at 1."""
    return f"requests/{run}/{number}.json"


def compacted_name(execution: str, number: int) -> str:
    """The name of a compacted part that no other execution of any compaction has."""
    return f"results/compact-{execution}-{number}.parquet"


def is_compacted(name: str) -> bool:
    """Whether a compaction made the file of this name."""
    return _COMPACTED.fullmatch(name) is not None


def part_batch(name: str) -> tuple[str, int, int] | None:
    """Run, epoch and number of the batch whose results part has this name, or None where it is none of a batch."""
    return None if is_compacted(name) else _batch_in(_PART.fullmatch(name))


def mark_name(batch_id: str) -> str:
    """The name of a batch's attempts part."""
    return f"{ATTEMPTS}/{batch_id}.parquet"


def mark_batch(name: str) -> tuple[str, int, int] | None:
    """Run, epoch and number of the batch whose mark has this name, or None where it is no mark."""
    return _batch_in(_MARK.fullmatch(name))


def quarantine_name(batch_id: str, execution: str, n: int) -> str:
    """The name of a part of the quarantine that no other execution, of this batch or another, has."""
    return f"{QUARANTINE}/{batch_id}-{execution}-{n}.parquet"


def quarantine_batch(name: str) -> tuple[str, int, int] | None:
    """Run, epoch and number of the batch whose part of the quarantine has this name, or None where it is none."""
    return _batch_in(_QUARANTINED.fullmatch(name))


def logs_name(batch_id: str, execution: str) -> str:
    """The name of a log part that no other execution, of this batch or another, has."""
    return f"{LOGS}/{batch_id}-{execution}.parquet"


def logs_batch(name: str) -> tuple[str, int, int] | None:
    """Run, epoch and number of the batch whose log part has this name, or None where it is none."""
    return _batch_in(_LOG.fullmatch(name))


def produced_name(batch: str, execution: str, index: int, name: str) -> str:
    """The name of a file that an item produced, by its place in the batch: no other attempt has it."""
    return f"{FILES}/{batch}-{execution}/{index}/{name}"


def produced_batch(name: str) -> tuple[str, int, int] | None:
    """Run, epoch and number of the batch in which an item produced the file of this name, or None where no item did."""
    return _batch_in(_PRODUCED.fullmatch(name))


def execution_of(name: str) -> str | None:
    """Batch and execution that wrote a part, or in which an item produced a file; None where the name does not say it."""
    match = _PRODUCED.fullmatch(name) or _QUARANTINED.fullmatch(name) or (None if is_compacted(name) else _PART.fullmatch(name))
    return None if match is None else match["execution"]


def _batch_in(match: re.Match[str] | None) -> tuple[str, int, int] | None:
    try:
        return None if match is None else split_batch_id(match["batch"])
    except ValueError:
        return None
