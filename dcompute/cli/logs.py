"""``dcompute logs``: what items printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dcompute.cli import exits
from dcompute.cli.options import Headed, option
from dcompute.cli.reading import opened_one
from dcompute.cli.tables import to_json
from dcompute.records import STREAMS

if TYPE_CHECKING:
    from dcompute.dataset.logs import Printed


@click.command("logs", cls=Headed, short_help="What the items printed.", epilog=exits.HELP)
@click.argument("dataset")
@option("Options", "--item", metavar="KEY", help="Of this item only.")
@option("Options", "--stream", type=click.Choice(STREAMS), help="Of this stream only.  [default: both]")
@option("Options", "--json", "as_json", is_flag=True, help="Write JSON, an object a line: an attempt and a stream each.")
def logs(dataset: str, item: str | None, stream: str | None, as_json: bool) -> None:
    """Show what the items of DATASET printed: one block for each attempt and stream, in the order of commits.

    \b
    Examples:
      dcompute logs out/clips
      dcompute logs out/clips --item raw/a.mp4 --stream stderr
      dcompute logs out/clips --json | jq -r 'select(.attempt > 1) | .text'
    """
    found = opened_one(dataset).logs(item, streams=STREAMS if stream is None else (stream,))
    count = 0
    for one in found:
        count += 1
        if as_json:
            click.echo(to_json(one._asdict()))
        else:
            _show(one)
    if not count and not as_json:
        click.echo("nothing was printed" if item is None else f"item {item!r} printed nothing, or is no item", err=True)


def _show(one: Printed) -> None:
    click.secho(f"{one.item_key}, attempt {one.attempt}, {one.stream}", bold=True)
    for line in one.text.rstrip("\n").split("\n"):
        click.echo(f"  {line}")


COMMAND = logs
