"""A program that a test kills: symbols of source files, slowed down, each execution noted in a trace.

python slow_index.py DATASET TRACE FILES SECONDS [SCHEDULER]
"""

from __future__ import annotations

import ast
import os
import sys
import time
from pathlib import Path

import dcompute as dc


@dc.workload(timeout="60 s")
def symbols(path: str, trace: str, seconds: float) -> list[dict[str, object]]:
    """One row a function or class; notes its beginning in the trace."""
    with Path(trace).open("a") as file:
        file.write(f"{path} {os.getpid()} {dc.current().run}\n")
    time.sleep(seconds)
    tree = ast.parse(Path(path).read_bytes())
    return [
        {"name": node.name, "line": node.lineno}
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]


def main() -> None:
    dataset, trace, files, seconds, *scheduler = sys.argv[1:]
    run = dc.map(
        symbols,
        Path(files).read_text().split("\n"),
        dataset,
        params={"trace": trace, "seconds": float(seconds)},
        batch_size=3,
        client=scheduler[0] if scheduler else None,
    )
    print("started", flush=True)
    run.wait(progress="quiet")
    print(run.summary(), flush=True)


main()
