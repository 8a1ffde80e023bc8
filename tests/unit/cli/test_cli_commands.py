"""``dcompute run --command``: what the words of a command line mean."""

from __future__ import annotations

from typing import Any

import click
import pytest

from dcompute.cli.run import order_of, run
from dcompute.errors import WorkloadError


def workload_of(*words: str) -> Any:
    """The workload that a line asks for."""
    words = (*words, __file__)
    with run.make_context("run", [*words, "out"]) as context:
        return order_of(context.params).workload


def test_a_command_is_a_workload() -> None:
    """Outputs, codes and requirements of the line are those of dc.command."""
    codes = ("--ok-codes", "0,1", "--retry-codes", "75")
    found = workload_of("--command", "sort {input} -o {sorted}", "--output", "sorted=s/{stem}.txt", *codes, "--timeout", "5s")
    program = found.function
    assert (found.name, found.timeout) == ("sort", 5.0)
    assert [(name, word.text) for name, word in program.outputs] == [("sorted", "s/{stem}.txt")]
    assert (program.ok_codes, program.retry_codes) == ({0, 1}, {75})


def test_an_output_without_a_name_is_output() -> None:
    """An equals sign in a place is no name."""
    assert [name for name, _ in workload_of("--command", "sort {output}", "--output", "a b=c.txt").function.outputs] == ["output"]


def test_what_belongs_to_a_command_needs_one() -> None:
    """--output with a function is a mistake that is told."""
    with pytest.raises(click.UsageError, match="--output is for --command"):
        workload_of("flux.py:flux", "--output", "x")


def test_codes_are_numbers() -> None:
    """A word is refused with the option that it was given to."""
    with pytest.raises(click.UsageError, match="--ok-codes no"):
        workload_of("--command", "true", "--ok-codes", "no")


def test_a_command_that_makes_no_sense_is_refused() -> None:
    """The error is that of dc.command."""
    with pytest.raises(WorkloadError, match="inptu"):
        workload_of("--command", "sort {inptu}")
