"""``dcompute logs``: what items printed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from dcompute.cli import exits
from dcompute.cli.options import Headed, option
from dcompute.cli.reading import opened_one
from dcompute.cli.tables import to_json
from dcompute.records import STREAMS

if TYPE_CHECKING:
    from dcompute.dataset.logs import Printed

#: Seconds between two looks for what is new.
_EVERY = 0.5


@click.command("logs", cls=Headed, short_help="What the items printed.", epilog=exits.HELP)
@click.argument("dataset")
@option("Options", "--item", metavar="KEY", help="Of this item only.")
@option("Options", "--stream", type=click.Choice(STREAMS), help="Of this stream only.  [default: both]")
@option("Options", "-f", "--follow", "follows", is_flag=True,
        help="What the items at work print from now on, until the run ends; some of it may be lost.")  # fmt: skip
@option("Options", "--json", "as_json", is_flag=True, help="Write JSON, an object a line: an attempt and a stream each.")
def logs(dataset: str, item: str | None, stream: str | None, follows: bool, as_json: bool) -> None:
    """Show what the items of DATASET printed: one block for each attempt and stream, in the order of commits.

    With -f the items that are at work: the driver of the run, on whatever machine it is, passes on what they print.

    \b
    Examples:
      dcompute logs out/clips
      dcompute logs out/clips --item raw/a.mp4 --stream stderr
      dcompute logs out/clips -f
      dcompute logs out/clips --json | jq -r 'select(.attempt > 1) | .text'
    """
    streams = STREAMS if stream is None else (stream,)
    if follows:
        _follow(dataset, item, streams, as_json=as_json)
        return
    found = opened_one(dataset).logs(item, streams=streams)
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


def _follow(url: str, item: str | None, streams: Sequence[str], *, as_json: bool) -> None:
    from dcompute.dataset.following import follow

    found = follow(opened_one(url), wait=lambda: time.sleep(_EVERY))
    if found is None:
        click.echo(f"no run is at work on {url}: there is nothing to follow", err=True)
        return
    for piece in found:
        for stream in streams if item is None or piece["key"] == item else ():
            if text := piece[stream]:
                _show_piece(piece, stream, text, as_json=as_json)


def _show_piece(piece: dict[str, Any], stream: str, text: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(to_json({"item_key": piece["key"], "host": piece["host"], "stream": stream, "text": text}))
        return
    for line in text.rstrip("\n").split("\n"):
        click.echo(f"{click.style(piece['key'], bold=True)}: {line}")


COMMAND = logs
