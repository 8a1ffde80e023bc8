"""``dcompute plan``: what ``dcompute run`` with the same arguments would do, why, and what it would cost in time."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

import click

from dcompute.cli import exits
from dcompute.cli.options import in_options
from dcompute.cli.run import RunCommand, order_of, size_cluster
from dcompute.cli.run import run as run_command
from dcompute.cli.tables import to_json

#: Options of ``run`` that are about a run under way.
_OF_A_RUN = frozenset({"dry_run", "ignore_failures", "quiet", "progress"})


def plan(**given: Any) -> None:
    """What `dcompute run` with the same arguments would do and why, and how long it would take; nothing is executed or written.

    The time is judged by the items that ended last in DATASET, and by the slots of the cluster that the run would use.

    \b
    Examples:
      dcompute plan flux.py:flux 'raw/*.csv' out/flux --set window=1800
      dcompute plan flux.py:flux 'raw/*.csv' out/flux --on-gone drop --json
      dcompute plan flux.py:flux 's3://raw/*.csv' s3://lab/flux --scheduler tcp://head:8786
    """
    import dcompute as dc

    size_cluster(given)
    order = order_of(given)
    found = dc.preview(order.workload, order.inputs, order.dataset, **order.options)
    if given["as_json"]:
        click.echo(to_json({**asdict(found), "cost": {**asdict(found.cost), "wall_seconds": found.cost.wall_seconds}}))
    else:
        click.echo(in_options(str(found)))


def _as_of_run(parameter: click.Parameter) -> click.Parameter:
    """The parameter, unseen where it means nothing here: any line of ``run`` can be asked about."""
    if parameter.name not in {*_OF_A_RUN, "as_json"} or not isinstance(parameter, click.Option):
        return parameter
    own = copy.copy(parameter)
    own.hidden = parameter.name != "as_json"
    own.help = "Write it to stdout as JSON."
    return own


COMMAND = RunCommand(
    "plan",
    params=list(map(_as_of_run, run_command.params)),
    callback=plan,
    help=plan.__doc__,
    short_help="What a run would do, why, and how long it would take.",
    epilog=exits.HELP,
)
