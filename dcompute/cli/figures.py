"""Commands of ``dcompute report`` for the built-in reports of a dataset, as tables and as one HTML page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from dcompute.cli import exits
from dcompute.cli.options import Headed, option, unique
from dcompute.cli.reading import datasets, opened
from dcompute.cli.scheduler import connected
from dcompute.cli.tables import print_json, print_table, rows
from dcompute.errors import UsageError

#: Columns that a table shows; JSON has all.
SHOWN: dict[str, tuple[str, ...]] = {
    "failures": ("by", "name", "attempts", "share", "item_key", "message"),
    "resources": ("workload", "host", "attempts", "cores", "bottleneck", "duration_p50", "memory_p95", "memory_max", "slots", "busy"),
    "history": ("run", "began", "seconds", "attempts", "failed", "rate", "slots", "busy", "item_seconds", "against_before"),
}

_run = option("Options", "--run", metavar="ID", help="Of this run only; `last` and `all` too.")
_scheduler = option("Options", "--scheduler", metavar="ADDRESS", help="Count on the workers of this Dask scheduler.")
_json = option("Options", "--json", "as_json", is_flag=True, help="Write JSON, an object a line, with all columns.")


def _common(name: str, short: str) -> Callable[[Callable[..., Any]], click.Command]:
    """What all of these commands have."""

    def made(function: Callable[..., Any]) -> click.Command:
        for add in (_json, _scheduler, _run):
            function = add(function)
        return click.command(name, cls=Headed, short_help=short, epilog=exits.HELP)(datasets(function))

    return made


@_common("summary", "What the newest run did, in short.")
def summary(datasets: tuple[str, ...], **given: Any) -> None:
    """Say what the newest run of DATASET did: items, rates, where the time of the slots went, what failed.

    \b
    Examples:
      dcompute report summary out/flux
      dcompute report summary out/flux --run all --json | jq .busy
      dcompute report summary 'lab/*' --run all
    """
    _show("summary", datasets, given, {})


@_common("throughput", "How much was done when.")
@option("Options", "--bins", type=click.IntRange(1, 512), help="At most so many rows a run.")
def throughput(datasets: tuple[str, ...], bins: int | None, **given: Any) -> None:
    """Tell the rate and the slots at work of DATASET over time, run by run.

    \b
    Example:
      dcompute report throughput out/flux --run last --bins 20
    """
    _show("throughput", datasets, given, {"bins": bins})


@_common("failures", "Failures by kind, exception and host.")
@option("Options", "--by", type=click.Choice(["kind", "error", "host"]), help="By this only.")
def failures(datasets: tuple[str, ...], by: str | None, **given: Any) -> None:
    """Count the attempts of DATASET that failed, by kind, exception and host, with an example each.

    \b
    Example:
      dcompute report failures out/flux --by host
    """
    _show("failures", datasets, given, {"by": by})


@_common("resources", "What attempts used, what held them up, and advice.")
@option("Options", "--memory", metavar="SIZE", help="What an item asks for, such as '2 GiB': it is compared with what was used.")
@option("Options", "--cpus", type=click.FloatRange(min=0, min_open=True), help="What an item asks for.  [default: 1]")
def resources(datasets: tuple[str, ...], memory: str | None, cpus: float | None, **given: Any) -> None:
    """Say what the attempts of DATASET used and what held them up, by workload version and host, with advice.

    \b
    Example:
      dcompute report resources out/flux --memory '2 GiB'
    """
    _show("resources", datasets, given, {"memory": memory, "cpus": cpus})


@_common("scaling", "What more slots, workers or hosts gave.")
@option("Options", "--by", type=click.Choice(["slots", "workers", "hosts"]), help="What counts as an instance.  [default: slots]")
def scaling(datasets: tuple[str, ...], by: str | None, **given: Any) -> None:
    """Tell how the rate of DATASET grew with the slots, workers or hosts at work, and where it bends.

    \b
    Example:
      dcompute report scaling out/flux --by workers
    """
    _show("scaling", datasets, given, {"by": by})


@_common("history", "All runs, one after another.")
def history(datasets: tuple[str, ...], **given: Any) -> None:
    """Tell what each run of DATASET did and used.

    \b
    Example:
      dcompute report history out/flux
    """
    _show("history", datasets, given, {})


@_common("cost", "What runs cost, by the price of a node's hour.")
@option("Options", "--price", "prices", multiple=True, required=True, metavar="PRICE|HOST=PRICE",
        help="Of an hour of a node. HOST may have wildcards; the first that fits counts, a price without HOST for all others.")  # fmt: skip
def cost(datasets: tuple[str, ...], prices: tuple[str, ...], **given: Any) -> None:
    """Tell what each run of DATASET cost: hours of its hosts, times their price.

    \b
    Examples:
      dcompute report cost out/flux --price 0.8
      dcompute report cost out/flux --price 'gpu-*=3.2' --price 0.8
    """
    _show("cost", datasets, given, {"price": _priced(prices)})


@click.command("html", cls=Headed, short_help="All of them as one HTML page, with plots.", epilog=exits.HELP)
@datasets
@option("Options", "-o", "--output", metavar="FILE", default="report.html", show_default=True, help="The file to write.")
@_scheduler
def html(datasets: tuple[str, ...], output: str, scheduler: str | None) -> None:
    """Write one HTML file about DATASET that needs no network: slots, rate, durations, failures, resources, scaling, history.

    It needs Bokeh: pip install "dcompute[report]".

    \b
    Example:
      dcompute report html s3://lab/flux -o flux.html
    """
    from dcompute.report.page import page

    path = Path(output)
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"--output {output}: {'that is a folder' if path.is_dir() else f'there is no folder {path.parent}'}: name a file")
    with connected(scheduler):
        text = page(opened(datasets))
    _write_whole(path, text)
    click.echo(f"{path}: {len(text) / 1e6:.1f} MB")


COMMANDS = (summary, throughput, failures, resources, scaling, history, cost, html)


def _show(name: str, datasets: tuple[str, ...], given: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    chosen = {option: value for option, value in options.items() if value is not None}
    with connected(given["scheduler"]):
        frame = opened(datasets).report(name, run=given["run"], **chosen)
    if given["as_json"]:
        print_json(rows(frame), None, click.echo)
    elif not len(frame):
        click.echo("no rows", err=True)
    elif name == "summary":
        _print_one(next(rows(frame)))
    else:
        print_table(rows(frame, SHOWN.get(name)), len(frame), click.echo)
        _print_advice(frame)


def _print_one(row: Mapping[str, Any]) -> None:
    pairs = [{"figure": name.replace("_", " "), "value": value} for name, value in row.items() if value is not None and value != ""]
    print_table(iter([pair | {"value": _told(pair["value"])} for pair in pairs]), len(pairs), click.echo)


def _told(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _print_advice(frame: Any) -> None:
    if "advice" not in frame.columns:
        return
    for row in rows(frame, ["workload", "host", "advice"]):
        for line in (row["advice"] or "").split("; ") if row["advice"] else ():
            click.echo(f"{row['workload']} on {row['host']}: {line}")


def _priced(prices: tuple[str, ...]) -> dict[str, float]:
    pairs = [tuple(text.rpartition("=")[::2]) for text in prices]
    try:
        found = unique(((pattern or "*", float(price)) for pattern, price in pairs), "--price")
    except ValueError:
        raise click.UsageError(f"--price {' '.join(prices)}: give a number, or HOST=NUMBER") from None
    # the price of all hosts is that of those without one of their own, wherever it stands
    return dict(sorted(found.items(), key=lambda one: one[0] == "*"))


def _write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"--output {path} cannot be written: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
