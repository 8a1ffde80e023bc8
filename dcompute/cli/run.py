"""``dcompute run``: from the words of a command line to a run and its exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from dcompute.cli import commands, exits, inputs, target
from dcompute.cli.options import Amount, Assigned, BatchSize, Headed, Limit, Names, Priority, Quantity, in_options, option, unique
from dcompute.cli.scheduler import client_of
from dcompute.cli.tables import to_json
from dcompute.errors import DcomputeError

if TYPE_CHECKING:
    from dcompute.run import Run

#: Options that override what the workload asks for; None where not given.
REQUIREMENTS = ("cpus", "gpus", "memory", "timeout", "retries", "isolation", "version", "group", "idempotent")

_WORK = "What is done"
_NEEDS = "What an item needs (overrides what the workload says)"
_GOING_ON = "Going on, and failures"
_WHERE = "Where"
_BESIDE = "Beside other runs on the same cluster"
_SHOWN = "What is shown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a command line asks for, in the words of ``dc.map``."""

    workload: Any
    inputs: Any
    dataset: str
    options: dict[str, Any]  #: keyword arguments of ``dc.map``


class RunCommand(Headed):
    """``dcompute run``, whose ``--retry-failed`` takes kinds after ``=`` only."""

    bare = (("--retry-failed", "--retry-failed=all"),)


@click.command("run", cls=RunCommand, short_help="Run a function over inputs, or go on with it.", epilog=exits.HELP)
@click.argument("target")
@click.argument("inputs", nargs=-1, required=True)
@click.argument("dataset")
@commands.command_options(_WORK)
@option(_WORK, "--set", "params", type=Assigned(), multiple=True, help="Keyword argument for every item; JSON, else text. Repeatable.")
@option(_WORK, "--key", metavar="COLUMN", help="Column of the table that identifies an item.")
@option(_WORK, "--rows/--files", "rows", default=None, help="Is a single CSV or Parquet file a table of items (default), or one item?")
@option(_WORK, "--types", type=click.Choice(inputs.TYPES), default=None,
        help="What the cells of a CSV file become. exact: numbers, where all cells of a column read back as they are written (007 stays "
             "text), None where empty. text: text. guess: numbers, where they look like it.  [default: exact]")  # fmt: skip
@option(_WORK, "--by", type=click.Choice(["row", "key", "part"]),
        help="INPUTS are datasets; an item is a row of their results, all rows of an item, or a file.")  # fmt: skip
@option(_WORK, "--fingerprint", type=click.Choice(["stat", "content"]),
        help="What tells that a file changed: what its storage says, or its content too.  [default: stat]")  # fmt: skip
@option(_WORK, "--settle", metavar="TIME", help="Leave files for the next run that changed less than this ago, such as 5min.")
@option(_WORK, "--seed", type=int, default=0, show_default=True, help="What dc.current().seed is derived from.")
@option(_WORK, "--name", help="What the dataset calls the workload.  [default: its own name]")
@option(_NEEDS, "--cpus", type=float, help="Cores.")
@option(_NEEDS, "--gpus", type=float, help="GPUs.")
@option(_NEEDS, "--memory", metavar="SIZE", help="Memory of one call, such as 2GiB; more is killed.")
@option(_NEEDS, "--resource", "resources", type=Amount(), multiple=True, help="Named resource that workers declare. Repeatable.")
@option(_NEEDS, "--timeout", metavar="TIME", help='Time of one call, such as 90s or "10 min"; longer is killed.')
@option(_NEEDS, "--retries", type=click.IntRange(min=0), help="More attempts for any failure of the item itself.")
@option(_NEEDS, "--isolation", type=click.Choice(["process", "thread"]), help="Where items execute.")
@option(_NEEDS, "--version", metavar="TEXT", help='Finished items of another version are done again; "code": it follows the code.')
@option(_NEEDS, "--group", type=click.IntRange(min=1), metavar="N", help="Items a call: the function takes a list.")
@option(_NEEDS, "--idempotent/--at-most-once", "idempotent", default=None, help="May an item be executed again after a loss?")
@option(_GOING_ON, "-n", "--dry-run", is_flag=True, help="Show what would be executed and skipped, and why.")
@option(
    _GOING_ON, "--retry-failed", type=Names(), metavar="[=KINDS]", help="Run final failures again: all, or kinds such as timeout,memory."
)
@option(_GOING_ON, "--on-change", type=click.Choice(["rerun", "keep", "error"]), default="rerun", show_default=True,
        help="For finished items whose input, parameters or version changed.")  # fmt: skip
@option(_GOING_ON, "--on-gone", type=click.Choice(["keep", "drop"]), default="keep", show_default=True,
        help="For items of the dataset that are no input any more; drop: hide their results.")  # fmt: skip
@option(_GOING_ON, "--takeover", is_flag=True, help="Fence off another run that is alive on this dataset.")
@option(_GOING_ON, "--errors", type=click.Choice(["record", "raise"]), default="record", show_default=True,
        help="raise: stop at the first final failure.")  # fmt: skip
@option(_GOING_ON, "--max-failures", type=Limit(), help="Stop after so many failed items, or such a share of 100 or more.")
@option(_GOING_ON, "--ignore-failures", is_flag=True, help="Exit with 0 although items failed.")
@option(_WHERE, "--workers", type=click.IntRange(min=1), metavar="N", help="Items at a time on this machine.  [default: its cores]")
@option(_WHERE, "--scheduler", metavar="ADDRESS", envvar="DASK_SCHEDULER_ADDRESS", show_envvar=True,
        help="Dask scheduler (tcp://host:8786), its scheduler file, or a cluster of the settings.")  # fmt: skip
@option(_WHERE, "--modules", type=Names(), multiple=True, help="Local packages to send to the workers. Repeatable.")
@option(_WHERE, "--batch-size", type=BatchSize(), default="auto", show_default=True, help="Items a Dask task.")
@option(_WHERE, "--wait-for-workers", metavar="TIME", help="Wait so long for a worker that can do the work, where none is there.")
@option(_BESIDE, "--priority", type=Priority(), help="Higher goes first: urgent, high, normal, low or a number.  [default: the workload's]")
@option(_BESIDE, "--weight", type=float, default=1.0, show_default=True, help="Slots of this run, among those of its priority.")
@option(_BESIDE, "--ageing", metavar="TIME", help="What waits so long counts one priority higher.  [default: never]")
@option(_BESIDE, "--limit", "limits", type=Quantity(), multiple=True,
        help="How much there is of what the workload uses, such as licence=3 or api=20/s. Repeatable.")  # fmt: skip
@option(_SHOWN, "-q", "--quiet", is_flag=True, help="No progress and no summary; errors only.")
@option(_SHOWN, "--progress", type=click.Choice(["auto", "bar", "log"]), help="How progress is shown.  [default: dcompute.progress]")
@option(_SHOWN, "--json", "as_json", is_flag=True, help="Write the summary to stdout as JSON.")
@click.pass_context
def run(ctx: click.Context, /, **given: Any) -> None:
    """Run TARGET for every item of INPUTS, and commit the outcomes to DATASET.

    The same line again goes on: items that succeeded are skipped.

    \b
    TARGET   pkg.module:name or file.py:name: a function, a class or a workload;
             with --command a program with its arguments
    INPUTS   one or more of
               paths, globs and URLs     an item a file: 'raw/*.csv' 's3://raw/**/*.nc'
               a CSV or Parquet file     an item a row; columns are keyword arguments
               -                         an item a line of standard input
               datasets, with --by       an item a row, a key or a part of their results
    DATASET  a folder or URL, made if need be

    \b
    Examples:
      dcompute run flux.py:flux 'raw/*.csv' out/flux --set window=1800 --memory 2GiB
      dcompute run lab.sim:simulate grid.csv out/sim --key id --timeout "10 min" --retries 2
      find . -name '*.wav' | dcompute run audio.py:features - out/features --workers 4
      dcompute run flux.py:flux 'raw/*.csv' out/flux -n                       what would be done
      dcompute run flux.py:flux 'raw/*.csv' out/flux --retry-failed=timeout --timeout 1h
      dcompute run flux.py:flux 's3://raw/*.csv' s3://lab/flux --scheduler tcp://head:8786
      dcompute run --command 'sort -n {input} -o {output}' --output 'sorted/{stem}.txt' 'raw/*.txt' out/sorted
    """
    import dcompute as dc

    size_cluster(given)
    order = order_of(given)
    if given["dry_run"]:
        click.echo(in_options(str(dc.preview(order.workload, order.inputs, order.dataset, **order.options))))
        return
    started = dc.map(order.workload, order.inputs, order.dataset, **order.options)
    try:
        started.wait(progress="quiet" if given["quiet"] else given["progress"])
    except DcomputeError:
        if started.summary().executed and not given["quiet"]:
            click.echo(in_options(str(started.summary())), err=True)
        raise
    _show(started, given)
    ctx.exit(exits.of_summary(started.summary(), ignore_failures=given["ignore_failures"]))


def order_of(given: dict[str, Any]) -> Order:
    """What the options ask for."""
    if given["command"]:
        workload = commands.workload_of(given)
    else:
        commands.refuse_alone(given)
        workload = target.load(given["target"])
    wanted = {name: given[name] for name in REQUIREMENTS if given[name] is not None}
    if given["resources"]:
        wanted["resources"] = unique(given["resources"], "--resource")
    if wanted:
        import dcompute as dc

        workload = dc.Workload.of(workload).options(**wanted)
    return Order(
        workload=workload,
        inputs=inputs.of_words(
            given["inputs"],
            rows=given["rows"],
            types=given["types"],
            by=given["by"],
            about_files={name: given[name] for name in ("fingerprint", "settle") if given[name] is not None},
        ),
        dataset=given["dataset"],
        options=_options(given),
    )


def _options(given: dict[str, Any]) -> dict[str, Any]:
    same = (
        "key", "batch_size", "errors", "max_failures", "on_change", "on_gone", "takeover", "seed", "name", "priority", "weight", "ageing",
        "wait_for_workers",
    )  # fmt: skip
    return {
        **{name: given[name] for name in same},
        "limits": unique(given["limits"], "--limit") or None,
        "params": unique(given["params"], "--set") or None,
        "client": client_of(given["scheduler"]),
        "retry_failed": _retried(given["retry_failed"]),
        "modules": tuple(name for names in given["modules"] for name in names),
    }


def _retried(kinds: tuple[str, ...] | None) -> bool | str | tuple[str, ...]:
    if kinds is None:
        return False
    if kinds in {("all",), ("never",)}:
        return True if kinds == ("all",) else "never"
    return kinds


def size_cluster(given: dict[str, Any]) -> None:
    """Put into Dask's configuration what is a setting, for the life of this process."""
    import dask

    if given["workers"] is None:
        return
    if given["scheduler"]:
        raise click.UsageError("--workers is for the cluster that is started here; with --scheduler that cluster's own count")
    dask.config.set({"dcompute.local.workers": 1, "dcompute.local.threads": given["workers"]})


def _show(started: Run, given: dict[str, Any]) -> None:
    from dataclasses import asdict

    if given["as_json"]:
        click.echo(to_json(asdict(started.summary())))
    elif not given["quiet"]:
        click.echo(in_options(str(started.summary())))
