"""Kinds of option values, and commands whose help lists options under headings."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    _Kind = click.ParamType[Any]
else:  # generic for type checkers only in older versions of click
    _Kind = click.ParamType


_ARGUMENTS = (
    "key", "seed", "name", "memory", "timeout", "retries", "isolation", "version", "group", "retry_failed", "on_change", "on_gone",
    "takeover", "settle", "fingerprint", "errors", "max_failures", "modules", "batch_size", "at", "priority", "weight", "ageing",
    "wait_for_workers",
)  # fmt: skip
# a name that follows --set is no argument of dc.map, but a user's
_ARGUMENT = re.compile(
    rf"(?<![^\s(])(?<!--set )(?P<name>{'|'.join(_ARGUMENTS)})="
    r"""(?:(?P<flag>True)|"(?P<text>[^"]*)"|'(?P<word>[^']*)'|(?P<number>[\d][\d.,%]*(?<![.,]))|\['(?P<only>[^']*)'\]|(?=[\s:,.;)]|$))"""
)

#: What a program says, and a person at the command line.
_TYPED = {
    "see failures()": "see `dcompute failures`",
    "see quarantine()": "see `dcompute quarantine list`",
    "failures() says": "`dcompute failures DATASET` says",
    "see history()": "see `dcompute history`",
    "which params has": "which --set gives it",
    "dc.map makes one": "`dcompute run` makes one",
    "run this one with upstream=True": "run this one with --upstream",
}


def in_options(text: str) -> str:
    """A text that speaks to people of arguments of ``dc.map``, with the options in their place."""
    for words, typed in _TYPED.items():
        text = text.replace(words, typed)
    return _ARGUMENT.sub(_as_option, text)


def _as_option(found: re.Match[str]) -> str:
    option, value = f"--{found['name'].replace('_', '-')}", found["text"] or found["word"] or found["number"] or found["only"]
    return f"{option} {shlex.quote(value)}" if value else option


class Assigned(_Kind):
    """``name=value``; the value is JSON where it can be read as such, else text."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """The name and the value."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not name.isidentifier():
            self.fail(f"{value!r} is not name=value with a Python name", param, ctx)
        return name, from_text(text)


def from_text(text: str) -> Any:
    """What a text means: JSON where it can be read as such, else the text itself."""
    try:
        # NaN and Infinity are no JSON: a text that reads so stays a text.
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(text: str) -> Any:
    raise ValueError(text)


class Amount(_Kind):
    """``NAME=AMOUNT`` of a named resource."""

    name = "NAME=AMOUNT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """The name and the amount."""
        if isinstance(value, tuple):
            return value
        name, _, text = str(value).partition("=")
        try:
            return name, float(text)
        except ValueError:
            self.fail(f"{value!r} is not NAME=AMOUNT, such as SCRATCH=20", param, ctx)


class Quantity(_Kind):
    """``NAME=AMOUNT`` of a named limit: a number at once, or a rate."""

    name = "NAME=AMOUNT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """The name and the amount, as it was written."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not name.strip() or not text.strip():
            self.fail(f"{value!r} is not NAME=AMOUNT, such as licence=3 or api=20/s", param, ctx)
        return name.strip(), text.strip()


class Priority(_Kind):
    """A priority by its name, or a number."""

    name = "urgent|high|normal|low|n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        from dcompute.errors import UsageError
        from dcompute.priority import parse_priority

        try:
            return parse_priority(value)
        except UsageError as error:
            self.fail(error.message, param, ctx)


class Limit(_Kind):
    """A number of items, or a share of them (``0.1`` or ``10%``)."""

    name = "n|share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        """An integer, or a share below 1."""
        text = str(value).strip()
        try:
            number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            self.fail(f"{value!r} is neither a number of items nor a share such as 0.1 or 10%", param, ctx)
        if 0 < number < 1:
            return number
        if number < 0 or not number.is_integer() or text.endswith("%"):
            self.fail(f"{value!r} is neither a whole number of items nor a share between 0 and 1", param, ctx)
        return int(number)


class BatchSize(_Kind):
    """``auto`` or a number of items."""

    name = "auto|n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """``"auto"`` or an integer."""
        if value == "auto":
            return value
        number = click.INT.convert(value, param, ctx)
        if number < 1:
            self.fail("a batch has at least one item", param, ctx)
        return number


class Names(_Kind):
    """Names with commas between them."""

    name = "name,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:  # noqa: ARG002
        """The names."""
        if isinstance(value, tuple):
            return value
        return tuple(name.strip() for name in str(value).split(",") if name.strip())


def unique(pairs: Iterable[tuple[str, Any]], option: str) -> dict[str, Any]:
    """A mapping of the pairs given with an option; one name twice is an error."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise click.UsageError(f"{option} {name}=... was given twice")
        found[name] = value
    return found


class Under(click.Option):
    """An option that the help lists under a heading."""

    def __init__(self, *args: Any, heading: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


def option(heading: str, *names: str, **attributes: Any) -> Callable[[Any], Any]:
    """A ``click.option`` that the help lists under ``heading``."""
    return click.option(*names, cls=Under, heading=heading, **attributes)


class Headed(click.Command):
    """A command whose help lists its options under headings, and which refuses wrong settings, whether it needs any or not."""

    #: Options whose value is optional: they take one after ``=`` only, so that an argument that follows is not taken for it.
    bare: tuple[tuple[str, str], ...] = ()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give options without their optional value what stands for it."""
        stand_ins = dict(self.bare)
        end = args.index("--") if "--" in args else len(args)
        args = [stand_ins.get(arg, arg) if index < end else arg for index, arg in enumerate(args)]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Do it, where the settings are right."""
        from dcompute.config import settings

        settings()
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, in the order of their headings' first appearance; those without one come last."""
        headings: dict[str, list[tuple[str, str]]] = {}
        options = [parameter for parameter in self.get_params(ctx) if isinstance(parameter, click.Option)]
        for parameter in sorted(options, key=lambda parameter: not isinstance(parameter, Under)):
            record = parameter.get_help_record(ctx)
            if record is not None:
                headings.setdefault(getattr(parameter, "heading", "Other options"), []).append(record)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records)
