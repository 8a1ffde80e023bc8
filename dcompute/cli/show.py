"""Commands that read a dataset, and the one that asks its run to stop; none needs a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import click

from dcompute.cli import exits
from dcompute.cli.options import Headed, Names, option
from dcompute.cli.reading import datasets, opened, opened_one
from dcompute.cli.tables import print_json, print_table, rows, to_json
from dcompute.errors import UsageError

#: Rows that a table shows where nothing is said.
FIRST = 20

#: What a table shows where no columns are named; JSON has all.
ATTEMPTS = ("item_key", "attempt", "outcome", "kind", "error", "duration", "peak_memory", "bottleneck", "host")
FAILURES = ("item_key", "attempt", "kind", "error", "message")

_limit = option("Options", "--limit", type=click.IntRange(min=0), help=f"At most so many rows.  [default: {FIRST}; all with --json]")
_columns = option("Options", "--columns", type=Names(), help="Show these columns, in this order.")
_at = option("Options", "--at", metavar="ENTRY|TIME",
             help="As it was: a number of `dcompute history`, or a time such as 2026-05-31T17:30 (local).")  # fmt: skip
_json = option("Options", "--json", "as_json", is_flag=True,
               help="Write JSON, an object a line, with all columns and full values: bytes in base64, null for NaN.")  # fmt: skip


@click.command("status", cls=Headed, short_help="How far a dataset is, and who is at work on it.", epilog=exits.HELP)
@datasets
@_at
@option("Options", "--json", "as_json", is_flag=True, help="Write one JSON object.")
def status(datasets: tuple[str, ...], at: str | None, as_json: bool) -> None:
    """Say how far DATASET is, and whether a run is at work on it; of several, each, and all together.

    The exit code is 0 whether or not items failed: see `failures`.

    \b
    Examples:
      dcompute status out/flux
      watch dcompute status s3://lab/flux
      dcompute status 'lab/*'
      dcompute status out/flux --json | jq .succeeded
    """
    found = opened(datasets, at).status()
    click.echo(to_json(found.figures()) if as_json else str(found))


@click.command("failures", cls=Headed, short_help="The items that failed, and why.", epilog=exits.HELP)
@datasets
@option("Options", "--by", type=click.Choice(["kind", "error", "host"]), help="Group and count, with an example each.")
@option("Options", "--tracebacks", is_flag=True, help="Show the traceback of each, and what it wrote to stderr.")
@_at
@_limit
@_columns
@_json
def failures(
    datasets: tuple[str, ...], at: str | None, by: Literal["kind", "error", "host"] | None, tracebacks: bool, **shown: Any
) -> None:
    """List the items of DATASET that failed at last: one row an item, its newest attempt.

    \b
    Examples:
      dcompute failures out/flux
      dcompute failures out/flux --by error
      dcompute failures out/flux --tracebacks --limit 1
      dcompute failures out/flux --json | jq -r .item_key | dcompute run flux.py:flux - out/again
    """
    found = opened(datasets, at)
    if by is not None:
        _print(found.failures(by=by), None, shown)
    elif tracebacks:
        _print_tracebacks(found.failures(), FIRST if shown["limit"] is None else shown["limit"])
    else:
        _print(found.failures(), FAILURES, shown)


@click.command("results", cls=Headed, short_help="What the items returned.", epilog=exits.HELP)
@datasets
@_at
@_limit
@_columns
@_json
def results(datasets: tuple[str, ...], at: str | None, **shown: Any) -> None:
    """Show the results in DATASET: item_key, key_kind and the columns that the workload returned.

    \b
    Examples:
      dcompute results out/flux
      dcompute results out/flux --columns item_key,mean --limit 100
      dcompute results out/flux --json > flux.jsonl
      dcompute results out/flux --at 2026-05-31T17:30
      dcompute results lab/north lab/south       several as one; of a key found twice the first counts
    """
    _print(opened(datasets, at).results(), None, shown)


@click.command("attempts", cls=Headed, short_help="Every attempt: outcome, time, memory, host.", epilog=exits.HELP)
@datasets
@_at
@_limit
@_columns
@_json
def attempts(datasets: tuple[str, ...], at: str | None, **shown: Any) -> None:
    """Show the attempts in DATASET: one row an attempt, with its outcome and what it used.

    \b
    Examples:
      dcompute attempts out/flux
      dcompute attempts out/flux --columns item_key,cpu_user,io_wait
      dcompute attempts out/flux --json | jq 'select(.duration > 60)'
    """
    _print(opened(datasets, at).attempts(), ATTEMPTS, shown)


@click.command("cancel", cls=Headed, short_help="Ask the run at work to stop.", epilog=exits.HELP)
@click.argument("dataset")
@option("Options", "--json", "as_json", is_flag=True, help="Write one JSON object.")
def cancel(dataset: str, as_json: bool) -> None:
    """Ask the run that is at work on DATASET to stop.

    Its driver looks once a second, on whatever machine it is: items at work are killed, what is finished is committed,
    and the same line goes on with the rest later. Where no run is at work nothing is done, and the exit code is 0.

    \b
    Example:
      dcompute cancel s3://lab/flux
    """
    run = opened_one(dataset).cancel()
    if as_json:
        click.echo(to_json({"run": run, "requested": run is not None}))
    elif run is None:
        click.echo(f"no run is at work on {dataset}: there is nothing to cancel")
    else:
        click.echo(f"run {run} was asked to stop")


@click.command("explain", cls=Headed, short_help="Why what waits does not go out.", epilog=exits.HELP)
@click.argument("dataset")
@option("Options", "--json", "as_json", is_flag=True, help="Write one JSON object.")
def explain(dataset: str, as_json: bool) -> None:
    """Say why items of the run at work on DATASET wait: for each class how many, and why, and with which runs it shares its cluster.

    The driver says so every few seconds; nothing but the dataset is asked.

    
    Examples:
      dcompute explain s3://lab/flux
      dcompute explain out/flux --json | jq .reasons
    """
    found = opened_one(dataset).explain()
    click.echo(to_json(found.figures()) if as_json else str(found))


@click.command(
    "priority",
    cls=Headed,
    short_help="Let the run at work go before others, or after them.",
    epilog=exits.HELP,
    context_settings={"ignore_unknown_options": True},  # -5 is a priority
)
@click.argument("dataset")
@click.argument("priority")
@option("Options", "--json", "as_json", is_flag=True, help="Write one JSON object.")
def priority(dataset: str, priority: str, as_json: bool) -> None:
    """Give the run that is at work on DATASET another PRIORITY: urgent, high, normal, low or a number; higher goes first.

    What waits goes by it from then on, also against other runs on the same cluster. Where no run is at work nothing is done, and the exit
    code is 0.

    
    Example:
      dcompute priority s3://lab/flux high
    """
    from dcompute.priority import parse_priority

    found = opened_one(dataset)
    try:
        number = parse_priority(priority)
    except UsageError as error:  # its words are those of the option of a run
        raise click.BadParameter(error.message.partition(": ")[2], param_hint="PRIORITY") from None
    run = found.reprioritize(number)
    if as_json:
        click.echo(to_json({"run": run, "requested": run is not None, "priority": number}))
    elif run is None:
        click.echo(f"no run is at work on {dataset}: there is nothing whose priority could change")
    else:
        click.echo(f"run {run} was asked to go by priority {priority}")


COMMANDS = (status, failures, results, attempts, explain, priority, cancel)


def _print(frame: Any, columns: tuple[str, ...] | None, shown: Mapping[str, Any]) -> None:
    """Print a dataframe as the options say."""
    wanted = shown["columns"] or (None if shown["as_json"] else columns)
    found = rows(frame, wanted)
    if shown["as_json"]:
        print_json(found, shown["limit"], click.echo)
        return
    limit = FIRST if shown["limit"] is None else shown["limit"]
    count = print_table(found, limit, click.echo)
    if next(found, None) is not None:
        click.echo(f"... the first {count:,} rows; --limit shows more, --json all", err=True)
    elif not count:
        click.echo("no rows", err=True)


def _print_tracebacks(frame: Any, limit: int) -> None:
    from itertools import islice

    for row in islice(rows(frame, ["item_key", "kind", "error", "message", "traceback", "stderr"]), limit):
        click.secho(f"{row['item_key']}: {row['kind']}, {row['error']}: {row['message']}", bold=True)
        for name in ("traceback", "stderr"):
            for line in (row[name] or "").rstrip().splitlines():
                click.echo(f"  {line}")
