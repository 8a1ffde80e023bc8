"""Values of options: what they mean, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import click
import dask
import pytest
from click.testing import CliRunner

from dcompute.cli.main import dcompute
from dcompute.cli.options import Amount, Assigned, BatchSize, Headed, Limit, Names, from_text, in_options, option, unique


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("3 crash; retry_failed=True runs them again", "3 crash; --retry-failed runs them again"),
        ('redo them with version="code", or declare version=', "redo them with --version code, or declare --version"),
        ("keep its name with name='a b'", "keep its name with --name 'a b'"),
        ('kept (on_change="keep")', "kept (--on-change keep)"),
        ("more than max_failures=0.1 allows, max_failures=1,000.", "more than --max-failures 0.1 allows, --max-failures 1,000."),
        ("pass key=, or leave", "pass --key, or leave"),
        ("2 failed: 2 crash; see failures()", "2 failed: 2 crash; see `dcompute failures`"),
        ("committed; failures() says what failed.", "committed; `dcompute failures DATASET` says what failed."),
        ("f takes no argument 'y', which params has", "f takes no argument 'y', which --set gives it"),
        ("modules=['lab']: there is no module", "--modules lab: there is no module"),
        ("Is the path right? dc.map makes one", "Is the path right? `dcompute run` makes one"),
        ("again: dcompute run f.py:f 'x?version=3' --set name=True out", "again: dcompute run f.py:f 'x?version=3' --set name=True out"),
        ("item 'name=1' of s3://a/seed=3/part", "item 'name=1' of s3://a/seed=3/part"),
    ],
)
def test_advice_names_options(text: str, told: str) -> None:
    """What the command line prints can be typed there; words of the user's own stay."""
    assert in_options(text) == told


class TestAssigned:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("3", 3),
            ("3.5", 3.5),
            ("true", True),
            ("null", None),
            ('"3"', "3"),
            ("[1, 2]", [1, 2]),
            ('{"a": 1}', {"a": 1}),
            ("hello", "hello"),
            ("True", "True"),
            ("", ""),
            ("a=b", "a=b"),
            ("NaN", "NaN"),
            ("007", "007"),
            ("s3://x/y", "s3://x/y"),
        ],
    )
    def test_a_value_is_json_else_text(self, text, value):
        """Numbers, booleans and lists have their types; all else is the text as it stands."""
        assert from_text(text) == value
        assert type(from_text(text)) is type(value)
        assert Assigned().convert(f"name={text}", None, None) == ("name", value)

    @pytest.mark.parametrize("text", ["name", "=3", "a-b=3", "1a=3", ""])
    def test_what_is_no_name_is_refused(self, text):
        """A keyword argument has a Python name."""
        with pytest.raises(click.BadParameter, match="Python name"):
            Assigned().convert(text, None, None)

    def test_one_name_twice_is_refused(self):
        """Of two values one would be lost without a word."""
        with pytest.raises(click.UsageError, match="--set a"):
            unique([("a", 1), ("b", 2), ("a", 1)], "--set")


class TestLimit:
    @pytest.mark.parametrize(("text", "value"), [("10", 10), ("0", 0), ("1", 1), ("0.1", 0.1), ("25%", 0.25), ("10.0", 10)])
    def test_a_number_or_a_share(self, text, value):
        """Whole numbers count items, those below 1 and percentages are shares."""
        found = Limit().convert(text, None, None)
        assert found == value
        assert isinstance(found, type(value))

    @pytest.mark.parametrize("text", ["-1", "1.5", "100%", "many", "-5%", "0%", "nan", "inf"])
    def test_what_is_neither_is_refused(self, text):
        """Half an item, or all of them, is no limit."""
        with pytest.raises(click.BadParameter):
            Limit().convert(text, None, None)


def test_a_batch_size_is_auto_or_a_number():
    """Nought and words are refused."""
    assert BatchSize().convert("auto", None, None) == "auto"
    assert BatchSize().convert("12", None, None) == 12
    for wrong in ("0", "big"):
        with pytest.raises(click.BadParameter):
            BatchSize().convert(wrong, None, None)


def test_amounts_and_names():
    """Resources have an amount, lists of names take commas."""
    assert Amount().convert("SCRATCH=20", None, None) == ("SCRATCH", 20.0)
    assert Names().convert("a, b,", None, None) == ("a", "b")
    with pytest.raises(click.BadParameter, match="SCRATCH=20"):
        Amount().convert("SCRATCH", None, None)


class Sample(Headed):
    """A command with an option whose value is optional."""

    bare = (("--again", "--again=all"),)


@click.command(cls=Sample)
@click.argument("words", nargs=-1)
@option("First things", "--again", type=Names(), help="Again.")
@option("Second things", "--size", help="How large.")
def sample(words: tuple[str, ...], again: tuple[str, ...] | None, size: str | None) -> None:
    """A sample."""
    click.echo(f"{words} {again} {size}")


class TestHeaded:
    @pytest.mark.parametrize(
        ("args", "told"),
        [
            (["--again", "x"], "('x',) ('all',) None"),
            (["--again=b,c", "x"], "('x',) ('b', 'c') None"),
            (["x", "--again"], "('x',) ('all',) None"),
            (["x"], "('x',) None None"),
            (["--", "--again"], "('--again',) None None"),
        ],
    )
    def test_an_optional_value_never_takes_the_next_argument(self, args, told):
        """The value of such an option stands after ``=`` or not at all."""
        assert CliRunner().invoke(sample, args).output.strip() == told

    def test_help_has_the_headings_in_their_order(self):
        """Options stand under what they are about."""
        text = CliRunner().invoke(sample, ["--help"]).output
        assert (
            text.index("First things:") < text.index("--again") < text.index("Second things:") < text.index("--size") < text.index("--help")
        )


def commands(group: click.Group, *before: str) -> Iterator[tuple[str, ...]]:
    """The words of every command, with the arguments and options that it needs."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            needed = [parameter for parameter in command.params if parameter.required]
            yield (*before, name, *("nothing" if isinstance(one, click.Argument) else f"{one.opts[0]}=1" for one in needed))


@pytest.mark.parametrize("words", list(commands(dcompute)), ids=" ".join)
def test_every_command_refuses_wrong_settings(words: tuple[str, ...]) -> None:
    """Those that only read too, before they look for anything, and in the same words; their help is there all the same."""
    with dask.config.set({"dcompute.metrics": "ful"}):
        done = CliRunner().invoke(dcompute, list(words))
        helped = CliRunner().invoke(dcompute, [*words, "--help"])
    assert done.exit_code == 2
    assert "dcompute.metrics is 'ful'" in done.stderr
    assert helped.exit_code == 0
