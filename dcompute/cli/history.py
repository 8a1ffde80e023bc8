"""The command that tells what happened to a dataset."""

from __future__ import annotations

from typing import Any

import click

from dcompute.cli import exits
from dcompute.cli.options import Headed, option
from dcompute.cli.reading import opened_one
from dcompute.cli.tables import print_json, print_table, rows

#: Entries that a table shows where nothing is said.
LAST = 20


@click.command("history", cls=Headed, short_help="What happened to a dataset, commit by commit.", epilog=exits.HELP)
@click.argument("dataset")
@option(
    "Options", "--limit", type=click.IntRange(min=0), help=f"Only so many entries, the newest ones.  [default: {LAST}; all with --json]"
)
@option("Options", "--json", "as_json", is_flag=True, help="Write JSON, an object a line.")
def history(dataset: str, limit: int | None, as_json: bool) -> None:
    """Tell what each entry of the log of DATASET did: the number, when, by which run, and how many items, rows and parts.

    A number or a time of it is what `--at` of `status`, `results`, `attempts` and `failures` takes.

    \b
    Examples:
      dcompute history out/flux
      dcompute history out/flux --limit 200
      dcompute history out/flux --json | jq 'select(.hidden > 0)'
    """
    frame = opened_one(dataset).history()
    _print(frame, LAST if limit is None and not as_json else limit, as_json)


def _print(frame: Any, limit: int | None, as_json: bool) -> None:
    newest = frame if limit is None else frame.tail(limit)
    if as_json:
        print_json(rows(newest), None, click.echo)
        return
    shown = newest.assign(time=newest["time"].dt.floor("s").dt.strftime("%Y-%m-%d %H:%M:%S"))
    print_table(rows(shown), len(shown), click.echo)
    if len(shown) < len(frame):
        click.echo(f"the last {len(shown):,} of {len(frame):,} entries, times in UTC; --limit shows more, --json all", err=True)
    elif not len(shown):
        click.echo("no entries", err=True)


COMMANDS = (history,)
