"""The group ``dcompute quarantine``: what did not pass a check, and what becomes of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dcompute.cli import exits
from dcompute.cli.asking import refuse_unless_yes
from dcompute.cli.options import Headed, Names, option
from dcompute.cli.reading import datasets, opened
from dcompute.cli.tables import print_json, print_table, rows, to_json
from dcompute.records import CHECK_NAMES

if TYPE_CHECKING:
    from dcompute.dataset import Dataset

#: Rows that a table shows where nothing is said, and its columns.
FIRST, COLUMNS = 20, ("item_key", "source", "check", "reason", "record")

_keys = option("Options", "--key", "keys", multiple=True, metavar="KEY", help="Of the item with this key; may be repeated.")
_kind = option("Options", "--kind", metavar="KIND", help="Kind of these keys, as key_kind has it.")
_check = option("Options", "--check", metavar="NAME", help="What did not pass this check.")
_all = option("Options", "--all", "whole", is_flag=True, help="All of it.")
_yes = option("Options", "-y", "--yes", is_flag=True, help="Do not ask.")
_json = option("Options", "--json", "as_json", is_flag=True, help="Write one JSON object.")


@click.group("quarantine", short_help="What did not pass a check: list, release or drop it.", epilog=exits.HELP)
def quarantine() -> None:
    """Look at rows and inputs that did not pass a check, and decide what becomes of them."""


@quarantine.command("list", cls=Headed, short_help="What did not pass, and why.", epilog=exits.HELP)
@datasets
@_keys
@_check
@option("Options", "--at", metavar="ENTRY|TIME", help="As it was: a number of `dcompute history`, or a time.")
@option("Options", "--limit", type=click.IntRange(min=0), help=f"At most so many rows.  [default: {FIRST}; all with --json]")
@option("Options", "--columns", type=Names(), help="Show these columns, in this order.")
@option("Options", "--json", "as_json", is_flag=True, help="Write JSON, an object a line, with all columns and full values.")
def show(datasets: tuple[str, ...], keys: tuple[str, ...], check: str | None, at: str | None, **shown: Any) -> None:
    """List the records in the quarantine of DATASET: rows of results, and inputs.

    \b
    Examples:
      dcompute quarantine list out/flux
      dcompute quarantine list out/flux --check positive --limit 100
      dcompute quarantine list out/flux --json | jq -r .record
    """
    frame = opened(datasets, at).quarantine(filters=[("item_key", "in", list(keys))] if keys else None)
    as_json, limit = shown["as_json"], shown["limit"]
    columns = shown["columns"] or (None if as_json else COLUMNS)
    needed = columns if columns is None or check is None else list(dict.fromkeys([*columns, "check"]))
    found = (row for row in rows(frame, needed) if check is None or check in row["check"].split(CHECK_NAMES))
    found = found if columns is None else ({name: row[name] for name in columns} for row in found)
    if as_json:
        print_json(found, limit, click.echo)
        return
    count = print_table(found, FIRST if limit is None else limit, click.echo)
    if next(found, None) is not None:
        click.echo(f"... the first {count:,} rows; --limit shows more, --json all", err=True)
    elif not count:
        click.echo("no rows", err=True)


@quarantine.command("release", cls=Headed, short_help="Make what did not pass count.", epilog=exits.HELP)
@click.argument("dataset")
@_keys
@_kind
@_check
@_all
@_yes
@_json
def release(dataset: str, keys: tuple[str, ...], kind: str | None, check: str | None, whole: bool, yes: bool, as_json: bool) -> None:
    """Make records in the quarantine of DATASET count: rows are in the results from now on, inputs are executed unchecked.

    A run may be at work. Inputs are executed when the same line runs again.

    \b
    Examples:
      dcompute quarantine release out/flux --key raw/a.csv
      dcompute quarantine release out/flux --check positive --yes
    """
    found, chosen = _chosen("Release", dataset, keys, kind, check, whole=whole, yes=yes)
    _say(found.release(**chosen), as_json)


@quarantine.command("drop", cls=Headed, short_help="Take it out of the quarantine for good.", epilog=exits.HELP)
@click.argument("dataset")
@_keys
@_kind
@_check
@_all
@_yes
@_json
def drop(dataset: str, keys: tuple[str, ...], kind: str | None, check: str | None, whole: bool, yes: bool, as_json: bool) -> None:
    """Drop records from the quarantine of DATASET. Results and attempts stay as they are; a later `dcompute vacuum` removes the files.

    \b
    Examples:
      dcompute quarantine drop out/flux --key raw/a.csv
      dcompute quarantine drop out/flux --all --yes
    """
    found, chosen = _chosen("Drop", dataset, keys, kind, check, whole=whole, yes=yes)
    _say(found.drop_quarantined(**chosen), as_json)


COMMANDS = (quarantine,)


def _chosen(
    verb: str, dataset: str, keys: tuple[str, ...], kind: str | None, check: str | None, *, whole: bool, yes: bool
) -> tuple[Dataset, dict[str, Any]]:
    """The dataset, and which records: what cannot be undone is asked for."""
    from dcompute.dataset.status import open as open_one

    if whole is bool(keys or check):
        raise click.UsageError("say which records: --key, --check, or --all")
    found = open_one(dataset)
    if not yes:
        words = [f"of {len(keys):,} item{'s' if len(keys) > 1 else ''}"] if keys else []
        words += [f"that did not pass {check!r}"] if check else []
        refuse_unless_yes(f"{verb} {'all records' if whole else ' '.join(['records', *words])} in the quarantine of {found.url}?")
    named: Any = [(key, kind) for key in keys] if kind is not None else list(keys)
    return found, {"keys": named or None, "check": check, "all": whole}


def _say(done: Any, as_json: bool) -> None:
    click.echo(to_json(asdict(done)) if as_json else str(done))
