"""What a worker executes, how far it is, and what came of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dcompute.records import BatchSpec, Receipt, RunSpec

_FINISH_TIMEOUT, _SHORTEST_FINISH = 600.0, 60.0
#: Bytes a second at which a journal and files of items are read once, at least.
_READ_RATE = 20e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a worker executes."""

    run: RunSpec
    batch: BatchSpec
    execution: str  #: random id of this execution
    scratch: str  #: folder of this worker process; removed when the process is gone
    memory_limit: int | None = None  #: bytes for the tree of a child; None: no limit
    worker: str = ""  #: name of the Dask worker, for the rows
    device_wait: float | None = None  #: seconds for which devices are waited for; None: as the settings say

    @property
    def folder(self) -> Path:
        """Where the files of this execution lie."""
        return Path(self.scratch) / f"{self.batch.id}-{self.execution}"

    @property
    def identity(self) -> tuple[str, ...]:
        """Children with the same one are interchangeable."""
        run, batch = self.run, self.batch
        # a process has the threads and devices that it began with
        asked = f"{batch.cpus:g} {batch.gpus:g}"
        return (run.run, run.code_digest, run.params_digest, asked, *(digest for _, digest, _ in run.modules))


def finish_seconds(timeout: float | None, count: int, nbytes: int) -> float:
    """How long a process may take to judge and write the rows of a batch.

    Parameters
    ----------
    timeout
        Seconds a call, where checks are asked: they are user code, which may hang, and get no more than the items had.
    count
        Items of the batch.
    nbytes
        Bytes that have to be read.
    """
    longest = _FINISH_TIMEOUT if timeout is None else min(_FINISH_TIMEOUT, max(_SHORTEST_FINISH, timeout * count))
    return longest + nbytes / _READ_RATE


def files_folder(folder: Path) -> Path:
    """Where, in the folder of an execution, the files are that its items produce."""
    return folder / "files"


def size_of_files(folder: Path) -> int:
    """Bytes of all files that items produced; 0 where they produced none."""
    found = files_folder(folder)
    return sum(one.lstat().st_size for one in found.rglob("*")) if found.is_dir() else 0


@dataclass(frozen=True, slots=True)
class Tick:
    """How far a batch is."""

    index: int | None  #: the item at work
    done: int  #: items with an outcome
    fraction: float | None  #: what the item at work said of itself
    text: str
    printed: Callable[[], dict[str, str]] = dict  #: by stream, the last of what was printed since this was asked before
    is_last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupFailure:
    """Set-up failed; no item is to blame."""

    text: str
    traceback: str = ""
    log: str = ""  #: what it printed
    #: ``setup``, ``code`` (import, unpickle), ``values`` (they cannot be unpickled), ``process``, ``scratch`` (full), ``devices`` (in use)
    stage: str = "setup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What came of a batch."""

    receipt: Receipt | None = None  #: None: nothing was finished
    files: list[tuple[str, str]] = field(default_factory=list)  #: local path and dataset name: of items, results, the attempts part last
    folder: str = ""  #: where they lie
    setup_error: SetupFailure | None = None
    cut_short: str | None = None  #: why the receipt does not hold all items: ``cancelled``, ``closing``, ``setup``, ``full``
    untouched: bool = False  #: no item was begun

    def discard(self) -> None:
        """Remove the local files."""
        shutil.rmtree(self.folder, ignore_errors=True)
