"""What travels: a workload as bytes that a child opens, and digests that tell whether code or params changed.

What stands in an importable module travels by its name, so that a child imports it as it is on disk; what stands in a script or a notebook
travels by value. Digests are made from source text, not from pickles, which differ between processes that mean the same.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

from dcompute.checks.forms import is_expression, is_pandera
from dcompute.code.digest import code_digest, stable_text
from dcompute.code.params import giver
from dcompute.code.shipping import ShippedModule, zip_module
from dcompute.errors import InputError, WorkloadError
from dcompute.keys import fingerprint
from dcompute.program import Program
from dcompute.workload import STATE, Workload

__all__ = ["Loaded", "Reference", "ShippedModule", "Travelling", "code_digest", "load", "pack", "params_digest", "zip_module"]

_DIGEST_BYTES = 16
_OPEN_THERE = "Open what cannot be pickled (connections, files) in the function, in a class's __init__ or in an initializer="
_PLAIN = "Pass plain data (numbers, text, dates, lists, dicts, arrays, dataframes) or a path, and build the object in the workload"


class Travelling(NamedTuple):
    """A workload ready to go."""

    code: bytes  #: for :func:`load`
    code_digest: str
    params_digest: str


@dataclass(frozen=True, slots=True)
class Reference:
    """Something by the name under which every process can import it."""

    module: str
    qualname: str

    def resolve(self) -> Any:
        """The function or class itself, from behind a decorator of ours."""
        import importlib

        try:
            found: Any = importlib.import_module(self.module)
            for part in self.qualname.split("."):
                found = getattr(found, part)
        except Exception as error:
            raise WorkloadError(
                f"{self.module}.{self.qualname} cannot be imported here ({type(error).__name__}: {error}): install its module on the "
                f'workers, or send it with modules=["{self.module.partition(".")[0]}"]'
            ) from error
        return found.function if isinstance(found, Workload) else found


@dataclass(slots=True)
class Loaded:
    """A workload as a child has it, not set up yet."""

    function: Callable[..., Any]
    params: Mapping[str, Any]  #: all of them, as ``dc.current()`` shows them
    initializer: Callable[..., Any] | None = None
    setup_params: Mapping[str, Any] = field(default_factory=dict)
    call_params: Mapping[str, Any] = field(default_factory=dict)
    keywords: bool = False
    group: int | None = None

    def start(self) -> Callable[[Any], Any]:
        """Set up, and give a function of one value; with ``group``, of a list of values.

        Raises
        ------
        Exception
            Whatever the set-up raises.
        """
        call: Callable[..., Any] = self.function
        given = giver(self.call_params)
        state: dict[str, Any] = {}
        if isinstance(call, type):
            call = call(**self.setup_params)
        elif self.initializer is not None:
            state = {STATE: self.initializer(**self.setup_params)}
        elif isinstance(call, Program):
            call.set_up()
        if self.keywords and self.group is None:
            return lambda value: call(**value, **given(), **state)
        return (lambda value: call(value, **given(), **state)) if self.call_params or state else call


def pack(workload: Workload, params: Mapping[str, Any], *, keywords: bool = False) -> Travelling:
    """The workload and its params as bytes, with the digests of both.

    Parameters
    ----------
    workload
        What to do.
    params
        Keyword arguments that are the same for every item.
    keywords
        Values are mappings of keyword arguments.

    Raises
    ------
    WorkloadError
        Something in it cannot be pickled, or a param has a name that nothing takes.
    """
    if not all(isinstance(name, str) for name in params):
        raise WorkloadError(f"params has the name {next(name for name in params if not isinstance(name, str))!r}: names are text")
    _let_main_travel()
    setup_params, call_params = workload.split_params(params)
    if not keywords:
        workload.check_call(params)
    content = {
        "function": _reference(workload.function) or workload.function,
        "initializer": _reference(workload.initializer) or workload.initializer,
        "params": dict(params),
        "for_setup": tuple(setup_params),
        "for_call": tuple(call_params),
        "keywords": keywords,
        "group": workload.group,
    }
    return Travelling(_pickled(content, workload.name), _digest_of(workload), params_digest(params))


def _digest_of(workload: Workload) -> str:
    """That of its code; other checks would have let other rows pass."""
    digest, needs = code_digest(workload.function, workload.initializer), workload.requirements
    if not needs.checks:
        return digest
    texts = [digest, needs.on_invalid, *(f"{check.name}={_check_text(check.given)}" for check in needs.checks)]
    return blake2b("\n".join(texts).encode("utf-8", "backslashreplace"), digest_size=_DIGEST_BYTES).hexdigest()


def _check_text(given: Any) -> str:
    if is_expression(given):
        return str(given)
    if is_pandera(given):
        from dcompute.checks.panderas import text_of

        return text_of(given)
    return stable_text(given)


def load(data: bytes) -> Loaded:
    """The workload that :func:`pack` packed; to be called in a child only, since it executes user code.

    Raises
    ------
    WorkloadError
        It cannot be imported or opened here; the cause is in the message.
    """
    import pickle

    try:
        content = pickle.loads(data)  # noqa: S301  from the driver of this run, by Dask's own wire
    except Exception as error:
        raise WorkloadError(
            f"the workload cannot be opened here ({type(error).__name__}: {error}): install on the workers what it imports, or send a "
            "local package with modules=[...]"
        ) from error
    params = content["params"]
    return Loaded(
        function=_resolved(content["function"]),
        params=params,
        initializer=_resolved(content["initializer"]),
        setup_params={name: params[name] for name in content["for_setup"]},
        call_params={name: params[name] for name in content["for_call"]},
        keywords=content["keywords"],
        group=content["group"],
    )


def params_digest(params: Mapping[str, Any]) -> str:
    """Changes when a param does.

    Raises
    ------
    InputError
        Names a param that is not there yet, or of which it cannot be told whether it changed.
    """
    from dcompute.inputs.instead import instead
    from dcompute.inputs.lazy import Finder

    for name, value in params.items():
        Finder().refuse((value,), f"params[{name!r}]")
        is_code = isinstance(value, types.FunctionType | types.MethodType | type | functools.partial)
        if not is_code and not fingerprint(value):
            found = instead(value)
            raise InputError(
                f"params[{name!r}], a {type(value).__qualname__}, cannot be compared from run to run: a change would go unnoticed. "
                f"{found.text if found is not None else _PLAIN}"
            )
    texts = [f"{name}={stable_text(params[name])}" for name in sorted(params)]
    return blake2b("\n".join(texts).encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _let_main_travel() -> None:
    """What multiprocessing calls the script in a process that it spawned is the script: no other process can import it."""
    main = sys.modules.get("__mp_main__")
    if main is not None and main.__name__ == "__mp_main__":
        import cloudpickle

        cloudpickle.register_pickle_by_value(main)


def _resolved(found: Any) -> Any:
    return found.resolve() if isinstance(found, Reference) else found


def _pickled(content: dict[str, Any], name: str) -> bytes:
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(content))
    except Exception as error:
        from dcompute.inputs.instead import instead

        what, culprit = _culprit(content, name)
        found = instead(culprit, is_refused=True) if culprit is not None else None
        raise WorkloadError(
            f"{what} cannot be sent to workers: {type(error).__name__}: {error}. {found.text if found is not None else _OPEN_THERE}"
        ) from error


def _culprit(content: dict[str, Any], name: str) -> tuple[str, Any]:
    """What in a workload cannot travel, by its name and itself."""
    params, function, initializer = content["params"], content["function"], content["initializer"]
    for key, value in params.items():
        if not _can_travel(value):
            return f"params[{key!r}], a {type(value).__qualname__},", value
    what, code = ("initializer", initializer) if not _can_travel(initializer) else (name, function)
    for variable, value in _variables(code):
        if not _can_travel(value):
            return f"{what}, which uses the variable {variable!r}, a {type(value).__qualname__},", value
    return what, None


def _variables(function: Any) -> list[tuple[str, Any]]:
    """The variables from around a function that it uses, and what they hold."""
    try:
        found = inspect.getclosurevars(function)
    except (TypeError, ValueError):  # of a class, of a builtin
        return []
    return [*found.nonlocals.items(), *found.globals.items()]


def _can_travel(value: Any) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception:  # noqa: BLE001  whatever it is, this is the part that the error is about
        return False
    return True


def _reference(function: Any) -> Reference | None:
    """Its name, where every process that has the module gets the same by importing it; None where it must travel by value."""
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or not _is_importable(module):
        return None
    found: Any = sys.modules[module]
    for part in qualname.split("."):
        found = getattr(found, part, None)
    behind = found.function if isinstance(found, Workload) else found
    return Reference(module, qualname) if behind is function else None


def _is_importable(name: str) -> bool:
    import cloudpickle

    module = sys.modules.get(name)
    if module is None or name == "__main__":
        return False
    by_value = cloudpickle.list_registry_pickle_by_value()
    parents = [name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1)]
    # a module made on the fly has no spec, and nobody else can import it
    return not any(parent in by_value for parent in parents) and (getattr(module, "__spec__", None) is not None or name == "builtins")
