"""The demo's workload: parse one Python file and give one row for each symbol in it."""

from __future__ import annotations

import ast
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import dcompute as dc

#: A file that begins with this line never ends: no real file runs into a timeout, and the demo wants to show one.
SPIN = b"# dcompute demo: whoever indexes this file never comes to an end"

KINDS = {ast.ClassDef: "class", ast.FunctionDef: "function", ast.AsyncFunctionDef: "async function"}


@dc.workload(timeout="10 s")
def symbols(path: str, *, root: str, pause: float = 0.0, trace: str | None = None) -> list[dict[str, object]]:
    """One row for the module itself and for each class, function and method in it.

    Parameters
    ----------
    path
        The file.
    root
        The folder of the sources; the folders in it are where module names start.
    pause
        Seconds to sleep first; makes the demo long enough to kill it.
    trace
        A file to note each execution in, as run and file: shows what was executed twice.
    """
    if trace is not None:
        with Path(trace).open("a") as notes:
            notes.write(f"{dc.current().run} {path}\n")
    time.sleep(pause)
    source = Path(path).read_bytes()
    while source.startswith(SPIN):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old code has escapes that Python warns of; they are not what is asked for
        tree = ast.parse(source, path)
    file = Path(path).relative_to(root)
    module = ".".join(file.with_suffix("").parts[1:]).removesuffix(".__init__")
    lines = source.count(b"\n") + 1
    whole = _row(tree, name=module.rpartition(".")[2], qualified=module, kind="module", line=1, end=lines)
    return [{"file": file.as_posix(), "module": module, **row} for row in (whole, *_walk(tree, module))]


def _walk(tree: ast.Module, module: str) -> Iterator[dict[str, object]]:
    # A stack instead of recursion: generated code nests deeper than a function call may.
    stack: list[tuple[ast.AST, str, bool]] = [(tree, module, False)]
    while stack:
        node, scope, in_class = stack.pop()
        kind = KINDS.get(type(node))
        if kind is not None:
            scope = f"{scope}.{node.name}"
            kind = kind.replace("function", "method") if in_class else kind
            yield _row(node, name=node.name, qualified=scope, kind=kind, line=node.lineno, end=node.end_lineno)
        inside = isinstance(node, ast.ClassDef)
        stack.extend((child, scope, inside or (in_class and kind is None)) for child in ast.iter_child_nodes(node))


def _row(node: ast.AST, *, name: str, qualified: str, kind: str, line: int, end: int) -> dict[str, object]:
    arguments = getattr(node, "args", None)
    return {
        "name": name,
        "qualified_name": qualified,
        "kind": kind,
        "line": line,
        "end_line": end,
        "args": ast.unparse(arguments) if arguments is not None else None,
        "decorators": len(getattr(node, "decorator_list", ())),
        "has_docstring": ast.get_docstring(node, clean=False) is not None,
    }
