"""An external program for one item: its input is made a local path, it runs, its outputs are tested and go where they are declared to."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePath
from typing import Any

from dcompute.errors import ProgramError, WorkloadError
from dcompute.program import GRACE, SUFFIX, Declared, Program, Slot, is_elsewhere, is_url, program_of, safe, stem_of, suffix_of
from dcompute.worker import context
from dcompute.worker.advance import reader_of
from dcompute.worker.elsewhere import fetched, placed
from dcompute.worker.processes import Ended, Started, execute, judged, not_found

_MISSING: Any = object()


class Command(Program):
    """A program as a function of one input, as a child calls it."""

    def __init__(self, program: Program) -> None:
        for one in fields(Program):
            object.__setattr__(self, one.name, getattr(program, one.name))
        # functools.update_wrapper and whoever names a function take it from here
        object.__setattr__(self, "__qualname__", self.name)
        object.__setattr__(self, "__name__", self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Command, (Program(**{one.name: getattr(self, one.name) for one in fields(Program)}),)

    def __call__(self, value: Any = _MISSING, /, **given: Any) -> Any:
        """Run it: rows that say how it ended, or what ``parse=`` makes of it."""
        item, params = context.current(), given
        if value is _MISSING:  # a row: its columns are keyword arguments, as the params are
            params = {name: one for name, one in given.items() if name in item.params}
            value = {name: one for name, one in given.items() if name not in params}
        done = Running(self, value, params, item).finished()
        result = {"exit_code": done.code} if self.parse is None else self.parse(done.outputs, done.stdout)
        done.place()
        return done.with_places(result)

    def set_up(self) -> None:
        """Look for the program, once a child.

        Raises
        ------
        WorkloadError
            It is not on this worker.
        """
        if self.shell is not None or self.words[0].slots or "PATH" in dict(self.env):
            return
        name = self.words[0].text
        if shutil.which(name) is None:
            raise WorkloadError(not_found(name, os.environ.get("PATH", os.defpath)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A program that ended well."""

    code: int
    stdout: str
    stderr: str  #: its beginning and its end
    outputs: Mapping[str, Path]  #: by name
    seconds: float
    places: Mapping[str, str]  #: URLs of outputs that went elsewhere than into the dataset

    def place(self) -> None:
        """Move the outputs there that go elsewhere; what was there is replaced."""
        for name, url in self.places.items():
            placed(self.outputs[name], url)

    def with_places(self, result: Any) -> Any:
        """A result with the columns of outputs that went elsewhere."""
        if not self.places:
            return result
        # Arrow is loaded by those only who need it
        from dcompute.worker.collected import measured, with_columns
        from dcompute.worker.rows import to_rows

        return with_columns(to_rows(result), [measured(name, self.outputs[name], url) for name, url in self.places.items()])


class Running:
    """One run of a program.

    Parameters
    ----------
    program
        What is run.
    value
        The item's input; for a program within a function what its placeholders stand for.
    params
        Of the run.
    item
        At work.
    timeout
        Seconds; None: as the item has.
    """

    def __init__(
        self, program: Program, value: Any, params: Mapping[str, Any], item: context.Context, timeout: float | None = None
    ) -> None:
        self._program = program
        self._value = value
        self._params = params
        self._item = item
        self._timeout = timeout if timeout is not None else item.room.timeout
        self._began = time.monotonic()
        self._places: dict[str, str] = {}
        self._outputs: dict[str, Path] = {}

    def finished(self) -> Finished:
        """Run it and test its outputs.

        Raises
        ------
        ProgramError
            It ended badly, or wrote no output.
        """
        program = self._program
        self._declare_outputs()
        ended = execute(self._started(program.arguments(self._argument)))
        self._item.left += ended.left
        if ended.stopped:
            self._leave()
        judged(program.name, ended, ok_codes=program.ok_codes, retry_codes=program.retry_codes, timeout=self._timeout)
        self._check_outputs(program.name, ended)
        return Finished(
            code=ended.code or 0,
            stdout=ended.stdout.decode("utf-8", "replace"),
            stderr=ended.stderr,
            outputs=dict(self._outputs),
            seconds=ended.seconds,
            places=dict(self._places),
        )

    def _started(self, words: list[str]) -> Started:
        program, item = self._program, self._item
        return Started(
            words=words,
            cwd=None if program.cwd is None else program.cwd.filled(self._argument),
            env={name: word.filled(self._argument) for name, word in program.env},
            target=None if program.stdout is None else str(self._outputs[program.stdout]),
            keep=program.parse is not None,
            reader=reader_of(program.progress),
            report=item.progress,
            deadline=None if self._timeout is None else self._began + self._timeout,
            grace=program.grace,
            stopped=item.room.stopped,
        )

    def _leave(self) -> None:
        """Its batch is to end: no item is to blame, and whoever asked waits for this process to be gone."""
        if self._item.room.pid == os.getpid():
            os._exit(0)

    # ------------------------------------------------------------------------------------------------------------- outputs

    def _declare_outputs(self) -> None:
        for name, word in self._program.outputs:
            where = word.filled(lambda slot: safe(self._text(slot, as_text), is_suffix=slot.name == SUFFIX))
            if is_elsewhere(word.text):
                self._places[name] = where
                path = self._item.scratch / "outputs" / name / (os.path.basename(where) or name)  # noqa: PTH119
                path.parent.mkdir(parents=True, exist_ok=True)
                self._outputs[name] = path
            else:
                self._outputs[name] = self._item.output(where, column=name)

    def _check_outputs(self, name: str, ended: Ended) -> None:
        for output, path in self._outputs.items():
            if not path.is_file():
                raise ProgramError(
                    f"{name} exited with code {ended.code} and wrote no {output!r}: nothing is at {{{output}}}", exit_code=ended.code,
                    stderr=ended.stderr,
                )  # fmt: skip
        if self._program.check is not None:
            found = self._program.check(dict(self._outputs))
            if found is not None and not found:
                raise ProgramError(f"the outputs of {name} did not pass check=: it returned {found!r}", exit_code=ended.code)

    # -------------------------------------------------------------------------------------------------------------- values

    def _argument(self, slot: Slot) -> str:
        """What a placeholder stands for in an argument."""
        return self._text(slot, self._local)

    def _text(self, slot: Slot, local: Callable[[Any, str], str]) -> str:
        """What a placeholder stands for; values are made texts by ``local``."""
        name, item = slot.name, self._item
        if (output := self._program.output_of(name)) is not None:
            return str(self._outputs[output])
        if name in ("params", "input"):
            values = self._params if name == "params" else self._value
            return local(values if slot.item is None else _of_mapping(values, slot), str(slot))
        if name == "scratch":
            return str(item.scratch)
        if name == "key":
            return item.key or self._named_text()
        return stem_of(self._named_text()) if name == "stem" else suffix_of(self._named_text())

    def _named_text(self) -> str:
        """The text that stem and suffix are of: the input where it is one, else the key."""
        return str(self._value) if isinstance(self._value, str | PurePath) else self._item.key or as_text(self._value, "the input")

    def _local(self, value: Any, what: str) -> str:
        """A value as an argument; what lies on a storage is brought here first."""
        text = as_text(value, what)
        if is_url(text):
            return str(fetched(text, self._item.scratch / "inputs"))
        is_relative = not os.path.isabs(text) and os.path.lexists(text)  # noqa: PTH117  any text
        return os.path.abspath(text) if is_relative and (self._program.cwd is not None or text.startswith("-")) else text  # noqa: PTH100


def _of_mapping(values: Any, slot: Slot) -> Any:
    if isinstance(values, Mapping) and slot.item in values:
        return values[slot.item]
    known = (
        ", ".join(map(str, values)) or "no names" if isinstance(values, Mapping) else f"a {type(values).__qualname__}, which has no names"
    )
    raise ProgramError(f"{slot} is not there: there is {known}")


def as_text(value: Any, what: str) -> str:
    """A value as one argument.

    Raises
    ------
    ProgramError
        It is neither text nor number nor path, or has a NUL.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float | PurePath):
        value = getattr(value, "item", lambda: value)()  # a NumPy scalar
    if isinstance(value, bool) or not isinstance(value, str | int | float | PurePath):
        raise ProgramError(
            f"{what} is a {type(value).__qualname__}, and an argument is text, a number or a path: say {{input[name]}} of a row, or "
            "make texts of the inputs"
        )
    text = str(value)
    if "\0" in text:
        raise ProgramError(f"{what} has a NUL in {text!r}, which no argument can have")
    return text


def process(
    command: Any,
    values: Mapping[str, Any] | None = None,
    *,
    outputs: Mapping[str, Any] | str | None = None,
    timeout: float | None = None,
    ok_codes: Any = (0,),
    retry_codes: Any = (),
    progress: Any = None,
    check: Callable[..., Any] | None = None,
    stdout: str | None = None,
    cwd: Any = None,
    env: Mapping[str, Any] | None = None,
    shell: bool = False,
    grace: Any = GRACE,
) -> Finished:
    """Run an external program from inside a function, as :func:`dcompute.command` does for an item.

    What it prints is recorded with the item, nothing of its tree is left when this returns, and a bad end is raised as an error that says
    how often the item is tried again.

    Parameters
    ----------
    command
        Text, which is split as a shell would, or a list of words; placeholders are put in afterwards, one argument each.
    values
        What placeholders stand for, by name; ``{input}``, ``{stem}`` and ``{suffix}`` are of ``values["input"]``.
    outputs
        Files that it writes, by name: they become part of the dataset when the item succeeds, or go to the URL or absolute path.
    timeout
        Seconds; None: the item's own.
    ok_codes, retry_codes
        Exit codes that mean success, and that mean a failure which is tried again.
    progress
        ``"ffmpeg"``, a regular expression with named groups, or a function of a line.
    check
        A function of the outputs, called before they go anywhere; False or an exception fails.
    stdout
        Name of the output that gets what the program prints.
    cwd, env
        Working directory, and variables beside those that there are.
    shell
        The text is for ``/bin/sh``, which gets the values as parameters.
    grace
        Seconds from SIGTERM to SIGKILL.

    Returns
    -------
    Finished
        Exit code, what it printed, the paths of its outputs, seconds.

    Raises
    ------
    ProgramError
        It ended badly.
    WorkloadError
        The command makes no sense.

    Examples
    --------
    >>> import dcompute as dc
    >>> dc.process("printf %s,%s {a} {b}", {"a": "x y", "b": 2}).stdout
    'x y,2'
    """
    given = dict(values or {})
    value = given.pop("input", "")
    declared = Declared(
        outputs=outputs, stdout=stdout, ok_codes=ok_codes, retry_codes=retry_codes, progress=progress, parse=_kept, check=check, cwd=cwd,
        env=env or {}, shell=shell, grace=grace,
    )  # fmt: skip
    item = context.current()
    done = _Within(program_of(command, declared, names=tuple(given)), given, value, item, timeout).finished()
    done.place()
    return done


def _kept(outputs: Any, stdout: str) -> None:
    """Stands for a ``parse=``, so that stdout is kept."""


class _Within(Running):
    """A program within a function, whose placeholders are that function's."""

    def __init__(self, program: Program, given: Mapping[str, Any], value: Any, item: context.Context, timeout: float | None) -> None:
        super().__init__(program, value, item.params, item, timeout)
        self._given = given

    def _text(self, slot: Slot, local: Callable[[Any, str], str]) -> str:
        if slot.name in self._given:
            return local(_of_mapping(self._given[slot.name], slot) if slot.item else self._given[slot.name], str(slot))
        return super()._text(slot, local)
