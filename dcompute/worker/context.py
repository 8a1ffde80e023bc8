"""What an item may ask about itself: :func:`dcompute.current`."""

from __future__ import annotations

import contextvars
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dcompute.errors import UsageError
from dcompute.keys import item_seed
from dcompute.records import ItemKey
from dcompute.worker.produced import Outputs, checked_column, checked_name

#: An attempt may record this many metrics, with names of so many characters and texts of so many bytes: what is more belongs in the result.
MOST_METRICS, LONGEST_NAME, LONGEST_TEXT = 1000, 100, 10_000
#: A sum of steps may miss 1 by this: steps of a tenth do.
_ROUNDING = 1e-6

Report = Callable[[float, str], None]


# an item may ask in several threads
_outputs_lock = threading.Lock()


class Room(NamedTuple):
    """Where the items of a batch may put things, and for how long they may work."""

    scratch: str | None = None  #: folder in which scratch folders are made; None: the system's
    files: str | None = None  #: folder for files that become part of the dataset; None: nowhere
    is_group: bool = False  #: whether a call has several items
    pid: int = 0  #: of the process that they are executed in
    timeout: float | None = None  #: seconds a call
    stopped: Callable[[], bool] | None = None  #: whether the batch is to end; who sees it may end the process, where this is told
    gpus: tuple[str, ...] = ()  #: ids of the devices that they see


class AtWork(NamedTuple):
    """One of the items that a call was made for."""

    key: str  #: as text
    key_kind: str
    attempt: int  #: from 1
    seed: int  #: as :attr:`Context.seed`, its own

    def output(self, name: str, column: str | None = None) -> Path:
        """A path for a file of this item; see :meth:`Context.output`.

        Raises
        ------
        UsageError
            As there, or the item is not at work any more.
        """
        return current().output_of(ItemKey(self.key, self.key_kind), name, column)


class Context:
    """The item at work; where a call has several (``group=``) the first of them, and all in :attr:`items`.

    Outside dcompute: no key, attempt 1, no params, a seed of 0, and whatever is reported goes nowhere.

    Attributes
    ----------
    key
        Its key as text, and ``key_kind`` the kind of it; None outside dcompute.
    attempt
        From 1.
    run
        Id of the run, "" outside dcompute.
    params
        What ``params=`` of ``dc.map`` says, to look at: one object for all items of a child. Arguments are each call's own.
    metrics
        What :meth:`metric` recorded.
    outputs
        What :meth:`output` was asked for, by item.
    noted_bytes
        Of the files that :meth:`noted` noted.
    left
        Processes that programs of this attempt left behind; they are gone.
    """

    __slots__ = (
        "_identity",
        "_others",
        "_report",
        "_room",
        "_scratch",
        "_seed",
        "attempt",
        "left",
        "metrics",
        "noted_bytes",
        "outputs",
        "params",
        "run",
    )

    def __init__(
        self,
        identity: ItemKey | None,
        attempt: int,
        run: str,
        *,
        params: Mapping[str, Any],
        seed: int,
        room: Room,
        report: Report | None,
    ) -> None:
        self._identity = identity
        self._others: Sequence[tuple[ItemKey, int]] = ()
        self.attempt = attempt
        self.run = run
        self.params = params
        self._seed = seed
        self._room = room
        self._scratch: Path | None = None
        self._report = report
        self.metrics: dict[str, float | int | str | bool | None] = {}
        self.outputs: dict[ItemKey, Outputs] | None = None
        self.noted_bytes = 0
        self.left = 0

    def __repr__(self) -> str:
        return f"<dcompute.current(): {self.key!r}, attempt {self.attempt}>" if self._identity else "<dcompute.current(): outside an item>"

    @property
    def key(self) -> str | None:
        """The item's key as text; None outside dcompute."""
        return self._identity.text if self._identity else None

    @property
    def key_kind(self) -> str | None:
        """The kind of key, ``str``, ``int`` and so on; None outside dcompute."""
        return self._identity.kind if self._identity else None

    @property
    def seed(self) -> int:
        """An integer below 2**63, from ``seed=`` of ``dc.map`` and the key: the same on every retry, worker and later run."""
        return item_seed(self._seed, self._identity) if self._identity else 0

    @property
    def gpus(self) -> tuple[str, ...]:
        """Ids of the devices that this item has, as ``gpus=`` asked for them; none outside dcompute."""
        return self._room.gpus

    @property
    def items(self) -> tuple[AtWork, ...]:
        """All items of this call, each with its own key, attempt and seed, in the order of the values; none outside dcompute."""
        if self._identity is None:
            return ()
        together = [(self._identity, self.attempt), *self._others]
        return tuple(AtWork(key.text, key.kind, attempt, item_seed(self._seed, key)) for key, attempt in together)

    def join(self, others: Iterable[tuple[ItemKey, int]]) -> None:
        """Note with which other items, by key and attempt, this one is at work; for the loop that calls."""
        self._others = tuple(others)

    @property
    def scratch(self) -> Path:
        """A folder of this attempt's own, removed when it ends."""
        if self._scratch is None:
            root = self._room.scratch
            if root is not None:
                Path(root).mkdir(parents=True, exist_ok=True)
            self._scratch = Path(tempfile.mkdtemp(prefix="item-", dir=root))
            if self._identity is None:
                import atexit

                atexit.register(shutil.rmtree, self._scratch, ignore_errors=True)
        return self._scratch

    def output(self, name: str, column: str | None = None) -> Path:
        """A path to write a file to, which becomes part of the dataset when the item succeeds.

        The item's rows get its URL, size in bytes and SHA-256; a result without rows gets one. Outside dcompute the file stays in
        :attr:`scratch`.

        Parameters
        ----------
        name
            A relative name, which the file keeps behind a path that no other attempt has. Its folders are made.
        column
            The columns are called this with ``_url``, ``_size`` and ``_checksum``; None: the stem of the name. Where names differ by item,
            say one.

        Raises
        ------
        UsageError
            No safe relative name, a column that another file has, or a call with several items: each of :attr:`items` has its own.
        """
        if self._identity is None:
            return self.output_of(None, name, column)
        if self._room.is_group:
            raise UsageError(
                f"output({name!r}): this call has several items (group=), and a file belongs to one: "
                "say which, as dcompute.current().items[0].output(...)"
            )
        return self.output_of(self._identity, name, column)

    def output_of(self, item: ItemKey | None, name: str, column: str | None) -> Path:
        """:meth:`output` of one of the items at work."""
        text = checked_name(name)
        called = checked_column(column, text)
        if item is None or self._room.files is None:
            path = self.scratch / text
            path.parent.mkdir(parents=True, exist_ok=True)
            return path
        if item != self._identity and all(item != key for key, _ in self._others):
            raise UsageError(
                f"output({text!r}): item {item.text!r} is not at work any more: take items from dcompute.current() in each call"
            )
        if os.getpid() != self._room.pid:
            raise UsageError(f"output({text!r}): ask in the process of the item itself, and pass the path to the processes that it starts")
        with _outputs_lock:
            if self.outputs is None:
                self.outputs = {}
            if item not in self.outputs:
                self.outputs[item] = Outputs(self._room.files)
            return self.outputs[item].path(text, called)

    def noted(self, item: ItemKey, payload: bytes) -> bytes:
        """Encoded rows of an item that succeeded, with the files it was to write, which stay where they are; for the loop that calls."""
        found = self.outputs.pop(item, None) if self.outputs else None
        if found is None:
            return payload
        self.noted_bytes += found.size
        return found.noted(payload)

    @property
    def room(self) -> Room:
        """Where it may put things, and for how long it may work; for what starts programs."""
        return self._room

    def progress(self, fraction: float, text: str = "") -> None:
        """Say how far this item is, from 0 to 1, and what it is at; costs about a microsecond.

        Raises
        ------
        UsageError
            The fraction is no number from 0 to 1.
        """
        share = _fraction(fraction)
        if self._report is not None:
            self._report(share, str(text))

    def metric(self, name: str, value: Any) -> None:
        """Record a number or a text in the attempt's row; the last value of a name counts, and what is not finite is recorded as null.

        Raises
        ------
        UsageError
            No number or text, one that is too large, or too many names.
        """
        _check_name(name)
        checked = _recorded(name, value)
        if self._identity is None:
            return
        if len(self.metrics) >= MOST_METRICS and name not in self.metrics:
            raise UsageError(f"metric({name!r}): an attempt records at most {MOST_METRICS:,} metrics; what is more belongs in the result")
        self.metrics[name] = checked

    def close(self) -> None:
        """Remove the scratch folder, if there is one, and files that nobody noted."""
        for outputs in self.outputs.values() if self.outputs else ():
            shutil.rmtree(outputs.folder, ignore_errors=True)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None


def _fraction(value: Any) -> float:
    try:
        share = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        share = math.nan
    if not -_ROUNDING <= share <= 1 + _ROUNDING:
        raise UsageError(f"progress({_shown(value)}): say how far the item is as a number from 0 to 1, such as progress(done / total)")
    return min(1.0, max(0.0, share))


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        raise UsageError(f"metric({_shown(name)}, ...): the name of a metric is text of 1 to {LONGEST_NAME} characters")


def _recorded(name: str, value: Any) -> float | int | str | bool | None:
    """The value of a metric as JSON has it: plain, bounded, null for what is not finite."""
    found = _plain(value)
    if isinstance(found, str):
        size = len(found.encode("utf-8", "surrogatepass"))
        if size > LONGEST_TEXT:
            raise UsageError(
                f"metric({name!r}): its text has {size:,} bytes, at most {LONGEST_TEXT:,} fit; what is longer belongs in the result"
            )
        return found
    if isinstance(found, float):
        return found if math.isfinite(found) else None
    if not isinstance(found, int):
        raise UsageError(f"metric({name!r}, {_shown(value)}): a number or a text is expected; rows belong in the result")
    if found.bit_length() > 64:
        raise UsageError(f"metric({name!r}): a whole number of {found.bit_length():,} bits, and 64 fit; record float(value)")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (int, float, str)) or not hasattr(value, "item"):
        return value
    try:
        return value.item()  # a NumPy scalar
    except Exception:  # noqa: BLE001  an array of several, of whatever library: no number
        return value


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  a value that cannot be printed is no reason to hide what is wrong with it
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


_OUTSIDE = Context(None, 1, "", params={}, seed=0, room=Room(), report=None)
# One item at a time is at work in a child, in whatever thread it looks; with isolation="thread" one in each thread.
_process: Context | None = None
_thread: contextvars.ContextVar[Context | None] = contextvars.ContextVar("dcompute_item", default=None)


def current() -> Context:
    """The item at work: its key, attempt, run, params, scratch and seed, and where to report progress and metrics.

    In a call with several items (``group=``) these are those of the first, what is reported goes to its row, and ``items`` has the key,
    attempt and seed of each, in the order of the values.

    Examples
    --------
    >>> import dcompute
    >>> dcompute.current().attempt
    1
    >>> dcompute.current().progress(0.4, "harmless outside an item")
    """
    return _thread.get() or _process or _OUTSIDE


def begin(
    key: ItemKey,
    attempt: int,
    run: str,
    *,
    params: Mapping[str, Any],
    seed: int,
    room: Room = Room(),  # noqa: B008  it never changes
    report: Report | None = None,
    own_thread: bool = False,
) -> Context:
    """Make an item the one at work, in this process or (``own_thread``) in this thread only.

    Parameters
    ----------
    seed
        That of the run.
    room
        Where its scratch folder and its files are made when they are asked for.
    report
        Called with fraction and text of each :meth:`Context.progress`.
    """
    global _process
    context = Context(key, attempt, run, params=params, seed=seed, room=room, report=report)
    if own_thread:
        _thread.set(context)
    else:
        _process = context
    return context


def end() -> None:
    """No item is at work any more; its scratch folder is removed."""
    global _process
    context, own = _thread.get(), True
    if context is None:
        context, own = _process, False
    if context is None:
        return
    context.close()
    if own:
        _thread.set(None)
    else:
        _process = None
