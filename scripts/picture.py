"""Render docs/demo.svg: what a terminal shows when the demo runs for the first time, and once more."""

from __future__ import annotations

import os
import pty
import re
import shutil
import struct
import sys
import tempfile
import termios
from fcntl import ioctl
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, ROWS = 112, 60

#: What moves the cursor or erases, what colours, and what else a terminal is told.
CONTROL = re.compile(r"\x1b\[(?P<number>\d*)(?P<move>[ABK])|(?P<colour>\x1b\[[\d;]*m)|(?P<other>\x1b\[\??[\d;]*[a-zA-Z])|(?P<end>\r?\n)|\r")


def main() -> None:
    """Run the demo twice below a terminal of its own, and write the picture."""
    home = Path(tempfile.mkdtemp(prefix="picture-"))
    try:
        shown = [line for _ in range(2) for line in ("$ make demo", *screen(run(home)), "")]
    finally:
        shutil.rmtree(home)
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    for line in shown:
        # The picture is of anybody's clone, not of this one.
        console.print(Text.from_ansi(line.replace(str(home), "demo").replace(str(ROOT), "~/dcompute")))
    svg = console.export_svg(title="dcompute")
    # Fonts from elsewhere are not fetched for a picture: the viewer's own monospace does. And some viewers join blanks unasked.
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("<text ", '<text xml:space="preserve" ')
    (ROOT / "docs" / "demo.svg").write_text(svg)


def run(home: Path) -> str:
    """All that the demo writes to a terminal of ``COLUMNS``."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.execv(sys.executable, [sys.executable, "demo/run.py", "--home", str(home)])
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    written = b""
    while piece := _read(terminal):
        written += piece
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(f"The demo failed:\n{written.decode()}")
    return written.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


def screen(written: str) -> list[str]:
    """The lines that remain, of a program that redraws whole lines only."""
    lines, row, end = [""], 0, 0
    for control in CONTROL.finditer(written):
        lines[row] += written[end : control.start()] + (control["colour"] or "")
        end = control.end()
        step = {"A": -1, "B": 1}.get(control["move"] or "", 1 if control["end"] else 0)
        row = max(0, row + step * int(control["number"] or 1 if control["move"] in ("A", "B") else 1))
        lines.extend([""] * (row + 1 - len(lines)))
        if control["move"] == "K":
            lines[row] = ""
    return [line.rstrip() for line in lines]


if __name__ == "__main__":
    main()
