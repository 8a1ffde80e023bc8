"""A digest of code that stays while the code means the same: comments, line breaks, docstrings and our own decorator do not count.

It covers a function's source, its defaults, what its closure holds, and of the module's names that it uses: values, also those within
lists, mappings and objects, and functions and classes that are not installed (those of the standard library and of site-packages count by
name). Modules that it imports when it is called count as whole files. Where there is no source, or its file was edited after it was
executed, bytecode stands for it, which differs between versions of Python. What an object of an installed class holds is not seen, but for
those that Python itself has.
"""

from __future__ import annotations

import enum
import functools
import inspect
import re
import types
from collections import deque
from collections.abc import Callable, Mapping, Set
from hashlib import blake2b
from typing import Any

from dcompute.code.installed import is_installed
from dcompute.code.source import Modules, bytecode_of, globals_in, imported_in, names_in, source_of
from dcompute.keys import fingerprint

_DIGEST_BYTES = 16
#: So many things are looked at, and so deep: what holds more is told by the type of the rest.
_MOST, _DEEPEST = 10_000, 50


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
    """Reads each function, class and object once; what is met again stands by its place."""

    def __init__(self) -> None:
        self._met: dict[int, int] = {}
        self._kept: list[Any] = []  # an id is only good while its object lives
        self._modules = Modules()
        self._within: list[tuple[int, frozenset[str]]] = []  # modules that are being read
        self._deep = 0

    def read(self, found: Any) -> str:
        function = getattr(found, "function", None)
        if type(found).__name__ == "Workload" and callable(function):
            found = function
        return self._once(found, self._read_new)

    def _once(self, found: Any, read: Callable[[Any], str]) -> str:
        if id(found) in self._met:
            return f"#{self._met[id(found)]}"
        self._met[id(found)] = len(self._met)
        self._kept.append(found)
        if len(self._kept) > _MOST or self._deep > _DEEPEST:
            return "more"
        self._deep += 1
        try:
            return read(found)
        finally:
            self._deep -= 1

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
        return self._wrapped(found) if _is_wrapper(found) else self._instance(found)

    def _wrapped(self, found: Any) -> str:
        """A function of the user that something else stands before, such as a cache."""
        return f"{type(found).__qualname__} around {self._used(found.__wrapped__)}"

    def _instance(self, found: Any) -> str:
        state, kind = _state(found), type(found)
        # how an external program is run is ours: what is declared of it counts
        named = _name(kind) if kind.__module__.partition(".")[0] == "dcompute" else self.read(kind)
        return f"instance {named} {' '.join(f'{name}={self._value(state[name])}' for name in sorted(state))}"

    def _function(self, function: types.FunctionType) -> str:
        wrapped = inspect.unwrap(function)
        parts = [source_of(function) or bytecode_of(function.__code__)]
        if wrapped is not function and isinstance(wrapped, types.FunctionType):
            parts.append(self.read(wrapped))
        parts += [f"default {self._value(value)}" for value in function.__defaults__ or ()]
        parts += [f"default {name} {self._value(value)}" for name, value in sorted((function.__kwdefaults__ or {}).items())]
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            parts.append(f"holds {name} {self._value(_content(cell))}")
        names = names_in(function.__code__)
        for name in sorted(globals_in(function.__code__) & function.__globals__.keys()):
            parts.append(f"uses {name} {self._used(function.__globals__[name], names)}")
        parts += [f"imports {self._modules.text(module)}" for module in imported_in(function)]
        kinds = getattr(function, "registry", None)  # of functools.singledispatch
        if isinstance(kinds, Mapping):
            parts += [f"for {name} {self._used(each)}" for name, each in sorted((_name(kind), each) for kind, each in kinds.items())]
        return "\n".join(parts)

    def _class(self, found: type) -> str:
        parts = [f"class {found.__qualname__}"]
        parts += [f"base {self._used(base)}" for base in found.__bases__ if base is not object]
        for name, member in sorted(vars(found).items()):
            if name in ("__doc__", "__module__", "__dict__", "__weakref__", "__qualname__", "__firstlineno__", "__static_attributes__"):
                continue
            parts.append(f"member {name} {self._member(member)}")
        return "\n".join(parts)

    def _member(self, member: Any) -> str:
        if isinstance(member, staticmethod | classmethod):
            return f"{type(member).__name__} {self._used(member.__func__)}"
        if isinstance(member, property):
            return f"property {' '.join(self._used(part) for part in (member.fget, member.fset) if part is not None)}"
        if isinstance(member, functools.cached_property):
            return f"property {self._used(member.func)}"
        if isinstance(member, functools.singledispatchmethod):
            return f"by type {self._used(member.dispatcher)}"
        return self._used(member)

    def _used(self, found: Any, names: frozenset[str] = frozenset()) -> str:
        """Something that code refers to by name."""
        if isinstance(found, types.ModuleType):
            return self._module(found, names)
        if type(found).__name__ == "Workload" and hasattr(found, "function"):
            return self.read(found)
        if isinstance(found, types.FunctionType | type) or _is_wrapper(found):
            return _name(found) if is_installed(found.__module__ or "") else self.read(found)
        return self._value(found)

    def _module(self, module: types.ModuleType, names: frozenset[str]) -> str:
        if is_installed(module.__name__) or (id(module), names) in self._within:
            return f"module {module.__name__}"
        self._within.append((id(module), names))
        try:
            members = vars(module)
            parts = [f"{name} {self._of_module(members[name], names)}" for name in sorted(names & members.keys()) if name[:2] != "__"]
        finally:
            self._within.pop()
        return f"module {module.__name__} {' '.join(parts)}"

    def _of_module(self, member: Any, names: frozenset[str]) -> str:
        # of a package's module the code says the names too
        return self._used(member, names if isinstance(member, types.ModuleType) else frozenset())

    def _value(self, value: Any) -> str:
        if isinstance(value, types.MethodType | functools.partial):
            return self.read(value)
        if isinstance(value, types.FunctionType | type | types.ModuleType) or _is_wrapper(value) or type(value).__name__ == "Workload":
            return self._used(value)
        known = fingerprint(value)
        return known if known and not _is_own(value) else self._once(value, self._held)

    def _held(self, value: Any) -> str:
        """What a value holds that has no fingerprint, or one that says nothing of the code of its class; else its type."""
        kind = self._used(type(value))
        if isinstance(value, enum.Enum):
            return f"{kind} {value.name}"
        if isinstance(value, Mapping):
            return f"{kind} {[(self._value(key), self._value(value[key])) for key in _sorted(value)]}"
        if isinstance(value, list | tuple | deque):
            return f"{kind} {[self._value(one) for one in value]}"
        if isinstance(value, Set):
            return f"{kind} {[self._value(one) for one in _sorted(value)]}"
        if isinstance(value, re.Pattern):
            return f"pattern {value.pattern!r} {value.flags}"
        if isinstance(value, types.SimpleNamespace) or _is_own(value):
            return f"{kind} {fingerprint(value)} {self._instance(value)}"
        return f"a {_name(type(value))}"


def _is_own(value: Any) -> bool:
    """Whether the class of a value, or of one that it holds, is the user's."""
    waiting, looked = [value], 0
    while waiting and (looked := looked + 1) <= _MOST:
        one = waiting.pop()
        if not is_installed(type(one).__module__):
            return True
        if isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | deque | Set):
            waiting += one
    return False


def _name(found: Any) -> str:
    return f"{found.__module__}.{found.__qualname__}"


def _is_wrapper(found: Any) -> bool:
    """Whether it is an object that stands for a function, such as what ``functools.cache`` makes."""
    return (
        not isinstance(found, types.FunctionType | type | types.ModuleType | types.MethodType)
        and isinstance(getattr(type(found), "__module__", None), str)
        and isinstance(inspect.getattr_static(found, "__wrapped__", None), types.FunctionType)
    )


def _state(found: Any) -> dict[str, Any]:
    slots = [name for kind in type(found).__mro__ for name in _slots(kind)]
    return {**{name: getattr(found, name) for name in slots if hasattr(found, name)}, **getattr(found, "__dict__", {})}


def _slots(kind: type) -> list[str]:
    told = vars(kind).get("__slots__", ())
    return [name for name in ([told] if isinstance(told, str) else list(told)) if not name.startswith("__")]


def _sorted(values: Any) -> list[Any]:
    """In an order that every process gives them."""
    return sorted(values, key=lambda value: (_name(type(value)), fingerprint(value) or getattr(value, "__qualname__", "")))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
