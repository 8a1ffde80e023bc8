"""An external program as a workload: :func:`dcompute.command`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dcompute.errors import UsageError, WorkloadError
from dcompute.program import GRACE, Declared, Program, is_elsewhere, program_of
from dcompute.requirements import Requirements
from dcompute.worker.commands import Command
from dcompute.worker.produced import checked_name
from dcompute.workload import Workload


def command(
    words: str | Sequence[str],
    /,
    *,
    outputs: Mapping[str, Any] | str | None = None,
    ok_codes: Sequence[int] = (0,),
    retry_codes: Sequence[int] = (),
    progress: Any = None,
    parse: Callable[..., Any] | None = None,
    check: Callable[..., Any] | None = None,
    stdout: str | None = None,
    cwd: Any = None,
    env: Mapping[str, Any] | None = None,
    shell: bool = False,
    grace: Any = GRACE,
    **requirements: Any,
) -> Workload:
    """A workload that runs an external program for each item, which :func:`dcompute.map` takes like any other.

    Placeholders are ``{input}`` (a file on a storage is brought here first), ``{input[column]}`` of a row, ``{key}``, ``{stem}``,
    ``{suffix}``, ``{scratch}`` (a folder of this attempt), ``{params[name]}`` and the names of outputs; ``{{`` and ``}}`` are braces. They
    are put in after the text was split: one argument each, with whatever is in it.

    Parameters
    ----------
    words
        Text, which is split as a shell would, or a list of words. No shell reads it.
    outputs
        Files that it writes: names of placeholders, and where each file goes. A relative name: into the dataset. A URL or an absolute
        path: there, whole or not at all. One text alone is ``{output}``.
    ok_codes
        Exit codes that mean success.
    retry_codes
        Exit codes that mean a ``transient`` failure; all others are ``permanent``, a signal is a ``crash``.
    progress
        ``"ffmpeg"`` for its ``-progress pipe:1``; a regular expression with the group ``percent``, ``fraction``, or ``done`` and
        ``total``; or a function of a line.
    parse
        A function of the outputs (paths by name) and stdout (text), whose result is the item's rows. Without it a row has the exit code.
    check
        A function of the outputs, called before they go anywhere: False or an exception fails the item.
    stdout
        Name of the output that gets what the program prints to stdout.
    cwd
        Its working directory; None: the worker's.
    env
        Variables beside those that the worker has; placeholders too.
    shell
        The text is for ``/bin/sh``; the values are its parameters, and never read as commands.
    grace
        Time from SIGTERM to SIGKILL, when its timeout is over or the run is cancelled.
    **requirements
        As :func:`dcompute.workload` takes them, but for ``isolation``, ``group`` and ``initializer``.

    Raises
    ------
    WorkloadError
        It makes no sense; the word in question is in the message.

    Examples
    --------
    >>> import dcompute as dc
    >>> dc.command("sort -n {input}", outputs="{stem}.txt", stdout="output", timeout="10 min")
    <Workload sort timeout=600.0>
    """
    declared = Declared(
        outputs=outputs, stdout=stdout, ok_codes=ok_codes, retry_codes=retry_codes, progress=progress, parse=parse, check=check, cwd=cwd,
        env=env or {}, shell=shell, grace=grace,
    )  # fmt: skip
    made = program_of(words, declared)
    _check_names(made)
    return Workload(Command(made), Requirements.of(requirements))


def _check_names(made: Program) -> None:
    for name, word in made.outputs:
        if is_elsewhere(word.text):
            continue
        try:
            checked_name(word.filled(lambda _: "x"))
        except UsageError as error:
            why = error.message.partition(": ")[2]
            raise WorkloadError(f"outputs[{name!r}]={word.text!r}: {why}") from None
