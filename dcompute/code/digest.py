"""A digest of code that stays while the code means the same: comments, line breaks, docstrings and our own decorator do not count.

It covers a function's source, its defaults, what its closure holds, and of the module's names that it uses: values, and functions and
classes that are not installed (those of the standard library and of site-packages count by name). Where there is no source, bytecode stands
for it, which differs between versions of Python.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dcompute.keys import fingerprint

_DIGEST_BYTES = 16
_OWN_DECORATOR = "workload"
_DEEPEST = 50


def code_digest(*functions: Callable[..., Any] | None) -> str:
    """32 hex digits for functions and classes with all of theirs."""
    reader = _Reader()
    texts = [reader.read(function) for function in functions if function is not None]
    return blake2b("\n".join(texts).encode("utf-8", "backslashreplace"), digest_size=_DIGEST_BYTES).hexdigest()


def stable_text(value: Any) -> str:
    """A text that changes when a value does: its fingerprint, the code of a function, else its type only."""
    if isinstance(value, (types.FunctionType, types.MethodType, type, functools.partial)):
        return f"code {code_digest(value)}"
    return fingerprint(value) or f"a {type(value).__module__}.{type(value).__qualname__}"


class _Reader:
    """Reads each function and class once; what is met again stands by its place."""

    def __init__(self) -> None:
        self._met: dict[int, int] = {}
        self._kept: list[Any] = []  # an id is only good while its object lives

    def read(self, found: Any) -> str:
        function = getattr(found, "function", None)
        if type(found).__name__ == "Workload" and callable(function):
            found = function
        if id(found) in self._met:
            return f"#{self._met[id(found)]}"
        self._met[id(found)] = len(self._met)
        self._kept.append(found)
        if len(self._met) > 1 and len(self._kept) > 10_000:
            return "more"
        return self._read_new(found)

    def _read_new(self, found: Any) -> str:
        if isinstance(found, functools.partial):
            values = [*found.args, *(value for _, value in sorted(found.keywords.items()))]
            return f"partial {self.read(found.func)} {sorted(found.keywords)} {' '.join(map(self._value, values))}"
        if isinstance(found, types.MethodType):
            return f"method {self.read(found.__func__)} of {self._value(found.__self__)}"
        if isinstance(found, types.FunctionType):
            return self._function(found)
        if isinstance(found, type):
            return self._class(found)
        if isinstance(found, types.BuiltinFunctionType | types.MethodDescriptorType):
            return f"builtin {getattr(found, '__module__', '')}.{found.__qualname__}"
        # an instance with __call__
        kind = type(found)
        state = getattr(found, "__dict__", {})
        return f"instance {self.read(kind)} {' '.join(f'{name}={self._value(state[name])}' for name in sorted(state))}"

    def _function(self, function: types.FunctionType) -> str:
        wrapped = inspect.unwrap(function)
        parts = [_source(function) or _bytecode(function.__code__)]
        if wrapped is not function and isinstance(wrapped, types.FunctionType):
            parts.append(self.read(wrapped))
        parts += [f"default {self._value(value)}" for value in function.__defaults__ or ()]
        parts += [f"default {name} {self._value(value)}" for name, value in sorted((function.__kwdefaults__ or {}).items())]
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            parts.append(f"holds {name} {self._value(_content(cell))}")
        names = _names(function.__code__)
        for name in sorted(names & function.__globals__.keys()):
            parts.append(f"uses {name} {self._used(function.__globals__[name], names)}")
        return "\n".join(parts)

    def _class(self, found: type) -> str:
        parts = [f"class {found.__qualname__}"]
        parts += [f"base {self._used(base, frozenset())}" for base in found.__bases__ if base is not object]
        for name, member in sorted(vars(found).items()):
            if name in ("__doc__", "__module__", "__dict__", "__weakref__", "__qualname__", "__firstlineno__", "__static_attributes__"):
                continue
            parts.append(f"member {name} {self._member(member)}")
        return "\n".join(parts)

    def _member(self, member: Any) -> str:
        if isinstance(member, staticmethod | classmethod):
            return f"{type(member).__name__} {self._used(member.__func__, frozenset())}"
        if isinstance(member, property):
            return f"property {' '.join(self._used(part, frozenset()) for part in (member.fget, member.fset) if part is not None)}"
        if isinstance(member, functools.cached_property):
            return f"property {self._used(member.func, frozenset())}"
        return self._used(member, frozenset())

    def _used(self, found: Any, names: frozenset[str]) -> str:
        """Something that code refers to by name."""
        if isinstance(found, types.ModuleType):
            return self._module(found, names)
        if type(found).__name__ == "Workload" and hasattr(found, "function"):
            return self.read(found)
        if isinstance(found, types.FunctionType | type):
            return f"{found.__module__}.{found.__qualname__}" if _is_installed(found.__module__) else self.read(found)
        return self._value(found)

    def _module(self, module: types.ModuleType, names: frozenset[str]) -> str:
        if _is_installed(module.__name__):
            return f"module {module.__name__}"
        members = vars(module)
        parts = [f"{name} {self._used(members[name], frozenset())}" for name in sorted(names & members.keys()) if not name.startswith("__")]
        return f"module {module.__name__} {' '.join(parts)}"

    def _value(self, value: Any) -> str:
        if isinstance(value, types.FunctionType | types.MethodType | functools.partial | type | types.ModuleType):
            return self._used(value, frozenset()) if not isinstance(value, functools.partial | types.MethodType) else self.read(value)
        if type(value).__name__ == "Workload" and hasattr(value, "function"):
            return self.read(value)
        return fingerprint(value) or f"a {type(value).__module__}.{type(value).__qualname__}"


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


# --------------------------------------------------------------------------------------------------------------------------- texts


def _source(function: types.FunctionType) -> str | None:
    """The source without what does not change its meaning; None where there is none of its own."""
    if function.__name__ == "<lambda>":  # its lines hold more than itself
        return None
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    if (
        len(tree.body) != 1
        or not isinstance(tree.body[0], ast.FunctionDef | ast.AsyncFunctionDef)
        or tree.body[0].name != function.__name__
    ):
        return None
    return ast.unparse(_Plain().visit(tree))


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


def _bytecode(code: types.CodeType) -> str:
    constants = [_bytecode(constant) if isinstance(constant, types.CodeType) else fingerprint(constant) for constant in code.co_consts]
    parts = [code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars, code.co_argcount, code.co_kwonlyargcount]
    return f"bytecode {sys.version_info[:2]} {parts}"


def _names(code: types.CodeType) -> frozenset[str]:
    """Names of globals and attributes in code, and in the functions within it."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(code.co_names).union(*map(_names, inner))


@functools.cache
def _folders() -> tuple[Path, ...]:
    import site
    import sysconfig

    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    with_user = [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(Path(path).resolve() for path in {*paths, *with_user} if path)


@functools.cache
def _is_installed(module: str) -> bool:
    """Whether a module is of the standard library, of site-packages or of dcompute: it does not change with the user's work."""
    top = module.partition(".")[0]
    if top in sys.builtin_module_names or top in sys.stdlib_module_names or top == "dcompute":
        return True
    if top == "__main__":
        return False
    return any(_is_below(path) for path in _places(sys.modules.get(module) or sys.modules.get(top)))


def _places(module: types.ModuleType | None) -> Iterator[Path]:
    for place in (getattr(module, "__file__", None), *getattr(module, "__path__", ())):
        if isinstance(place, str):
            yield Path(place).resolve()


def _is_below(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in _folders())
