"""A copy of a dataset on another storage: what counts as of one log position, a dataset of its own when it is complete."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dcompute.dataset.entries import Action, Adopted, Entry, Vacuum
from dcompute.dataset.listing import names_of_reports
from dcompute.dataset.logs import kept as kept_logs
from dcompute.dataset.names import ATTEMPTS, DATASET, LOGS, RESULTS, entry_name, new_id, started_name
from dcompute.dataset.parts import gone
from dcompute.dataset.produced import has_files, listed, named
from dcompute.dataset.remote import together
from dcompute.dataset.state import State
from dcompute.dataset.store import Store
from dcompute.dataset.writer import create_dataset, open_dataset
from dcompute.errors import DatasetCorruptError, UsageError

# bytes of a file that an object store is asked for at once
_BLOCK = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy has; ``str()`` of it is for people."""

    url: str
    to: str
    number: int  #: of the last entry that it has
    files: int
    bytes: int  #: of the parts, and of files that items produced
    reports: tuple[str, ...] = ()  #: that lie in the dataset and are not in the copy

    def __str__(self) -> str:
        left = f", without its reports ({', '.join(self.reports)}): they are computed again from the copy" if self.reports else ""
        return f"{self.url} as of entry {self.number:,} was copied to {self.to}: {self.files:,} files ({self.bytes / 1e6:,.1f} MB){left}"


def copy(store: Store, target: Store, at: int | None = None) -> Copied:
    """Copy what counts, as the log says; a run may be at work, and what it adds meanwhile is not in the copy.

    A copy that was interrupted is no dataset yet, and goes on when it is made again before the dataset has changed. Reports that lie in the
    dataset are not copied: of another dataset they would be computed again.

    Parameters
    ----------
    store
        Where the dataset is.
    target
        Where the copy goes.
    at
        Number of the last entry to copy; None: all that are there now.

    Raises
    ------
    UsageError
        There is a dataset already, or what is left of another copy.
    DatasetError
        A part that counts is gone or damaged.
    """
    _, state = open_dataset(store, at=at)
    if target.exists(DATASET):
        raise UsageError(f"there is a dataset at {target.url} already: copy to a place where there is none")
    if f"{target.url}/".startswith(f"{store.url}/"):
        raise UsageError(f"{target.url} lies within the dataset itself, whose folder is its own: copy to a place beside it")
    sizes = _parts(state)
    if has_files(state):
        for files in named(store, [part.name for part in (*state.counted_parts(), *state.quarantine_parts())]):
            sizes.update(files)
    sizes |= dict.fromkeys(kept_logs(state, store.names(LOGS)))
    present = {*target.names(RESULTS), *target.names(ATTEMPTS), *target.names(LOGS), *(listed(target) if has_files(state) else ())}
    missing = [name for name in sizes if name not in present]
    with tempfile.TemporaryDirectory(prefix="dcompute-") as folder:
        carrier = _Carrier(store, target, Path(folder), sizes)
        together(carrier.carry, missing)
    claims = _copy_claims(store, target, state)
    _copy_log(store, target, state)
    # from here on it is a dataset
    create_dataset(target)
    size = sum(target.size(name) if expected is None else expected for name, expected in sizes.items())
    return Copied(
        url=store.url,
        to=target.url,
        number=state.number,
        files=len(sizes) + claims + state.number,
        bytes=size,
        reports=names_of_reports(store),
    )


def _parts(state: State) -> dict[str, int | None]:
    """The parts that count and their sizes, where the log has them."""
    marks: dict[str, int | None] = {counted.mark: None for counted in state.batches}
    quarantine = {part.name: part.size for part in state.quarantine_parts()}
    return {part.name: part.size for part in state.counted_parts()} | quarantine | marks


class _Carrier:
    """Copies files, from any thread."""

    def __init__(self, store: Store, target: Store, folder: Path, sizes: dict[str, int | None]) -> None:
        self._store = store
        self._target = target
        self._folder = folder
        self._sizes = sizes

    def carry(self, name: str) -> None:
        """Copy one file, which appears whole or not at all."""
        if self._store.is_local:
            self._upload(Path(self._store.path(name)), name)
            return
        path = self._folder / new_id()
        try:
            with self._store.stream(name, _BLOCK) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        except FileNotFoundError as error:
            raise gone(self._store, name) from error
        self._upload(path, name)
        path.unlink()

    def _upload(self, path: Path, name: str) -> None:
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise gone(self._store, name) from error
        expected = self._sizes[name]
        if expected is not None and size != expected:
            raise DatasetCorruptError(
                f"{name} at {self._store.url} has {size:,} bytes, and the log says {expected:,}: something other than dcompute changed it. "
                "Restore the file from a copy"
            )
        self._target.upload(path, name)


def _copy_claims(store: Store, target: Store, state: State) -> int:
    """What says of items that may be executed once only that they were begun: else a run on the copy would execute them."""
    claims = [name for batch in set(state.sent.values()) if store.exists(name := started_name(batch))]
    for name in claims:
        target.write(name, store.read(name))
    return len(claims)


def _copy_log(store: Store, target: Store, state: State) -> None:
    """Backwards: a log is empty until its first entry is there."""
    settled: Sequence[Action] = (Adopted(epochs=state.unsettled), Vacuum(until=state.number))
    last = Entry(state.number + 1, new_id(), time.time(), tuple(settled))
    for number, data in ((last.number, last.to_bytes()), *_entries(store, state.number)):
        try:
            target.create(entry_name(number), data)
        except FileExistsError:
            if not _is_same(number, target.read(entry_name(number)), data):
                raise UsageError(f"there is what is left of another copy at {target.url}: remove it, or copy to another place") from None


def _entries(store: Store, last: int) -> Iterator[tuple[int, bytes]]:
    for number in range(last, 0, -1):
        yield number, store.read(entry_name(number))


def _is_same(number: int, there: bytes, data: bytes) -> bool:
    return there == data or Entry.from_bytes(number, there).actions == Entry.from_bytes(number, data).actions
