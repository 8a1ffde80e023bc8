"""The documentation as blocks and as scripts, for the tests that execute it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

#: Executed, in the order of the page.
EXECUTED = ("python", "bash")
#: Read and checked by a test of its own.
CHECKED = ("yaml",)
#: Nothing in it could be executed.
PROSE = ("text", "mermaid")
#: Typed by a person; each needs its reason in ``UNTYPED`` of the test, or a comment right before it.
REASON = re.compile(r"<!-- not executed: (\S.*) -->")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int  #: of its first line of code, from 1
    language: str  #: all that stands behind the opening fence
    code: str
    reason: str = field(default="")  #: why it is not executed, where its page says so

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Every fenced block of ``page``, whatever its language, indented ones in lists too."""
    return list(_blocks(page))


def _blocks(page: Path) -> Iterator[Block]:
    opened: re.Match[str] | None = None
    start, before, code, reason = 0, "", [], ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if opened is None:
            opened = re.match(r"(?P<indent>\s*)(?P<fence>`{3,}|~{3,})\s*(?P<language>.*?)\s*$", line)
            start, code = number + 1, []
            excuse = REASON.fullmatch(before.strip())
            reason = excuse[1] if excuse else ""
        elif line.strip() == opened["fence"]:
            yield Block(page, start, opened["language"], "\n".join(code) + "\n", reason)
            opened = None
        else:
            code.append(line.removeprefix(opened["indent"]))
        before = line
    assert opened is None, f"{page}:{start - 1} is never closed"


def steps(page: Path) -> list[tuple[str, list[Block]]]:
    """What a reader does on ``page``: language and blocks, those of one language in a row being one step."""
    executed = [block for block in blocks(page) if block.language in EXECUTED and not block.reason]
    return [(language, list(group)) for language, group in groupby(executed, key=lambda block: block.language)]


def script(group: list[Block]) -> str:
    """The blocks as one text whose line numbers are those of the page."""
    text = ""
    for block in group:
        text += "\n" * (block.line - 1 - text.count("\n")) + block.code
    return text
