"""``dcompute worker --plan``: what a worker on this machine would declare, and how to start workers that suit it."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from dcompute.cli import exits
from dcompute.cli.tables import to_json
from dcompute.errors import UsageError


@click.command("worker", epilog=exits.HELP)
@click.option("--plan", "is_plan", is_flag=True, help="Say it; nothing is started or claimed.")
@click.option("--json", "as_json", is_flag=True, help="Write it to stdout as JSON.")
def worker(is_plan: bool, as_json: bool) -> None:
    """What workers on this machine would declare, and how many of them suit it.

    Workers are Dask's: `dask worker --preload dcompute.worker ADDRESS` starts one that finds out what it has.

    \b
    Examples:
      dcompute worker --plan
      CUDA_VISIBLE_DEVICES=0,1 dcompute worker --plan --json
    """
    from dcompute.config import settings

    chosen = settings().worker
    if not is_plan:
        raise UsageError("say --plan to see what suits this machine; `dask worker --preload dcompute.worker ADDRESS` starts a worker")
    from dcompute.worker import devices, hardware, planning, preload, walltime

    found = [device for device, _ in devices.found(devices.kinds(chosen.devices))]
    machine = hardware.read(chosen.scratch or tempfile.gettempdir(), found)
    plan = planning.plan(machine)
    labels = {**preload.labels(machine), **chosen.labels}
    until = walltime.end(os.environ, started=time.time(), walltime=chosen.walltime)
    if as_json:
        click.echo(to_json({"machine": asdict(machine), **asdict(plan), "command": plan.command, "labels": labels, "until": until}))
        return
    click.echo(_text(plan, labels, until, preload.shown(plan.declares)))


def _text(plan: Any, labels: dict[str, str], until: float | None, declares: str) -> str:
    lines = [("declares", declares), ("labels", ", ".join(f"{name}: {text}" for name, text in labels.items()))]
    if until is not None:
        lines.append(("until", f"{datetime.fromtimestamp(until).astimezone():%Y-%m-%d %H:%M:%S %z}"))
    lines += [("why" if not place else "", reason) for place, reason in enumerate(plan.reasons)]
    return "\n".join([*(f"{name:<10}{text}" for name, text in lines), "", plan.command])
