"""Progress of a run where its user looks: a bar on a terminal, lines in a log, HTML in a notebook, or nothing.

:func:`make_progress` chooses; every :class:`Progress` takes :class:`Snapshot` records, as often as its driver likes, and
decides itself how often to show one. All of it goes to stderr: stdout belongs to the program.
"""

from __future__ import annotations

import contextlib
import html
import math
import os
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TextIO

from dcompute.errors import UsageError
from dcompute.summary import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

#: What ``dcompute.progress`` may say.
MODES = ("auto", "bar", "log", "html", "quiet")
#: Seconds between two lines of a log.
LOG_SECONDS = 10.0
#: Seconds between two pictures on a terminal.
BAR_SECONDS = 0.1
#: Seconds between two updates of a notebook: each is a message that the notebook's page must lay out.
HTML_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How far a run is at one moment."""

    done: int = 0  #: items that succeeded in this run
    failed: int = 0  #: items that failed at last in this run
    retrying: int = 0  #: items that failed and wait for their next attempt
    running: int = 0  #: items that are being executed
    total: int | None = None  #: items this run has to do; None while its inputs cannot be counted
    rows: int = 0  #: rows of results
    rate: float = 0.0  #: ended items a second
    seconds_left: float | None = None  #: None where it cannot be told
    item: str = ""  #: what an item at work says of itself, with its key
    before: int = 0  #: items that had a final outcome already, in a run that found nothing to do
    before_failed: int = 0  #: those of them that failed
    note: str = ""  #: what the run is waiting for, if anything
    state: str = "running"  #: one word

    @property
    def ended(self) -> int:
        """Items that need nothing more."""
        return self.done + self.failed

    @property
    def share(self) -> tuple[int, int] | None:
        """How far the bar is, of how much; None while nobody knows how much. What had nothing to do is at its end."""
        if self.state == "finished" and not self.ended:
            return 1, 1
        return None if self.total is None else (self.ended, max(self.total, 1))


class Progress(Protocol):
    """Shows how a run goes on. One thread at a time calls it."""

    lasting: ClassVar[bool]  #: stays as it is while nobody waits for the run, and goes on when somebody waits again

    def update(self, snapshot: Snapshot) -> None:
        """Take the newest figures; shown when it is time."""

    def note(self, text: str) -> None:
        """Show what the run does or waits for now; empty: what was shown holds no more."""

    def close(self, snapshot: Snapshot | None) -> None:
        """Show the last figures, if given, and give the terminal back; harmless when repeated."""


def make_progress(mode: str | None = None, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> Progress:
    """The display that ``mode`` names, or, for ``auto``, the one that suits where the run is watched.

    Parameters
    ----------
    mode
        One of :data:`MODES`; the setting ``dcompute.progress`` where None.
    stream
        Where it is written; stderr where None.
    clock
        Seconds that only grow.
    """
    if mode is None:
        from dcompute.config import settings

        mode = settings().progress
    stream = stream if stream is not None else sys.stderr
    chosen = _suited(stream) if mode == "auto" else mode
    if chosen == "bar":
        return BarProgress(stream, clock=clock)
    if chosen == "log":
        return LogProgress(stream, clock=clock)
    if chosen == "html":
        return HtmlProgress(clock=clock)
    if chosen == "quiet":
        return QuietProgress()
    raise UsageError(f"progress={mode!r} is not known; these are: {', '.join(MODES)}")


def _suited(stream: TextIO) -> str:
    if _in_notebook():
        return "html"
    with contextlib.suppress(ValueError):  # a closed stream
        if stream.isatty() and os.environ.get("TERM") != "dumb":
            # Two bars would draw over each other.
            return "bar" if BarProgress.drawing() is None else "log"
    return "log"


def _in_notebook() -> bool:
    """Whether a kernel with a page in front of it runs this; a terminal IPython is a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def figures(snapshot: Snapshot) -> str:
    """The figures of a snapshot as one line of text."""
    parts = [f"{snapshot.done:,} done" if snapshot.total is None else f"{snapshot.done:,} of {snapshot.total:,} done"]
    parts += [f"{count:,} {word}" for count, word in _marked(snapshot) if count]
    if snapshot.rate > 0:
        parts.append(_rate(snapshot.rate))
    if snapshot.seconds_left is not None and snapshot.ended != snapshot.total:
        parts.append(f"{duration(snapshot.seconds_left)} left")
    if snapshot.item:
        parts.append(snapshot.item)
    return ", ".join(parts)


def _marked(snapshot: Snapshot) -> tuple[tuple[int, str], ...]:
    return ((snapshot.failed, "failed"), (snapshot.retrying, "retrying"), (snapshot.running, "running"))


def _rate(rate: float) -> str:
    if rate >= 10:
        return f"{rate:,.0f} items/s"
    return f"{rate:.1f} items/s" if rate >= 0.1 else f"{rate * 3600:.1f} items/h"


def duration(seconds: float) -> str:
    """A duration as people write it, in at most two units."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


class QuietProgress:
    """Shows nothing."""

    lasting: ClassVar[bool] = True

    def update(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self, snapshot: Snapshot | None) -> None:
        """Nothing."""


class LogProgress:
    """A line now and then, for logs that nobody watches as they grow.

    The first line comes after :data:`LOG_SECONDS`, so that short runs leave only their last one.
    """

    lasting: ClassVar[bool] = True

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], time.struct_time] = time.localtime,
        seconds: float = LOG_SECONDS,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._now = now
        self._seconds = seconds
        self._due = clock() + seconds
        self._closed = False

    def update(self, snapshot: Snapshot) -> None:
        """Write a line if the last one is old enough."""
        if self._closed or (now := self._clock()) < self._due:
            return
        # Counted from now: after a pause of the process one line is due, not all that were missed.
        self._due = now + self._seconds
        self._write(_line(snapshot))

    def note(self, text: str) -> None:
        """Write a line at once."""
        if text:
            self._write(text)

    def close(self, snapshot: Snapshot | None) -> None:
        """Write the last line."""
        if not self._closed and snapshot is not None:
            self._write(_line(snapshot))
        self._closed = True

    def _write(self, text: str) -> None:
        # A log that is full or gone must not end a run.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{time.strftime('%H:%M:%S', self._now())} dcompute: {text}\n")
            self._stream.flush()


def _line(snapshot: Snapshot) -> str:
    if snapshot.state == "finished" and not snapshot.ended:
        failed = f", of which {snapshot.before_failed:,} failed" if snapshot.before_failed else ""
        return f"up to date: {counted(snapshot.before, 'item')}{failed}" if snapshot.before else "finished: there were no inputs"
    state = "" if snapshot.state == "running" else f"{snapshot.state}: "
    return f"{state}{figures(snapshot)}"


class BarProgress:
    """A bar on a terminal; lines that the program prints meanwhile go above it."""

    lasting: ClassVar[bool] = False
    _latest: ClassVar[weakref.ref[BarProgress] | None] = None

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic, console: Console | None = None) -> None:
        self._stream = stream
        self._clock = clock
        self._console = console
        self._bar: RichProgress | None = None
        self._task: Any = None
        self._due = -math.inf
        self._closed = False
        BarProgress._latest = weakref.ref(self)

    @classmethod
    def drawing(cls) -> BarProgress | None:
        """The bar that has the terminal, if one has."""
        bar = cls._latest() if cls._latest is not None else None
        return None if bar is None or bar._closed else bar

    def update(self, snapshot: Snapshot) -> None:
        """Draw, unless the last picture is a moment old."""
        if self._closed or (now := self._clock()) < self._due:
            return
        self._due = now + BAR_SECONDS
        self._draw(snapshot)

    def note(self, text: str) -> None:
        """Write a line above the bar."""
        if not text:
            return
        from rich.text import Text

        with contextlib.suppress(OSError, ValueError):
            self._started().console.print(Text(text))

    def close(self, snapshot: Snapshot | None) -> None:
        """Draw the last picture and stop: the terminal's cursor comes back."""
        if self._closed:
            return
        self._closed = True
        if snapshot is not None:
            self._draw(snapshot)
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.stop()

    def _draw(self, snapshot: Snapshot) -> None:
        with contextlib.suppress(OSError, ValueError):
            bar = self._started()
            ended, total = snapshot.share or (snapshot.ended, None)
            bar.update(self._task, total=total, completed=ended, figures=_markup(snapshot))
            bar.refresh()

    def _started(self) -> RichProgress:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn
            from rich.progress import Progress as RichProgress

            console = self._console or Console(file=self._stream)
            columns = (BarColumn(bar_width=24), TaskProgressColumn(), TextColumn("{task.fields[figures]}"))
            self._bar = RichProgress(*columns, console=console, auto_refresh=False)
            self._task = self._bar.add_task("", total=None, figures="starting")
            self._bar.start()
        return self._bar


def _markup(snapshot: Snapshot) -> str:
    from rich.markup import escape

    text = escape(_line(snapshot))
    return text.replace(f"{snapshot.failed:,} failed", f"[red]{snapshot.failed:,} failed[/red]") if snapshot.failed else text


class HtmlProgress:
    """A bar and a line in the output of a notebook's cell, kept up to date in place."""

    lasting: ClassVar[bool] = False

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, display: Callable[[str], Callable[[str], Any]] | None = None
    ) -> None:
        self._clock = clock
        self._due = -math.inf
        self._note = ""
        self._last = Snapshot()
        self._closed = False
        # Shown at once, because who makes it is in the cell whose output it is; later updates may come from anywhere.
        self._show = (display or _notebook_display)(as_html(Snapshot(state="starting")))

    def update(self, snapshot: Snapshot) -> None:
        """Bring the cell's output up to date, unless that was done a moment ago."""
        self._last = snapshot
        if self._closed or (now := self._clock()) < self._due:
            return
        self._due = now + HTML_SECONDS
        self._render()

    def note(self, text: str) -> None:
        """Show it below the bar, in the place of the one before."""
        if text != self._note:
            self._note = text
            self._render()

    def close(self, snapshot: Snapshot | None) -> None:
        """Show the last figures."""
        if not self._closed and snapshot is not None:
            self._last, self._note = snapshot, snapshot.note
            self._render()
        self._closed = True

    def _render(self) -> None:
        self._show(as_html(replace(self._last, note=self._note)))


def as_html(snapshot: Snapshot) -> str:
    """A snapshot as a piece of HTML that needs no script and no style sheet."""
    # A <progress> without a value is the browser's own "busy" bar.
    value = ' value="{}" max="{}"'.format(*snapshot.share) if snapshot.share is not None else ""
    note = f"<div>{html.escape(snapshot.note)}</div>" if snapshot.note else ""
    return f'<div><progress{value} style="width:20em"></progress> <span>{html.escape(_line(snapshot))}</span>{note}</div>'


def _notebook_display(page: str) -> Callable[[str], Any]:
    from IPython.display import HTML, display

    handle = display(HTML(page), display_id=True)
    return lambda newer: handle.update(HTML(newer)) if handle is not None else None
