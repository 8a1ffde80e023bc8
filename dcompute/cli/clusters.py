"""Commands for clusters: certificates, and a scheduler with its workers."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import click

from dcompute.cli import exits
from dcompute.cli.asking import refuse_unless_yes
from dcompute.cli.options import Headed, option


@click.command("certs", cls=Headed, short_help="Make certificates for a cluster.", epilog=exits.HELP)
@click.argument("folder", type=click.Path(path_type=Path))
@option("Options", "--host", "hosts", multiple=True, metavar="NAME", help="Name or address of a host of scheduler or workers. Repeatable.")
@option("Options", "--days", type=click.IntRange(1, 3650), default=825, show_default=True, help="How long they are good.")
@option("Options", "--force", is_flag=True, help="Replace those that are there.")
def certs(folder: Path, hosts: tuple[str, ...], days: int, force: bool) -> None:
    """Make an authority of the cluster's own in FOLDER, certificates for its scheduler and workers, and one for its users.

    Both sides show one: who has none of this authority is refused. Keys are for their owner's eyes only. dask.yaml is Dask's configuration
    with them.

    \b
    Examples:
      dcompute certs ~/certs/lab --host head --host 10.0.0.1
      dcompute cluster start --tls ~/certs/lab
      dask worker --tls-ca-file ca.pem --tls-cert node.pem --tls-key node-key.pem tls://head:8786
    """
    from dcompute.clusters import tls

    files = tls.write(folder, hosts, force=force, days=days)
    place = files[0].parent
    click.echo(f"{place} has:")
    for names, who in (
        (f"{tls.CA}, {tls.NODE}, {tls.NODE_KEY}", "for each host of scheduler and workers"),
        (f"{tls.CA}, {tls.CLIENT}, {tls.CLIENT_KEY}", "for each user"),
        (tls.CA_KEY, "for nobody: who has it can make more"),
        (tls.CONFIGURATION, "Dask's configuration with them, for ~/.config/dask/"),
    ):
        click.echo(f"  {names:<34} {who}")
    click.echo(f"In a program: dc.cluster('tls://HOST:8786', tls={str(place)!r})")


@click.group("cluster", short_help="Start a cluster.")
def cluster() -> None:
    """Start a cluster and keep it."""


@cluster.command("start", cls=Headed, short_help="Start a scheduler here, or a cluster of a profile.", epilog=exits.HELP)
@click.argument("profile", required=False)
@option("Where", "--listen", metavar="ADDRESS",
        help="Address of this host to listen at.  [default: with --tls tls://0.0.0.0:8786, else tcp://127.0.0.1:8786]")  # fmt: skip
@option("Where", "--tls", "folder", metavar="FOLDER", help="Certificates, as `dcompute certs` makes them.")
@option("Where", "--plain", is_flag=True, help="Let other machines reach it without encryption.")
@option("Where", "--dashboard", metavar="ADDRESS", default="127.0.0.1:0", show_default=True, help="Where Dask's dashboard listens.")
@option("Where", "--address-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
        help="Write there where it is, for --scheduler and `dask worker --scheduler-file`; removed at the end.")  # fmt: skip
@option("Workers", "--scheduler-as-worker", "beside", is_flag=True, help="Let workers be on the scheduler's host too.")
@option("Workers", "--workers", type=click.IntRange(min=1), metavar="N", help="Worker processes on this host, with --scheduler-as-worker.")
@option("Workers", "--threads", type=click.IntRange(min=1), metavar="N", help="Threads of each.  [default: the cores, shared by them]")
@option("Workers", "-y", "--yes", is_flag=True, help="Do not ask.")
def start(profile: str | None, beside: bool, yes: bool, **given: Any) -> None:
    """Start a scheduler on this host, in the foreground, and say how workers and programs get there; Ctrl-C or SIGTERM ends it.

    Workers are started on other hosts, with the line that is shown. Those on the scheduler's host are sent away: an item that takes all of
    its memory would take the scheduler along. --scheduler-as-worker lets them in.

    With PROFILE, the name of one in the settings (dcompute.clusters) that starts a cluster, that cluster is started and kept.

    \b
    Examples:
      dcompute cluster start --tls ~/certs/lab
      dcompute cluster start --scheduler-as-worker --workers 2 --yes     all on this machine
      dcompute cluster start lab --address-file lab.json
    """
    from dcompute.clusters.serving import RISK

    if given["workers"] is not None and not beside:
        raise click.UsageError(f"--workers would be on the scheduler's host. {RISK} Start them elsewhere, or say --scheduler-as-worker too")
    if beside:
        click.echo(f"Warning: {RISK}", err=True)
        if not yes:
            refuse_unless_yes("Let workers be on the scheduler's host?")
    if profile is not None:
        _keep(profile, beside, given)
        return
    _serve(beside, given)


def _serve(beside: bool, given: dict[str, Any]) -> None:
    from dcompute.clusters.serving import Start, listening, serve

    serve(
        Start(
            listen=listening(given["listen"], folder=given["folder"], plain=given["plain"]),
            folder=given["folder"],
            workers=given["workers"] or 0,
            threads=given["threads"],
            beside=beside,
            dashboard=given["dashboard"],
            address_file=given["address_file"],
        ),
        lambda line: click.echo(line),
    )


def _keep(profile: str, beside: bool, given: dict[str, Any]) -> None:
    """Start what a profile says, and keep it until this process is told to end."""
    from dcompute.clusters import Cluster
    from dcompute.clusters.serving import kept_profile, noted

    if given["listen"]:
        raise click.UsageError("--listen is for a scheduler of this host; of a cluster with a profile the profile says it")
    changed = {"tls": given["folder"], **{name: given[name] for name in ("plain", "workers", "threads")}}
    with Cluster(kept_profile(profile, beside=beside, given=changed)) as running:
        address = running.scheduler_address
        with noted(given["address_file"], {"type": "Scheduler", "address": address}), contextlib.suppress(KeyboardInterrupt):
            click.echo(f"Scheduler  {address}")
            click.echo(f"Programs   dc.cluster({address!r}{f', tls={running.profile.tls!r}' if running.profile.tls else ''})")
            threading.Event().wait()


COMMANDS = (certs, cluster)
