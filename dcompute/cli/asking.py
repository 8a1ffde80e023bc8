"""Asking whoever sits there before something is done that cannot be undone."""

from __future__ import annotations

import click

from dcompute.errors import UsageError


def refuse_unless_yes(question: str) -> None:
    """Ask, and go on where the answer is yes.

    Raises
    ------
    click.Abort
        It is no, or Ctrl-C.
    UsageError
        Nobody is there who could answer.
    """
    try:
        yes = click.confirm(question, err=True)
    except click.Abort as error:
        if isinstance(error.__context__, EOFError):
            click.echo(err=True)
            raise UsageError("nobody is there who could answer, and nothing was changed: say --yes") from None
        raise
    if not yes:
        raise click.Abort
