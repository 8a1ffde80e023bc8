"""From the text ``pkg.module:name`` or ``file.py:name`` to the workload that it names."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from dcompute.errors import UsageError, WorkloadError


def load(target: str) -> Any:
    """The workload, function or class that ``target`` names.

    A module is looked for as ``python -m`` does, the working directory first. A file is executed as ``python file.py`` does,
    its own folder first on the path, and what it defines travels to workers by value.

    Raises
    ------
    UsageError
        The text is of neither form, or names nothing.
    WorkloadError
        The module cannot be imported: its own traceback is in the message.
    """
    value = named(target, "workload")
    if not callable(value):
        raise UsageError(f"{target} is of type {type(value).__name__}, not a function, a class or a workload")
    return value


def named(target: str, what: str, suits: Callable[[Any], bool] = callable) -> Any:
    """Whatever ``target`` names; see :func:`load`.

    Parameters
    ----------
    target
        ``pkg.module:name`` or ``file.py:name``.
    what
        What it should name, for the error where its form names nothing.
    suits
        Whether a value could be meant, for the error where the name is not there.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(f"{target!r} does not name a {what}: write pkg.module:name or file.py:name")
    module = _from_file(Path(place)) if place.endswith(".py") else _from_name(place)
    return _attribute(module, name, place, suits)


def _from_name(name: str) -> ModuleType:
    _first_on_path(str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            hint = f"; is {name}.py meant?" if Path(f"{name}.py").exists() else ""
            raise UsageError(f"there is no module {error.name!r} here or on Python's path{hint}") from error
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    path = path.resolve()
    _first_on_path(str(path.parent))
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _broken(path.name, error) from error
    _travels_by_value(module)
    return module


def _module_name(path: Path) -> str:
    """Its own name, unless that hides another module, as a file called ``queue.py`` would."""
    if path.stem not in sys.modules:
        found = importlib.util.find_spec(path.stem) if path.stem.isidentifier() else None
        if found is not None and found.origin is not None and Path(found.origin).resolve() == path:
            return path.stem
    return f"_file_{path.stem}"


def _travels_by_value(module: ModuleType) -> None:
    # Workers have neither this file nor its folder.
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)


def _first_on_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _broken(name: str, error: BaseException) -> WorkloadError:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _ours(frame.filename)]
    lines = traceback.format_list(frames) + traceback.format_exception_only(error)
    return WorkloadError(f"{name} cannot be imported; its own traceback:\n\n{''.join(lines).rstrip()}")


def _ours(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen importlib")


def _attribute(module: ModuleType, name: str, place: str, suits: Callable[[Any], bool]) -> Any:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise UsageError(f"{place} has no {name!r}{_alike(module, name, suits)}")
        value = getattr(value, part)
    return value


def _alike(module: ModuleType, name: str, suits: Callable[[Any], bool]) -> str:
    names = [key for key, value in vars(module).items() if suits(value) and not key.startswith("_")]
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; is {close[0]!r} meant?"
    return f"; it has {', '.join(sorted(names)[:10])}" if names else ""
