"""An external program as it is declared: words with placeholders, outputs, exit codes. Pure: nothing is started here.

A command's text is split first, as a shell would, and the values are put in afterwards: a value is one argument, or a part of one, whatever
is in it. Where a shell is asked for, it gets the values as its positional parameters and never reads them as commands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath, PurePosixPath
from string import Formatter
from typing import TYPE_CHECKING, Any, NamedTuple

from dcompute.errors import WorkloadError
from dcompute.resources import parse_seconds

if TYPE_CHECKING:
    from dcompute.requirements import Requirements

#: Placeholders that every command has; of the last two one value is said in brackets.
SUFFIX = "suffix"
NAMES = ("input", "key", "stem", SUFFIX, "scratch", "params")
#: Stands for the output where there is one.
OUTPUT = "output"
#: Seconds from SIGTERM to SIGKILL.
GRACE = 5.0
#: Characters of a value in the name of an output.
_LONGEST_STEP = 100
_FIELD = re.compile(r"(?P<name>[A-Za-z_]\w*)(?:\[(?P<item>[^\[\]]+)\])?")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_UNSAFE = re.compile(r"[^\w.,+=@ ()-]")


class Slot(NamedTuple):
    """A placeholder."""

    name: str
    item: str | None = None  #: in brackets

    def __str__(self) -> str:
        return f"{{{self.name}[{self.item}]}}" if self.item else f"{{{self.name}}}"


@dataclass(frozen=True, slots=True)
class Word:
    """Text with placeholders in it."""

    text: str  #: as it was written
    pieces: tuple[str | Slot, ...]

    @classmethod
    def of(cls, text: Any, where: str) -> Word:
        """The word of a text; ``{{`` and ``}}`` stand for braces.

        Raises
        ------
        WorkloadError
            Its braces make no placeholder.
        """
        if isinstance(text, PurePath):
            text = str(text)
        if not isinstance(text, str):
            raise WorkloadError(f"{where} has {text!r}: words are texts")
        if "\0" in text:
            raise WorkloadError(f"{where} has a NUL in {text!r}, which no argument can have")
        try:
            return cls(text, tuple(_pieces(text)))
        except ValueError as error:
            raise WorkloadError(
                f"{where} has {text!r}, whose braces make no placeholder ({error}): write {{{{ and }}}} for braces that are meant so"
            ) from None

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Its placeholders."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Slot))

    def filled(self, value_of: Callable[[Slot], str]) -> str:
        """The word with values in it."""
        return "".join(piece if isinstance(piece, str) else value_of(piece) for piece in self.pieces)


def _pieces(text: str) -> Iterator[str | Slot]:
    for literal, name, form, conversion in Formatter().parse(text):
        if literal:
            yield literal
        if name is None:
            continue
        found = _FIELD.fullmatch(name)
        if found is None or form or conversion:
            raise ValueError(f"{{{name}{'!' + conversion if conversion else ''}{':' + form if form else ''}}}")
        yield Slot(found["name"], found["item"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is started for an item, and what counts as done."""

    words: tuple[Word, ...]
    shell: Word | None = None  #: text for a shell; there are no words then
    outputs: tuple[tuple[str, Word], ...] = ()  #: name, and where it goes: a name in the dataset, or a URL or absolute path
    stdout: str | None = None  #: name of the output that gets what the program prints
    ok_codes: frozenset[int] = frozenset({0})
    retry_codes: frozenset[int] = frozenset()
    progress: Any = None  #: "ffmpeg", a regular expression, or a function of a line
    parse: Callable[..., Any] | None = None
    check: Callable[..., Any] | None = None
    cwd: Word | None = None
    env: tuple[tuple[str, Word], ...] = ()
    grace: float = GRACE
    names: tuple[str, ...] = NAMES  #: placeholders beside outputs

    @property
    def name(self) -> str:
        """What a dataset calls it: the file name of the program."""
        first = self.shell.text.split()[0] if self.shell is not None else self.words[0].text
        return re.sub(r"[^\w.+-]", "_", PurePosixPath(first).name) or "command"

    @property
    def all_words(self) -> tuple[Word, ...]:
        """All that placeholders may stand in, but the names of outputs."""
        more = [word for _, word in self.env] + ([self.cwd] if self.cwd is not None else [])
        return (*self.words, *((self.shell,) if self.shell is not None else ()), *more)

    def asked(self, name: str) -> set[str]:
        """What is in brackets of a placeholder, wherever it stands; "" where it has none."""
        words = (*self.all_words, *(word for _, word in self.outputs))
        return {slot.item or "" for word in words for slot in word.slots if slot.name == name}

    def output_of(self, name: str) -> str | None:
        """The output that a placeholder stands for; None where it stands for none."""
        outputs = [one for one, _ in self.outputs]
        if name in outputs:
            return name
        return outputs[0] if name == OUTPUT and len(outputs) == 1 else None

    def __call__(self, value: Any = None, /, **given: Any) -> Any:
        """Run it for one input; where programs can be run."""
        raise NotImplementedError

    def set_up(self) -> None:
        """Look whether it can be started here, once a child."""

    def check_requirements(self, requirements: Requirements) -> None:
        """Refuse what a program cannot do.

        Raises
        ------
        WorkloadError
            Which names it.
        """
        if requirements.isolation == "thread":
            raise WorkloadError(f'{self.name} needs a supervised process to run below: leave isolation="thread" out')
        for name in ("group", "initializer"):
            if getattr(requirements, name) is not None:
                raise WorkloadError(f"{name}= is for functions: {self.name} runs once for each item")

    def check_names(self, params: Collection[str], columns: Collection[str] | None) -> None:
        """Refuse placeholders that nothing can be put in for.

        Parameters
        ----------
        params
            Names that ``params=`` has.
        columns
            Those of a table or a grid; None: an input is one value.

        Raises
        ------
        WorkloadError
            Which names the placeholder.
        """
        for name in sorted(self.asked("params") - set(params)):
            raise WorkloadError(f"{self.name} has {{params[{name}]}}, and params= has {', '.join(sorted(params)) or 'nothing'}")
        if unused := sorted(set(params) - self.asked("params")):
            raise WorkloadError(
                f"params= has {unused[0]!r}, and no word of {self.name} has {{params[{unused[0]}]}}: it would change nothing"
            )
        asked = self.asked("input")
        if columns is None:
            return
        if "" in asked:
            raise WorkloadError(
                f"{self.name} has {{input}}, and inputs are rows: say a column, as {{input[{next(iter(columns), 'name')}]}}"
            )
        for name in sorted(asked - set(columns)):
            raise WorkloadError(f"{self.name} has {{input[{name}]}}, and rows have {', '.join(columns)}")

    def arguments(self, value_of: Callable[[Slot], str]) -> list[str]:
        """What is executed, with the values in it."""
        if self.shell is None:
            return [word.filled(value_of) for word in self.words]
        text, slots = in_shell(self.shell)
        return ["/bin/sh", "-c", text, "sh", *(value_of(slot) for slot in slots)]


# ------------------------------------------------------------------------------------------------------------- declaration


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """Options of a command, as users write them."""

    outputs: Mapping[str, Any] | str | None = None
    stdout: str | None = None
    ok_codes: Sequence[int] = (0,)
    retry_codes: Sequence[int] = ()
    progress: Any = None
    parse: Callable[..., Any] | None = None
    check: Callable[..., Any] | None = None
    cwd: Any = None
    env: Mapping[str, Any] = field(default_factory=dict)
    shell: bool = False
    grace: Any = GRACE


def program_of(command: Any, given: Declared, *, names: Sequence[str] = ()) -> Program:
    """The program that a command declares.

    Parameters
    ----------
    command
        Text, which is split as a shell would, or a list of words.
    given
        Its options.
    names
        Placeholders beside :data:`NAMES`.

    Raises
    ------
    WorkloadError
        What is wrong with it, with the word in question.
    """
    words, shell = _words(command, given.shell)
    _check_functions(given)
    made = Program(
        words=words,
        shell=shell,
        outputs=_outputs(given.outputs),
        stdout=given.stdout,
        ok_codes=_codes("ok_codes", given.ok_codes),
        retry_codes=_codes("retry_codes", given.retry_codes),
        progress=_progress(given.progress),
        parse=given.parse,
        check=given.check,
        cwd=None if given.cwd is None else Word.of(given.cwd, "cwd="),
        env=tuple(sorted((str(name), Word.of(text, f"env[{name!r}]")) for name, text in given.env.items())),
        grace=parse_seconds(given.grace, "grace"),
        names=(*NAMES, *names),
    )
    _check_codes(made)
    _check_slots(made)
    _check_outputs(made)
    if made.shell is not None:
        in_shell(made.shell)
    return made


def _words(command: Any, shell: bool) -> tuple[tuple[Word, ...], Word | None]:
    if not isinstance(command, str) and (isinstance(command, bytes) or not isinstance(command, Sequence)):
        raise WorkloadError(f"{command!r} is no command: say it as text, or as a list of words")
    if shell:
        if not isinstance(command, str) or not command.strip():
            raise WorkloadError(f"shell=True takes the text that the shell reads, and this is {command!r}")
        return (), Word.of(command, "the command")
    import shlex

    try:
        texts = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise WorkloadError(f"the command {command!r} cannot be split into words: {error}") from None
    words = tuple(Word.of(text, "the command") for text in texts)
    if not words or not words[0].text.strip():
        raise WorkloadError("the command has no words: the first one names the program")
    return words, None


def _outputs(given: Any) -> tuple[tuple[str, Word], ...]:
    if given is None:
        return ()
    if isinstance(given, str | PurePath):
        given = {OUTPUT: given}
    if not isinstance(given, Mapping):
        raise WorkloadError(f'outputs={given!r}: say names and where the files go, as outputs={{"video": "clips/{{stem}}.mkv"}}')
    found = []
    for name, text in given.items():
        if not isinstance(name, str) or not name.isidentifier() or name in NAMES:
            why = "stands for something else" if name in NAMES else "is no name for a placeholder"
            raise WorkloadError(f"outputs= has the name {name!r}, which {why}: take another one")
        found.append((name, Word.of(text, f"outputs[{name!r}]")))
    return tuple(found)


def _codes(name: str, given: Any) -> frozenset[int]:
    values = [given] if isinstance(given, int) else list(given)
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 255:
            raise WorkloadError(f"{name} has {value!r}: exit codes are whole numbers from 0 to 255")
    return frozenset(values)


def _check_codes(made: Program) -> None:
    both = sorted(made.ok_codes & made.retry_codes)
    if both:
        raise WorkloadError(f"exit code {both[0]} is in ok_codes and in retry_codes: it is one of them")
    if not made.ok_codes:
        raise WorkloadError("ok_codes is empty: no item could ever succeed")


def _progress(given: Any) -> Any:
    if given is None or callable(given):
        return given
    if not isinstance(given, str):
        raise WorkloadError(f'progress={given!r}: say "ffmpeg", a regular expression, or a function of a line')
    if given == "ffmpeg":
        return given
    try:
        groups = re.compile(given).groupindex
    except re.error as error:
        raise WorkloadError(f"progress={given!r} is no regular expression: {error}") from None
    if not ("percent" in groups or "fraction" in groups or {"done", "total"} <= groups.keys()):
        raise WorkloadError(
            f"progress={given!r} has no named group that says how far it is: name one (?P<percent>...) or (?P<fraction>...), or two, "
            "(?P<done>...) and (?P<total>...)"
        )
    return given


def _check_functions(given: Declared) -> None:
    for name in ("parse", "check"):
        value = getattr(given, name)
        if value is not None and not callable(value):
            raise WorkloadError(
                f"{name}={value!r} cannot be called: give a function of the outputs{' and stdout' if name == 'parse' else ''}"
            )


def _check_slots(made: Program) -> None:
    outputs = [name for name, _ in made.outputs]
    for word in made.all_words:
        for slot in word.slots:
            if slot.name == OUTPUT and OUTPUT not in outputs and len(outputs) != 1:
                what = (
                    f"there are {len(outputs)}: {', '.join(outputs)}" if outputs else 'outputs= declares none, such as outputs="{stem}.out"'
                )
                raise WorkloadError(f"the word {word.text!r} has {{output}}, which stands for the only output, and {what}")
            _check_slot(slot, word.text, (*made.names, *outputs, OUTPUT), outputs)
    for name, word in made.outputs:
        for slot in word.slots:
            _check_slot(slot, f"outputs[{name!r}]", [one for one in made.names if one != "scratch"], ())


def _check_slot(slot: Slot, where: str, names: Sequence[str], outputs: Sequence[str]) -> None:
    if slot.name not in names:
        known = ", ".join(f"{{{name}}}" for name in names if name != OUTPUT)
        raise WorkloadError(f"the word {where!r} has {slot}, and there is no such placeholder: there are {known}")
    if slot.name == "params" and slot.item is None:
        raise WorkloadError(f"the word {where!r} has {{params}}: say which one, as {{params[name]}}")
    if slot.item is not None and (slot.name in outputs or slot.name in ("key", "stem", "suffix", "scratch", OUTPUT)):
        raise WorkloadError(f"the word {where!r} has {slot}: {{{slot.name}}} takes nothing in brackets")


def _check_outputs(made: Program) -> None:
    named = {made.output_of(slot.name) for word in made.all_words for slot in word.slots}
    outputs = [name for name, _ in made.outputs]
    if made.stdout is not None and made.stdout not in outputs:
        raise WorkloadError(f"stdout={made.stdout!r} is no output: outputs= declares {', '.join(outputs) or 'none'}")
    for name, word in made.outputs:
        if name not in named and name != made.stdout:
            raise WorkloadError(f"outputs= declares {name!r}, and no word has {{{name}}}: the program cannot know where to write it")
        if is_elsewhere(word.text) and not word.slots:
            raise WorkloadError(
                f"outputs[{name!r}]={word.text!r} is one place for all items: put in what differs, such as {{key}} or {{stem}}"
            )


def is_elsewhere(text: str) -> bool:
    """Whether an output goes to storage of its own, and not into the dataset."""
    return bool(_URL.match(text)) or text.startswith(("/", "~"))


def is_url(text: str) -> bool:
    """Whether a text begins as a URL does."""
    return bool(_URL.match(text))


# ------------------------------------------------------------------------------------------------------------------- shell


def in_shell(word: Word) -> tuple[str, list[Slot]]:
    """The text for a shell that gets the values as positional parameters, and the placeholders in their order.

    Raises
    ------
    WorkloadError
        A placeholder within single quotes, where a shell puts nothing in.
    """
    parts: list[str] = []
    slots: list[Slot] = []
    quote = ""
    for piece in word.pieces:
        if isinstance(piece, str):
            quote = _quote_after(piece, quote)
            parts.append(piece)
            continue
        if quote == "'":
            raise WorkloadError(f"{piece} stands within single quotes of a shell's text, where nothing is put in: leave the quotes out")
        slots.append(piece)
        # a parameter is never read as a command; within double quotes it is quoted already
        parts.append(f"${{{len(slots)}}}" if quote else f'"${{{len(slots)}}}"')
    return "".join(parts), slots


def _quote_after(text: str, quote: str) -> str:
    place = 0
    while place < len(text):
        one = text[place]
        if one == "\\" and quote != "'":
            place += 1
        elif quote:
            quote = "" if one == quote else quote
        elif one in "'\"":
            quote = one
        place += 1
    return quote


# ------------------------------------------------------------------------------------------------------------------ values


def stem_of(text: str) -> str:
    """The last step of a path or URL, without its suffix."""
    return PurePosixPath(text.rstrip("/")).stem


def suffix_of(text: str) -> str:
    """The suffix of a path or URL, with its dot."""
    return PurePosixPath(text.rstrip("/")).suffix


def safe(value: str, *, is_suffix: bool = False) -> str:
    """A value as part of a file's name: folders stay, what means something else to a storage or a shell does not.

    Where anything had to be changed, eight digits of the value follow, so that two values never become one name. A suffix keeps its dot.
    """
    if is_suffix and value.startswith("."):
        return f".{safe(value[1:])}"
    steps = [_UNSAFE.sub("_", step)[:_LONGEST_STEP].strip(" .").lstrip("-") for step in value.split("/")]
    kept = "/".join(step for step in steps if step)
    if kept == value and kept:
        return kept
    from hashlib import blake2b  # 5 ms that who has no program does not pay

    digest = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{kept}-{digest}" if kept else digest
