"""Commands of ``dcompute report`` for reports that a user declared: run them, say how fresh they are, show them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dcompute.cli import exits
from dcompute.cli.options import Headed, Names, in_options, option
from dcompute.cli.scheduler import connected
from dcompute.cli.tables import print_json, print_table, rows, to_json
from dcompute.cli.target import named
from dcompute.errors import ClusterError, DatasetError, ReportError, StoreError, UsageError

if TYPE_CHECKING:
    from dcompute.report.report import Report
    from dcompute.report.versions import Version

#: Rows that a table shows where nothing is said.
FIRST = 20

_json = option("Options", "--json", "as_json", is_flag=True, help="Write JSON, an object a line.")


@click.command("run", cls=Headed, short_help="Compute a report where its sources moved.", epilog=exits.HELP)
@click.argument("target")
@option("Options", "--upstream", is_flag=True, help="Run the reports that it is computed from first.")
@option("Options", "--full", is_flag=True, help="Compute all of it, whether anything moved or not.")
@option("Options", "--watch", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Look again after so long, for ever.")
@option("Options", "--scheduler", metavar="ADDRESS", help="Compute on the workers of this Dask scheduler.")
@_json
def run(target: str, upstream: bool, full: bool, watch: float | None, scheduler: str | None, as_json: bool) -> None:
    """Publish the next version of the report TARGET, where its sources moved since the last one.

    TARGET is pkg.module:NAME or file.py:NAME. Readers see the version before or the new one, whole. Killed at any moment, the
    same line does it again. Exit code 1: the report failed, and what counted before still counts.

    \b
    Examples:
      dcompute report run reports.py:METRICS --upstream
      dcompute report run reports.py:METRICS --upstream --watch 60
      dcompute report run lab.reports:METRICS --scheduler tcp://10.0.0.1:8786
    """
    report = _report(target)

    def once() -> None:
        # each time anew: a scheduler that was started again has forgotten its clients
        with connected(scheduler) as client:
            for version in _run(report, client, upstream=upstream, full=full):
                if version.is_new or watch is None:
                    _say(version, as_json)

    if watch is None:
        once()
    else:
        watched(once, lambda: time.sleep(watch))


@click.command("status", cls=Headed, short_help="How fresh a report is.", epilog=exits.HELP)
@click.argument("target")
@_json
def status(target: str, as_json: bool) -> None:
    """Say whether the report TARGET is up to date, how far it is behind, or since when it fails; its stages too.

    \b
    Examples:
      dcompute report status reports.py:METRICS
      dcompute report status reports.py:METRICS --json | jq -e '.state == "up to date"'
    """
    found = _report(target).status()
    click.echo(to_json(asdict(found)) if as_json else str(found))


@click.command("show", cls=Headed, short_help="The rows of a report.", epilog=exits.HELP)
@click.argument("target")
@option("Options", "--limit", type=click.IntRange(min=0), help=f"Only so many rows.  [default: {FIRST}; all with --json]")
@option("Options", "--columns", type=Names(), help="These columns, in this order.")
@option("Options", "--version", "number", type=click.IntRange(min=1), help="Those of an earlier version, while it is kept.")
@_json
def show(target: str, limit: int | None, columns: tuple[str, ...] | None, number: int | None, as_json: bool) -> None:
    """Show the rows of the report TARGET, as it was last published.

    \b
    Examples:
      dcompute report show reports.py:METRICS
      dcompute report show reports.py:METRICS --columns station,mean --limit 100
      dcompute report show reports.py:METRICS --json > metrics.jsonl
    """
    found = rows(_report(target).results(version=number), columns)
    if as_json:
        print_json(found, limit, click.echo)
        return
    count = print_table(found, FIRST if limit is None else limit, click.echo)
    if next(found, None) is not None:
        click.echo(f"... the first {count:,} rows; --limit shows more, --json all", err=True)
    elif not count:
        click.echo("no rows", err=True)


COMMANDS = (run, status, show)


def watched(once: Callable[[], None], wait: Callable[[], None]) -> None:
    """Do it again and again; what goes wrong is told, and may be right the next time.

    Parameters
    ----------
    once
        What is done.
    wait
        Between two times.
    """
    while True:
        try:
            once()
        except (ReportError, StoreError, DatasetError, ClusterError) as error:
            click.echo(f"Error: {in_options(error.message)}", err=True)
        wait()


def _report(target: str) -> Report:
    from dcompute.report.report import Report

    found = named(target, "report", lambda value: isinstance(value, Report))
    if not isinstance(found, Report):
        raise UsageError(f"{target} is of type {type(found).__name__}, not a dc.Report")
    return found


def _run(report: Report, client: Any, *, upstream: bool, full: bool) -> Iterator[Version]:
    from dcompute.report.running import run_upstream

    if upstream:
        yield from run_upstream(report, client, full=full)
    yield report.run(client, full=full)


def _say(version: Version, as_json: bool) -> None:
    if not as_json:
        click.echo(str(version))
        return
    told = ("report", "number", "published", "seconds", "rows_in", "rows", "dropped", "is_new", "reason")
    steps = {one.step: one.seconds for one in version.steps}
    click.echo(to_json({**{name: getattr(version, name) for name in told}, "steps": steps}))
