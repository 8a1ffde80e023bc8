"""The text of code, without what does not change its meaning: comments, line breaks, docstrings and our own decorator."""

from __future__ import annotations

import ast
import dis
import functools
import importlib.util
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dcompute.code.installed import found_at, is_installed
from dcompute.keys import fingerprint

_OWN_DECORATOR = "workload"
#: Instructions of CPython 3.11 to 3.14 that name a global; the second one and the third stand in the bodies of classes.
_GLOBAL = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS", "STORE_GLOBAL", "DELETE_GLOBAL"})


def source_of(function: types.FunctionType) -> str | None:
    """The source of a function; None where there is none of its own, or its file is not any more what was executed."""
    if function.__name__ == "<lambda>":  # its lines hold more than itself
        return None
    code = _as_on_disk(function.__code__)
    if code is None:
        return None
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef | ast.AsyncFunctionDef) or tree.body[0].name != code.co_name:
        return None
    return ast.unparse(_Plain().visit(tree))


def _as_on_disk(code: types.CodeType) -> types.CodeType | None:
    """The same code as its file has it now, maybe on other lines; None where the file was changed since. What is in no file stays."""
    try:
        status = Path(code.co_filename).stat()
    except (OSError, ValueError):
        return code
    wanted = bytecode_of(code)
    found = [one for one in _compiled(code.co_filename, status.st_mtime_ns, status.st_size) if one.co_qualname == code.co_qualname]
    same = [one for one in found if bytecode_of(one) == wanted]
    return min(same, key=lambda one: abs(one.co_firstlineno - code.co_firstlineno), default=None)


@functools.lru_cache(maxsize=64)
def _compiled(path: str, _changed: int, _size: int) -> tuple[types.CodeType, ...]:
    try:
        return tuple(_all_code(compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)))
    except (OSError, SyntaxError, ValueError):
        return ()


def bytecode_of(code: types.CodeType) -> str:
    """What stands for code that has no source."""
    constants = [bytecode_of(constant) if isinstance(constant, types.CodeType) else fingerprint(constant) for constant in code.co_consts]
    parts = [code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars, code.co_argcount, code.co_kwonlyargcount]
    return f"bytecode {sys.version_info[:2]} {parts}"


def globals_in(code: types.CodeType) -> frozenset[str]:
    """Names of globals in code, and in the functions within it; names of attributes are none."""
    return frozenset(str(step.argval) for one in _all_code(code) for step in dis.get_instructions(one) if step.opname in _GLOBAL)


def names_in(code: types.CodeType) -> frozenset[str]:
    """Names of globals and attributes in code, and in the functions within it."""
    return frozenset(name for one in _all_code(code) for name in one.co_names)


def imported_in(function: types.FunctionType) -> list[str]:
    """Modules that a function imports when it is called, and names that it takes from them, which may be modules too; sorted."""
    package = function.__globals__.get("__package__") or (function.__module__ or "").rpartition(".")[0]
    found: set[str] = set()
    for code in _all_code(function.__code__):
        steps = list(dis.get_instructions(code))
        for level, taken, step in zip(steps, steps[1:], steps[2:], strict=False):
            if step.opname == "IMPORT_NAME":
                found.update(_modules(str(step.argval), level.argval or 0, taken.argval or (), package))
    return sorted(found)


class Modules:
    """The texts of modules as they are on disk, with those that they import in turn; nothing is imported. Each is read once."""

    def __init__(self) -> None:
        self._met: set[str] = set()

    def text(self, module: str) -> str:
        """The text of a module, of the packages it is in and of all that they import; installed ones by name only."""
        parts = []
        waiting = _with_parents(module)
        while waiting:
            name = waiting.pop(0)
            if name in self._met:
                continue
            self._met.add(name)
            if is_installed(name):
                parts.append(f"module {name}")
            elif (path := _file_of(name)) is not None and (tree := _parsed(path)) is not None:
                package = name if path.stem == "__init__" else name.rpartition(".")[0]
                waiting += [parent for one in _imports(tree, package) for parent in _with_parents(one)]
                parts.append(f"module {name} {ast.unparse(_Plain().visit(tree))}")
        return "\n".join(parts)


class _Plain(ast.NodeTransformer):
    """Takes docstrings and our own decorator out."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._without(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._without(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without(node)

    def _without(self, node: Any) -> ast.AST:
        self.generic_visit(node)
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
        node.decorator_list = [decorator for decorator in node.decorator_list if not _is_ours(decorator)]
        return node  # type: ignore[no-any-return]


def _is_ours(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return name == _OWN_DECORATOR


def _all_code(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _all_code(constant)


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(alias.name, 0, (), package)
        elif isinstance(node, ast.ImportFrom):
            yield from _modules(node.module or "", node.level, [alias.name for alias in node.names], package)


def _modules(name: str, level: int, taken: Any, package: str) -> Iterator[str]:
    """The full names that an import statement may mean."""
    try:
        module = importlib.util.resolve_name("." * level + name, package) if level else name
    except ImportError:  # beyond the top: it fails when it is called
        return
    yield module
    yield from (f"{module}.{one}" for one in taken if one != "*")


def _with_parents(module: str) -> list[str]:
    steps = module.split(".")
    return [".".join(steps[: end + 1]) for end in range(len(steps))]


def _file_of(module: str) -> Path | None:
    top, *steps = module.split(".")
    for place in found_at(top):
        path = place.joinpath(*steps)
        for candidate in (path, path / "__init__.py", path.with_name(f"{path.name}.py")):
            if candidate.suffix == ".py" and candidate.is_file():
                return candidate
    return None


def _parsed(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
