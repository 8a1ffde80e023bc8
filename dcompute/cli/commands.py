"""``dcompute run --command``: an external program from the words of a command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from dcompute.cli.options import Names, option, unique

_COMMAND = "With --command"

#: Options that say more of a command, with what they are where not given.
MORE = {"outputs": (), "stdout": None, "ok_codes": None, "retry_codes": None, "shell": False, "grace": None, "command_progress": None}


class Output(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``NAME=WHERE``, or ``WHERE`` alone for ``{output}``."""

    name = "[NAME=]WHERE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:  # noqa: ARG002
        """The name and where the file goes."""
        if isinstance(value, tuple):
            return value
        name, equals, where = str(value).partition("=")
        return (name, where) if equals and name.isidentifier() else ("output", str(value))


def command_options(heading: str) -> Callable[[Any], Any]:
    """The options of ``dcompute run`` that make TARGET a command, and say more of it."""
    more = [
        option(heading, "--command", "command", is_flag=True,
               help="TARGET is a command with placeholders, such as 'sort {input} -o {output}'. No shell reads it."),
        option(_COMMAND, "--output", "outputs", type=Output(), multiple=True,
               help="A file that it writes, and where that goes: into the dataset, or to a URL or absolute path. Repeatable."),
        option(_COMMAND, "--stdout", metavar="NAME", help="The output that gets what it prints to stdout."),
        option(_COMMAND, "--ok-codes", type=Names(), metavar="N,...", help="Exit codes that mean success.  [default: 0]"),
        option(_COMMAND, "--retry-codes", type=Names(), metavar="N,...", help="Exit codes that mean a transient failure."),
        option(_COMMAND, "--shell", is_flag=True, help="/bin/sh reads it; values are its parameters, never its text."),
        option(_COMMAND, "--grace", metavar="TIME", help="From SIGTERM to SIGKILL, after its timeout or a cancel.  [default: 5s]"),
        option(_COMMAND, "--command-progress", metavar="HOW",
               help="ffmpeg, or a regular expression with the group percent, fraction, or done and total."),
    ]  # fmt: skip

    def decorate(function: Any) -> Any:
        for one in reversed(more):
            function = one(function)
        return function

    return decorate


def workload_of(given: dict[str, Any]) -> Any:
    """The workload of a command.

    Raises
    ------
    WorkloadError
        The command makes no sense.
    """
    import dcompute as dc

    more: dict[str, Any] = {name: given[name] for name in ("stdout", "shell", "grace") if given[name] != MORE[name]}
    more |= {name: _codes(name, given[name]) for name in ("ok_codes", "retry_codes") if given[name] is not None}
    outputs = unique(given["outputs"], "--output") or None
    return dc.command(given["target"], outputs=outputs, progress=given["command_progress"], **more)


def refuse_alone(given: dict[str, Any]) -> None:
    """What says more of a command is a mistake without one."""
    for name, nothing in MORE.items():
        if given[name] != nothing:
            raise click.UsageError(f"--{name.replace('_', '-').replace('outputs', 'output')} is for --command")


def _codes(name: str, words: tuple[str, ...]) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words)
    except ValueError:
        raise click.UsageError(f"--{name.replace('_', '-')} {','.join(words)}: exit codes are whole numbers") from None
