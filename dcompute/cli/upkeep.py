"""Commands that look after a dataset: compaction, vacuum, deletion, archives. None needs a cluster."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from dcompute.cli import exits
from dcompute.cli.asking import refuse_unless_yes
from dcompute.cli.options import Headed, option
from dcompute.cli.reading import opened_one
from dcompute.cli.scheduler import connected
from dcompute.cli.tables import to_json

_json = option("Options", "--json", "as_json", is_flag=True, help="Write one JSON object.")


@click.command("compact", cls=Headed, short_help="Few large results files in place of many small ones.", epilog=exits.HELP)
@click.argument("dataset")
@option("Options", "--all", "whole", is_flag=True, help="Make each file such that it alone says what counts.")
@option("Options", "--sort-by", metavar="COLUMN", help="Sort the rows of each file by a column.")
@option("Options", "--scheduler", metavar="ADDRESS", help="Let the workers of this Dask scheduler do it.")
@_json
def compact(dataset: str, whole: bool, sort_by: str | None, scheduler: str | None, as_json: bool) -> None:
    """Merge small results files of DATASET into files of about 128 MB, where that pays.

    Runs and readers may be at work. The old files stay until `dcompute vacuum` removes them.

    \b
    Examples:
      dcompute compact out/flux
      dcompute compact out/flux --sort-by item_key
      dcompute compact s3://lab/flux --all --scheduler tcp://10.0.0.1:8786
    """
    opened = opened_one(dataset)
    with connected(scheduler) as client:
        done = opened.compact(all=whole, sort_by=sort_by, client=client)
    _say(done, as_json)


@click.command("vacuum", cls=Headed, short_help="Remove files that do not count any more.", epilog=exits.HELP)
@click.argument("dataset")
@option("Options", "--retention", default="7 days", show_default=True, help="Keep what readers may still need for so long.")
@option("Options", "-n", "--dry-run", is_flag=True, help="Only list the files.")
@_json
def vacuum(dataset: str, retention: str, dry_run: bool, as_json: bool) -> None:
    """Remove files of DATASET that do not count any more, as compaction and lost executions leave them.

    A run may be at work. Readers that began longer ago than the retention may find files gone.

    \b
    Examples:
      dcompute vacuum out/flux
      dcompute vacuum out/flux --dry-run
      dcompute vacuum out/flux --retention 0      after `compact --all` the files in results/ are the truth
    """
    done = opened_one(dataset).vacuum(retention, dry_run=dry_run)
    if dry_run and not as_json:
        for name in done.removed:
            click.echo(name)
    _say(done, as_json)


@click.command("delete", cls=Headed, short_help="Make items count as never executed.", epilog=exits.HELP)
@click.argument("dataset")
@option("Options", "--key", "keys", multiple=True, metavar="KEY", help="Key of an item, as item_key has it; may be repeated.")
@option("Options", "--kind", metavar="KIND", help="Kind of these keys, as key_kind has it, where one text is there with several.")
@option("Options", "--run", "run_id", metavar="ID", help="The items whose outcome is this run's.")
@option("Options", "-y", "--yes", is_flag=True, help="Do not ask.")
@_json
def delete(dataset: str, keys: tuple[str, ...], kind: str | None, run_id: str | None, yes: bool, as_json: bool) -> None:
    """Delete items of DATASET, by their keys or by the run that did them: they count as never executed.

    No run may be at work. The same line executes them again, where their inputs are still there. `dcompute compact --all`, then
    `dcompute vacuum`, takes their results off the storage.

    \b
    Examples:
      dcompute delete out/flux --key raw/a.csv --key raw/b.csv
      dcompute delete out/flux --run 20260101T120000-1a2b3c4d --yes
    """
    if bool(keys) == bool(run_id):
        raise click.UsageError("say what to delete: --key, once or more, or --run")
    opened = opened_one(dataset)
    if not yes:
        what = f"{len(keys):,} item{'s' if len(keys) > 1 else ''}" if keys else f"what run {run_id} did"
        refuse_unless_yes(f"Delete {what} from {opened.url}?")
    named: Any = [(key, kind) for key in keys] if kind is not None else list(keys)
    _say(opened.delete(named or None, run=run_id), as_json)


@click.command("rename", cls=Headed, short_help="Give columns of the results other names.", epilog=exits.HELP)
@click.argument("dataset")
@click.argument("columns", metavar="OLD=NEW...", nargs=-1, required=True)
@_json
def rename(dataset: str, columns: tuple[str, ...], as_json: bool) -> None:
    """Give columns of DATASET other names, in all that was written so far.

    No run may be at work. No file is written again. What a later run returns under an old name is a column of its own: change the workload
    too, or say renames= there, which does both. All columns are renamed at once, so that two may change names.

    \b
    Examples:
      dcompute rename out/flux temp=temperature
      dcompute rename out/flux x=y y=x
    """
    _say(opened_one(dataset).rename(_names(columns)), as_json)


@click.command("archive", cls=Headed, short_help="Copy a dataset to another place.", epilog=exits.HELP)
@click.argument("dataset")
@click.argument("url")
@_json
def archive(dataset: str, url: str, as_json: bool) -> None:
    """Copy what counts in DATASET now to URL, where it is a dataset of its own: read it there, or go on with it.

    A run may be at work. What it adds meanwhile is not in the copy. Where the copy is interrupted, the same line goes on with it. Reports
    are not copied: they are computed again from the copy.

    \b
    Example:
      dcompute archive out/flux s3://archive/flux-2026
    """
    _say(opened_one(dataset).copy(url), as_json)


@click.command("restore", cls=Headed, short_help="Copy a dataset back from an archive.", epilog=exits.HELP)
@click.argument("url")
@click.argument("dataset")
@_json
def restore(url: str, dataset: str, as_json: bool) -> None:
    """Copy the dataset that was archived at URL to DATASET, where there is none.

    \b
    Example:
      dcompute restore s3://archive/flux-2026 out/flux
    """
    _say(opened_one(url).copy(dataset), as_json)


COMMANDS = (compact, vacuum, delete, rename, archive, restore)


def _names(columns: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for column in columns:
        old, equals, new = column.partition("=")
        if not equals:
            raise click.UsageError(f"{column!r} is not OLD=NEW, such as temp=temperature")
        if old in found:
            raise click.UsageError(f"{old!r} was given two names")
        found[old] = new
    return found


def _say(done: Any, as_json: bool) -> None:
    click.echo(to_json(asdict(done)) if as_json else str(done))
