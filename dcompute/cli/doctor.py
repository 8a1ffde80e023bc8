"""``dcompute doctor``: what is wrong with a cluster or a storage, before a run finds out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dcompute.cli import exits
from dcompute.cli.options import Headed, option
from dcompute.cli.tables import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dcompute.doctor.findings import Finding

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "failure": ("FAILURE", "red")}


@click.command("doctor", cls=Headed, short_help="Look for what is wrong with a cluster or a storage.", epilog=exits.HELP)
@click.argument("where", required=False, metavar="[ADDRESS|PROFILE]")
@click.argument("dataset", required=False)
@option("Options", "--tls", "folder", metavar="FOLDER", help="Certificates, as `dcompute certs` makes them.")
@option("Options", "--plain", is_flag=True, help="Speak to another machine without encryption.")
@option("Options", "--timeout", type=click.FloatRange(min=1), default=30, show_default=True, help="Seconds that each step may take.")
@option("Options", "--json", "as_json", is_flag=True, help="Write one JSON object.")
@click.pass_context
def doctor(
    ctx: click.Context, where: str | None, dataset: str | None, folder: str | None, plain: bool, timeout: float, as_json: bool
) -> None:
    """Check versions, imports, resources and clocks of a cluster's workers, and a storage from here and from there; say what to do.

    Nothing is left on the storage or the scheduler. What is not named is not checked: without an address this machine alone, without
    DATASET no storage. It ends with 3 where a check failed.

    \b
    Examples:
      dcompute doctor tls://head:8786 s3://lab/flux --tls ~/certs/lab
      dcompute doctor lab
      dcompute doctor out/flux
    """
    from dcompute.doctor.examining import examine

    if where is not None and dataset is None and not names_cluster(where):
        where, dataset = None, where
    overrides = {name: value for name, value in (("tls", folder), ("plain", plain)) if value}
    found: list[Finding] = []
    for finding in examine(where, dataset, seconds=timeout, overrides=overrides):
        found.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        click.echo(to_json({"ok": not failed(found), "findings": [asdict(finding) for finding in found]}))
    ctx.exit(exits.Exit.BROKEN if failed(found) else exits.Exit.OK)


def names_cluster(text: str) -> bool:
    """Whether a single argument is a cluster and not a dataset."""
    from dcompute.clusters.addresses import looks_like_address
    from dcompute.clusters.profiles import names

    if text in names():
        return True
    protocol, separator, _ = text.partition("://")
    if separator:
        return protocol in ("tcp", "tls", "ws", "wss", "ucx", "inproc")
    return looks_like_address(text) or (text.endswith(".json") and Path(text).is_file())


def failed(found: Sequence[Finding]) -> bool:
    """Whether any check failed."""
    return any(finding.status == "failure" for finding in found)


def _show(finding: Finding) -> None:
    mark, colour = _MARKS[finding.status]
    click.echo(f"{click.style(f'{mark:<8}', fg=colour)} {finding.check:<10} {finding.where}: {finding.text}")
    if finding.todo:
        click.echo(f"{'':<8} {'':<10} -> {finding.todo}")


COMMANDS = (doctor,)
