"""Values that are not there yet: futures and delayed objects, which have no place in inputs or params."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dcompute.errors import InputError

#: So deep in lists, tuples and mappings they are looked for.
DEEPEST = 5


class Finder:
    """Finds what stands for a value; types that do not are looked at once."""

    def __init__(self) -> None:
        self._known: set[type] = {str, int, float, bool, bytes, type(None)}

    def refuse(self, values: Collection[Any], what: str = "inputs") -> None:
        """Refuse values that are not there yet, or hold such.

        Raises
        ------
        InputError
            Which says what to pass in its place.
        """
        found = self._first(values, 0)
        if found is not None:
            raise InputError(_told(found, what))

    def _first(self, values: Collection[Any], depth: int) -> Any:
        known = self._known
        if known.issuperset(map(type, values)):
            return None
        for value in values:
            if type(value) in known:
                continue
            held = _held(value)
            if held is None:
                if is_lazy(value):
                    return value
                known.add(type(value))
            elif depth < DEEPEST and (found := self._first(held, depth + 1)) is not None:
                return found
        return None


def _held(value: Any) -> Collection[Any] | None:
    """What lies in a list, a tuple or a mapping; None for anything else."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, (list, tuple)) else None


def is_lazy(value: Any) -> bool:
    """Whether it stands for a value that is not there yet."""
    kind = type(value)
    return _is_future(kind) or ("dask" in _modules(kind) and hasattr(value, "__dask_graph__"))


def _is_future(kind: type) -> bool:
    return any(base.__name__ == "Future" for base in kind.__mro__)


def _modules(kind: type) -> set[str]:
    return {base.__module__.partition(".")[0] for base in kind.__mro__}


def _told(value: Any, what: str) -> str:
    kind, several = type(value), what == "inputs"
    if _is_future(kind):
        plain = "[future.result() for future in inputs]" if several else f"{what}.result()"
        line = f"client.gather({what})" if "distributed" in _modules(kind) else plain
        return f"{what} has a future, whose value lies on a worker: pass {line}, or make its work a part of the workload"
    line = "dask.compute(*inputs) for a list of them, inputs.compute() for one" if several else f"dask.compute({what})[0]"
    name = f"{kind.__module__}.{kind.__qualname__}"
    return f"{what} has a {name}, which is not computed yet: pass {line}, or make its work a part of the workload"
