"""What the demo says at its end; all of it but the rate is read from the dataset, as anyone could at any time."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

EXAMPLES = 3  # shown of each kind of failure, besides the planted ones
SLOWEST = 5
MOST_KINDS = 4
WORTH_A_RATE = 20  # files
LONGEST = 96  # characters of a line about a failure
WHERE = re.compile(r" \([^()]*, line \d+\)$")


class Report:
    """The figures of the whole dataset, and of the run that just ended."""

    def __init__(self, summary: Any, dataset: Any, source: Path) -> None:
        self.summary = summary
        self.dataset = dataset
        self.source = source

    def show(self, say: Console) -> None:
        """Print everything."""
        say.print(f"\n{escape(str(self.summary))}\n")
        attempts = self.dataset.attempts()[["item_key", "attempt", "outcome", "duration"]].compute()
        newest = attempts.drop_duplicates("item_key", keep="last")
        self._counts(say, newest)
        if self.summary.executed:
            self._failures(say)
            self._slowest(say, newest)
        self._farewell(say)

    def _counts(self, say: Console, newest: Any) -> None:
        kinds = self.dataset.results()["kind"].compute().value_counts()
        symbols = ", ".join(f"{count:,} {_plural(kind, count)}" for kind, count in kinds.head(MOST_KINDS).items())
        succeeded = int((newest["outcome"] == "succeeded").sum())
        say.print(f"[bold]Files[/bold]     {len(newest):,}: {succeeded:,} indexed, {len(newest) - succeeded:,} failed")
        say.print(f"[bold]Symbols[/bold]   {int(kinds.sum()):,}: {symbols}{', ...' if len(kinds) > MOST_KINDS else ''}")
        summary = self.summary
        if summary.executed >= WORTH_A_RATE:
            say.print(
                f"[bold]Rate[/bold]      {summary.executed / summary.seconds:,.0f} files/s, "
                f"{summary.rows / summary.seconds:,.0f} symbols/s in this run of {summary.seconds:.1f} s"
            )

    def _failures(self, say: Console) -> None:
        failures = self.dataset.failures()[["item_key", "kind", "error", "message"]].compute()
        say.print(f"[bold]Failed[/bold]    {len(failures)} files, and the demo is none the worse for it:")
        for kind, those in failures.groupby("kind", sort=True, observed=True):
            say.print(f"  [red]{kind}[/red] {len(those)}")
            planted = those["item_key"].map(lambda key: Path(key).parent == self.source / "damaged")
            for row in those[planted].itertuples():
                say.print(f"    {escape(self._line(row))} [dim](planted)[/dim]")
            for row in those[~planted].head(EXAMPLES).itertuples():
                say.print(f"    {escape(self._line(row))}")
            more = int((~planted).sum()) - EXAMPLES
            if more > 0:
                say.print(f"    [dim]and {more} more of the library's own, made to be broken[/dim]")

    def _line(self, row: Any) -> str:
        # A syntax error ends with the file and line that it is about; the file is named already.
        message = WHERE.sub("", str(row.message).partition("\n")[0])
        error = "" if row.error == row.kind else f"{row.error.rpartition('.')[2]}: "
        return textwrap.shorten(f"{self._file(row.item_key)}: {error}{message}", LONGEST, placeholder=" ...")

    def _slowest(self, say: Console, newest: Any) -> None:
        say.print("[bold]Slowest[/bold]")
        for row in newest[newest["outcome"] == "succeeded"].nlargest(SLOWEST, "duration").itertuples():
            say.print(f"  {row.duration:7.3f} s  {escape(self._file(row.item_key))}")

    def _farewell(self, say: Console) -> None:
        place = as_typed(Path(self.dataset.url))
        say.print(f"[bold]Dataset[/bold]   {escape(place)}")
        say.print("[bold]Read it[/bold]   " + escape(f"import dcompute as dc; dc.open({place!r}).results().compute()"))
        say.print(
            f"[bold]Go on[/bold]     Run it again: up to date. Change a file in {escape(as_typed(self.source))}: just that one is redone."
        )

    def _file(self, key: str) -> str:
        path = Path(key)
        return path.relative_to(self.source).as_posix() if path.is_relative_to(self.source) else key


def as_typed(path: Path) -> str:
    """``path`` as one would type it here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _plural(kind: str, count: int) -> str:
    return kind if count == 1 else f"{kind}es" if kind.endswith("s") else f"{kind}s"
