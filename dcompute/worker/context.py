"""What an item may ask about itself: :func:`dcompute.current`."""

from __future__ import annotations

import contextvars
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dcompute.errors import UsageError
from dcompute.keys import item_seed
from dcompute.records import ItemKey

#: An attempt may record this many metrics; a text in one may have this many characters.
MOST_METRICS, LONGEST_TEXT = 256, 1024

Report = Callable[[float, str], None]


class Context:
    """The item at work. Outside dcompute: no key, attempt 1, no params, a seed of 0, and whatever is reported goes nowhere.

    Attributes
    ----------
    key
        Its key as text, and ``key_kind`` the kind of it; None outside dcompute.
    attempt
        From 1.
    run
        Id of the run, "" outside dcompute.
    params
        What ``params=`` of ``dc.map`` says.
    metrics
        What :meth:`metric` recorded.
    """

    __slots__ = ("_identity", "_report", "_scratch", "_scratch_root", "_seed", "attempt", "metrics", "params", "run")

    def __init__(
        self,
        identity: ItemKey | None,
        attempt: int,
        run: str,
        *,
        params: Mapping[str, Any],
        seed: int,
        scratch_root: str | None,
        report: Report | None,
    ) -> None:
        self._identity = identity
        self.attempt = attempt
        self.run = run
        self.params = params
        self._seed = seed
        self._scratch_root = scratch_root
        self._scratch: Path | None = None
        self._report = report
        self.metrics: dict[str, float | int | str | bool] = {}

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
    def scratch(self) -> Path:
        """A folder of this attempt's own, removed when it ends."""
        if self._scratch is None:
            if self._scratch_root is not None:
                Path(self._scratch_root).mkdir(parents=True, exist_ok=True)
            self._scratch = Path(tempfile.mkdtemp(prefix="item-", dir=self._scratch_root))
            if self._identity is None:
                import atexit

                atexit.register(shutil.rmtree, self._scratch, ignore_errors=True)
        return self._scratch

    def progress(self, fraction: float, text: str = "") -> None:
        """Say how far this item is, from 0 to 1, and what it is at; costs about a microsecond."""
        if self._report is not None:
            self._report(min(1.0, max(0.0, float(fraction))), str(text))

    def metric(self, name: str, value: Any) -> None:
        """Record a number or a text in the attempt's row; the last value of a name counts.

        Raises
        ------
        UsageError
            No number or text, or too many names.
        """
        if hasattr(value, "item") and not isinstance(value, (int, float, str)):
            value = value.item()  # a NumPy scalar
        if not isinstance(name, str) or not isinstance(value, (int, float, str)):
            raise UsageError(
                f"metric({name!r}, {type(value).__name__}): a name and a number or a text are expected; rows belong in the result"
            )
        if self._identity is None:
            return
        if len(self.metrics) >= MOST_METRICS and name not in self.metrics:
            raise UsageError(f"metric({name!r}): an attempt records at most {MOST_METRICS} metrics; what is more belongs in the result")
        self.metrics[name] = value[:LONGEST_TEXT] if isinstance(value, str) else value

    def close(self) -> None:
        """Remove the scratch folder, if there is one."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None


_OUTSIDE = Context(None, 1, "", params={}, seed=0, scratch_root=None, report=None)
# One item at a time is at work in a child, in whatever thread it looks; with isolation="thread" one in each thread.
_process: Context | None = None
_thread: contextvars.ContextVar[Context | None] = contextvars.ContextVar("dcompute_item", default=None)


def current() -> Context:
    """The item at work: its key, attempt, run, params, scratch and seed, and where to report progress and metrics.

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
    scratch_root: str | None,
    report: Report | None = None,
    own_thread: bool = False,
) -> Context:
    """Make an item the one at work, in this process or (``own_thread``) in this thread only.

    Parameters
    ----------
    seed
        That of the run.
    scratch_root
        Folder in which the scratch folder is made when it is asked for.
    report
        Called with fraction and text of each :meth:`Context.progress`.
    """
    global _process
    context = Context(key, attempt, run, params=params, seed=seed, scratch_root=scratch_root, report=report)
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
