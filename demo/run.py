"""Index real Python source code: every file of this interpreter's standard library and of the packages beside it.

Run it, run it again, change a file below ``demo/source`` and run it again, or kill it in the middle with ``kill -9`` and run it again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from damaged import DAMAGED, plant
from index import symbols
from report import Report, as_typed
from rich.console import Console

import dcompute as dc

HERE = Path(__file__).resolve().parent
NOT_COPIED = {"site-packages", "dist-packages", "__pycache__"}


def main() -> int:
    """The demo; 0 although some files fail, for that is what it shows."""
    options = _options()
    say = Console(highlight=False, soft_wrap=True)
    source = _prepared(options.home, options.only, say)

    params = {"root": str(source), "pause": options.pause}
    if options.trace is not None:
        params["trace"] = str(options.trace.resolve())
    run = dc.map(symbols, dc.files(f"{source}/**/*.py"), options.home / "dataset", params=params)
    try:
        run.wait()
    except KeyboardInterrupt:
        return 130
    Report(run.summary(), dc.open(options.home / "dataset"), source).show(say)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", type=Path, default=HERE, help="where source/ and dataset/ go")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="copy only these modules and packages, for a short demo")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to sleep before each file, for time to kill something")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="note each file there when it is begun, to see what is executed twice")
    options = parser.parse_args()
    options.home = options.home.resolve()
    return options


def _prepared(home: Path, only: list[str] | None, say: Console) -> Path:
    """The folder with the sources, copied at the first time only: what was edited there stays."""
    source = home / "source"
    say.print("[bold]dcompute demo[/bold]: index every Python file of a standard library and of the packages beside it\n")
    if source.exists():
        say.print(f"Sources   {as_typed(source)} is there from an earlier run and stays as it is, edits too")
        return source
    # Under another name until it is complete: killed in the middle, the copying begins anew.
    half = home / "work" / "source"
    shutil.rmtree(half, ignore_errors=True)
    roots = {"library": Path(sysconfig.get_paths()["stdlib"]), "packages": Path(sysconfig.get_paths()["purelib"])}
    counts = {name: _copy(root, half / name, only) for name, root in roots.items()}
    plant(half / "damaged")
    half.rename(source)
    say.print(f"Sources   {counts['library']:,} files of the standard library of Python {sys.version.split()[0]}")
    say.print(f"          {counts['packages']:,} files of the packages in {as_typed(roots['packages'])}")
    say.print(f"          {len(DAMAGED)} damaged files, planted in {as_typed(source / 'damaged')}:")
    for name, (what, _) in DAMAGED.items():
        say.print(f"            {name:<18} {what}", style="dim")
    return source


def _copy(root: Path, target: Path, only: list[str] | None) -> int:
    """Copy the Python files below ``root`` with their times; returns how many."""
    count = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in NOT_COPIED)
        for name in names:
            file = Path(folder, name)
            relative = file.relative_to(root)
            if file.suffix != ".py" or not file.is_file() or (only is not None and relative.parts[0].removesuffix(".py") not in only):
                continue
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target / relative)
            count += 1
    return count


if __name__ == "__main__":
    sys.exit(main())
