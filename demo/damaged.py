"""Files that no Python can index, for the demo to meet: what is wrong with each is said openly."""

from __future__ import annotations

from pathlib import Path

from index import SPIN

#: File name -> what is wrong with it, and its bytes.
DAMAGED: dict[str, tuple[str, bytes]] = {
    "cut_off.py": ("cut off in the middle of a string", b'"""A module."""\n\n\ndef load(path):\n    """Read the fi'),
    "wrong_encoding.py": ("Latin-1 bytes where UTF-8 is due", 'NAME = "Gödel, Erdős"\n'.encode("iso-8859-2")),
    "nul_bytes.py": ("NUL bytes, as after a full disk", b"LIMIT = 10\n" + bytes(512)),
    "too_deep.py": ("brackets nested 5,000 deep", b"TREE = " + b"[" * 5000 + b"]" * 5000 + b"\n"),
    "never_ends.py": ("runs into its timeout: the demo's workload spins on its first line", SPIN + b"\n"),
}


def plant(folder: Path) -> None:
    """Write the damaged files into ``folder``."""
    folder.mkdir(parents=True)
    for name, (_, content) in DAMAGED.items():
        (folder / name).write_bytes(content)
