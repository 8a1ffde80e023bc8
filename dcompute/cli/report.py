"""The group ``dcompute report``: the built-in reports of a dataset, as tables and as a page, and the reports that a user wrote."""

from __future__ import annotations

import click

from dcompute.cli import exits, figures, stages


@click.group("report", short_help="Reports on a dataset, as tables or as one HTML page.", epilog=exits.HELP)
def report() -> None:
    """Say what happened in a dataset, in numbers."""


for command in (*figures.COMMANDS, *stages.COMMANDS):
    report.add_command(command)

COMMANDS = (report,)
