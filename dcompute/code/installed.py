"""Which modules come with Python or were installed: they do not change with the user's work, and count by name."""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path


@functools.cache
def is_installed(module: str) -> bool:
    """Whether a module is of the standard library, of site-packages or of dcompute; what nobody imported is looked for, not imported."""
    top = module.partition(".")[0]
    if top in sys.builtin_module_names or top in sys.stdlib_module_names or top == "dcompute":
        return True
    if top == "__main__":
        return False
    imported = sys.modules.get(module) or sys.modules.get(top)
    return any(_is_below(path) for path in (_places(imported) if imported is not None else found_at(top)))


def is_users(file: str) -> bool:
    """Whether code in a file is the user's own."""
    path = Path(file).resolve()
    return path.suffix == ".py" and not _is_below(path) and not path.is_relative_to(Path(__file__).resolve().parents[1])


def found_at(module: str) -> list[Path]:
    """The file, or the folders, of a top-level module or package that is not imported; nothing where there is none."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    folders = [Path(place).resolve() for place in spec.submodule_search_locations or ()]
    return folders or ([Path(spec.origin).resolve()] if spec.has_location and spec.origin else [])


def _places(module: types.ModuleType) -> Iterator[Path]:
    for place in (getattr(module, "__file__", None), *getattr(module, "__path__", ())):
        if isinstance(place, str):
            yield Path(place).resolve()


@functools.cache
def _folders() -> tuple[Path, ...]:
    import site
    import sysconfig

    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    with_user = [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(Path(path).resolve() for path in {*paths, *with_user} if path)


def _is_below(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in _folders())
