"""What to do with one input: a function or a class, with what it needs."""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, overload

from dcompute.errors import WorkloadError
from dcompute.program import Program
from dcompute.records import Affinity, Request
from dcompute.requirements import Requirements
from dcompute.resources import format_bytes

if TYPE_CHECKING:
    from dcompute.checks.forms import Check
    from dcompute.retry import Retry

#: Keyword under which a function gets the value of its initializer.
STATE = "state"


class Workload:
    """A function or a class with its requirements; it can still be called as what it was.

    Made by :func:`workload`. A class is set up once a child process (``__init__``) and called for each item (``__call__``).
    """

    def __init__(self, function: Callable[..., Any], requirements: Requirements | None = None) -> None:
        self.function = function
        self.requirements = requirements or Requirements()
        _check_function(function, self.requirements)
        if isinstance(function, Program):
            function.check_requirements(self.requirements)
        _check_schema(self.requirements.schema)
        _check_renames(self.requirements.renames)
        _check_checks(self.requirements)
        functools.update_wrapper(self, function, updated=())

    @classmethod
    def of(cls, workload: Any) -> Workload:
        """The workload that a function, a class or a workload stands for.

        Raises
        ------
        WorkloadError
            It is nothing that can be called with an input.
        """
        return workload if isinstance(workload, Workload) else cls(workload)

    def options(self, **requirements: Any) -> Workload:
        """The same work with other requirements, by the names that :func:`workload` takes."""
        return Workload(self.function, Requirements.of(requirements, self.requirements))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns, or an instance of the class: here and now, with no limits."""
        return self.function(*args, **kwargs)

    @property
    def name(self) -> str:
        """What a dataset calls it: the function's own name, ``<lambda>`` for every lambda."""
        return _name_of(self.function)

    @property
    def is_lambda(self) -> bool:
        """Whether its name is that of all lambdas, and tells nothing."""
        return self.name.rpartition(".")[2] == "<lambda>"

    @property
    def is_class(self) -> bool:
        """Whether it is set up once and called for each item."""
        return isinstance(self.function, type)

    def request(self) -> Request:
        """What its items ask of a worker."""
        needs = self.requirements
        return Request(
            cpus=needs.cpus,
            gpus=needs.gpus,
            memory=needs.memory,
            resources=needs.resources,
            priority=needs.priority,
            uses=needs.uses,
            affinity=needs.affinity,
        )

    def retry_policy(self) -> Retry:
        """Who is tried again."""
        from dcompute.retry import Retry

        return Retry.of(self.requirements.retries)

    def delayed(self, value: Any) -> Any:
        """A plain ``dask.delayed`` of one call, for a graph of your own, with annotations for the requirements.

        It executes in a supervised child process with timeout and memory limit, writes nothing, and gives what the function returns;
        a failure is raised as :class:`~dcompute.errors.ItemError` with the remote traceback. Since no driver counts slots here, workers
        must declare what annotations name: ``CPU`` where ``cpus=`` is not 1, ``MEMORY`` (bytes) where ``memory=`` is, ``GPU`` where
        ``gpus=`` is, and every name of ``resources=``. ``dask worker --preload dcompute.worker`` declares the first three. A task that asks
        for what no worker declares waits for ever. Keep the setting ``optimization.fuse.delayed`` off, which drops annotations.

        Parameters
        ----------
        value
            The input; another delayed object too.
        """
        from dcompute.graph import delayed_call

        return delayed_call(self, value)

    @property
    def timeout(self) -> float | None:
        """Seconds for one call."""
        return self.requirements.timeout

    @property
    def grace(self) -> float:
        """Seconds that a call has after its timeout, or a cancel, to end what it started."""
        # a second more: who ends it should not be ended in the middle of that
        return self.function.grace + 1.0 if isinstance(self.function, Program) else 0.0

    @property
    def isolation(self) -> str:
        """``process`` or ``thread``."""
        return self.requirements.isolation

    @property
    def version(self) -> str | None:
        """The declared version."""
        return self.requirements.version

    @property
    def schema(self) -> Any:
        """The declared schema of the results."""
        return self.requirements.schema

    @property
    def renames(self) -> tuple[tuple[str, str], ...]:
        """Columns of earlier results that have other names from now on: old and new ones."""
        return self.requirements.renames

    @property
    def checks(self) -> tuple[Check, ...]:
        """What must be true of each row of the results."""
        return self.requirements.checks

    @property
    def initializer(self) -> Callable[..., Any] | None:
        """Called once a child."""
        return self.requirements.initializer

    @property
    def group(self) -> int | None:
        """Values a call."""
        return self.requirements.group

    @property
    def idempotent(self) -> bool:
        """Whether an item may be executed again."""
        return self.requirements.idempotent

    def split_params(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Params for the set-up, and for each call: each goes where its name is taken, to both if both take it.

        Raises
        ------
        WorkloadError
            A name that neither takes.
        """
        setup = self.function if self.is_class else self.initializer
        call = self.function.__call__ if isinstance(self.function, type) else self.function
        for_setup = _taken(setup, params, bound=False) if setup is not None else {}
        for_call = _taken(call, params, bound=self.is_class)
        if not self.is_class and self.initializer is not None and STATE in params:
            raise WorkloadError(
                f"params has the name {STATE!r}, under which {self.name} gets the value of its initializer: use another name"
            )
        for name in params:
            if name not in for_setup and name not in for_call:
                raise WorkloadError(f"{self.name} takes no argument {name!r}, which params has{self._alike(name, setup, call)}")
        return for_setup, for_call

    def _alike(self, name: str, *callables: Any) -> str:
        known = [parameter for function in callables if function is not None for parameter in _parameters(function) or ()]
        close = difflib.get_close_matches(name, known, n=1)
        return f"; is {close[0]!r} meant?" if close else ""

    def check_call(self, params: Mapping[str, Any], keywords: tuple[str, ...] | None = None) -> None:
        """Refuse what can be seen to fail at every call.

        Parameters
        ----------
        params
            The same for every item.
        keywords
            Names of a table's columns or a grid's axes, where inputs are keyword arguments; None: an input is the one positional argument.

        Raises
        ------
        WorkloadError
            Which names the argument.
        """
        _, for_call = self.split_params(params)
        if isinstance(self.function, Program):
            self.function.check_names(params, keywords)
        both = sorted(set(for_call) & set(keywords or ()))
        if both:
            raise WorkloadError(f"{self.name} would get {both[0]!r} twice: from params and from every input. Rename one of them")
        call = self.function.__call__ if isinstance(self.function, type) else self.function
        signature = _signature(call)
        if signature is None:
            return
        given = {**for_call, **({STATE: None} if self.initializer is not None else {})}
        inputs = [None] * (self.is_class + (keywords is None or self.group is not None))
        try:
            signature.bind(*inputs, **given, **(dict.fromkeys(keywords or ()) if self.group is None else {}))
        except TypeError as error:
            how = (
                "one positional argument" if keywords is None or self.group else f"the keyword arguments {', '.join(keywords) or '(none)'}"
            )
            with_params = f" and {', '.join(map(repr, given))}" if given else ""
            raise WorkloadError(f"{self.name}{signature} cannot be called with {how}{with_params}: {error}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        # by reference where the module has it under its name: a function hidden behind its decorator cannot be pickled so
        module = sys.modules.get(self.function.__module__ or "") if hasattr(self.function, "__module__") else None
        found = _resolve(module, getattr(self.function, "__qualname__", ""))
        if module is not None and found is self and _is_importable(module.__name__):
            return (_imported, (module.__name__, self.function.__qualname__))
        return (Workload, (self.function, self.requirements))

    def __repr__(self) -> str:
        standard = Requirements()
        changed = {
            field.name: getattr(self.requirements, field.name)
            for field in fields(Requirements)
            if getattr(self.requirements, field.name) != getattr(standard, field.name)
        }
        if "memory" in changed:
            changed["memory"] = format_bytes(changed["memory"])
        return f"<Workload {self.name}{''.join(f' {name}={value!r}' for name, value in changed.items())}>"


@overload
def workload(function: Callable[..., Any], /) -> Workload: ...


@overload
def workload(
    function: None = None,
    /,
    *,
    cpus: float = 1,
    gpus: float = 0,
    memory: float | str | None = None,
    resources: Mapping[str, float] | None = None,
    timeout: float | str | timedelta | None = None,
    retries: int | Retry | None = None,
    priority: int | str = 0,
    uses: Mapping[str, float] | None = None,
    affinity: Affinity | Sequence[Affinity] | None = None,
    isolation: Literal["process", "thread"] = "process",
    version: str | None = None,
    schema: Any = None,
    renames: Mapping[str, str] | None = None,
    checks: Any = None,
    on_invalid: Literal["keep", "refuse"] = "keep",
    initializer: Callable[..., Any] | None = None,
    group: int | None = None,
    idempotent: bool = True,
) -> Callable[[Callable[..., Any]], Workload]: ...


def workload(function: Callable[..., Any] | None = None, /, **requirements: Any) -> Workload | Callable[[Callable[..., Any]], Workload]:
    """A workload from the function or class below it; used with and without arguments.

    Parameters
    ----------
    cpus
        Cores of one call.
    gpus
        Devices of one call; workers must declare them.
    memory
        Limit for one call and all its processes, as ``"2 GiB"``; without it the slot's share of its worker's.
    resources
        Named resources of one call, which workers must declare.
    timeout
        Time for one call, as ``"10 min"``; it is killed after that.
    retries
        More attempts for any failure of the item itself, or a :class:`~dcompute.Retry`; None: by kind of failure.
    priority
        Higher goes first: a number, or one of ``"urgent"`` (20), ``"high"`` (10), ``"normal"`` (0) and ``"low"`` (-10).
    uses
        What one item uses of named limits, as ``{"licence": 1, "api": 2}``: a run says how much there is of each.
    affinity
        Where items may go: :func:`~dcompute.on`, :func:`~dcompute.off`, :func:`~dcompute.together`, :func:`~dcompute.apart`.
    isolation
        ``"process"``: a supervised child process. ``"thread"``: the worker's own thread, with neither timeout nor memory limit; what is
        printed is not recorded, and what an item changes in its process stays.
    version
        A change of it redoes finished items; ``"code"`` takes the digest of the code for it.
    schema
        Of the results: a ``pyarrow.Schema``, or names and types; None: it grows with the results.
    renames
        Columns of earlier results that this one returns under other names: old names and new ones. They have the new names from the run
        on; of a renaming that was done before nothing is done.
    checks
        What must be true of each row that it returns: expressions such as ``pyarrow.compute.field("x") > 0``, functions of an Arrow table
        that give true or false for each row, or a ``DataFrameSchema`` of pandera; one, a list, or a mapping from names. Null is not true.
        A row that does not pass goes to the quarantine.
    on_invalid
        ``"keep"``: the other rows of the item count. ``"refuse"``: the item fails.
    initializer
        Called once a child process; its value arrives as the keyword ``state``.
    group
        The function takes a list of up to so many values and returns a list with one result for each.
    idempotent
        False: an item is executed at most once, and every failure is final.

    Raises
    ------
    WorkloadError
        A requirement that makes no sense, or two that do not go together.

    Examples
    --------
    >>> import dcompute as dc
    >>> @dc.workload(memory="2 GiB", timeout="10 min")
    ... def double(number):
    ...     return 2 * number
    >>> double(21)
    42
    >>> double.options(cpus=4)
    <Workload double cpus=4.0 memory='2 GiB' timeout=600.0>
    """
    checked = Requirements.of(requirements)
    if function is not None:
        return Workload(function, checked)
    return lambda function: Workload(function, checked)


# ---------------------------------------------------------------------------------------------------------------------- functions


def _check_function(function: Any, requirements: Requirements) -> None:
    if not callable(function):
        raise WorkloadError(f"{function!r} is no workload: it takes a function, a class with __call__, or what @dc.workload made of one")
    if isinstance(function, type) and "__call__" not in dir(function):
        raise WorkloadError(f"the class {function.__qualname__} has no __call__, which is called for each item")
    if isinstance(function, type) and not any("__call__" in vars(base) for base in function.__mro__):
        raise WorkloadError(f"the class {function.__qualname__} has no __call__, which is called for each item")
    if isinstance(function, type) and requirements.initializer is not None:
        raise WorkloadError(f"the class {function.__qualname__} is set up by its __init__: leave initializer= out")
    call = function.__call__ if isinstance(function, type) else function
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        raise WorkloadError(f"{_name_of(function)} is asynchronous: call asyncio.run(...) in an ordinary function")
    taken = _parameters(function) if requirements.initializer is not None else None
    if taken is not None and STATE not in taken and not _takes_any(function):
        raise WorkloadError(f"{_name_of(function)} takes no argument {STATE!r}, under which it gets the value of its initializer")


def _check_schema(schema: Any) -> None:
    if schema is not None:
        # Arrow is loaded by those only who declare one
        from dcompute.dataset.schema import declared

        declared(schema)


def _check_renames(renames: tuple[tuple[str, str], ...]) -> None:
    if renames:
        from dcompute.dataset.renames import pairs_of

        pairs_of(dict(renames))


def _check_checks(requirements: Requirements) -> None:
    """An expression that asks for what a declared schema has not can never be true."""
    if requirements.schema is None or not requirements.checks:
        return
    from dcompute.checks.judging import refuse_unknown
    from dcompute.dataset.schema import declared

    refuse_unknown(requirements.checks, declared(requirements.schema))


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _signature(function: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # builtins do not tell
        return None


def _parameters(function: Any) -> list[str] | None:
    """Names that a callable takes by keyword; None where it does not tell."""
    signature = _signature(function)
    if signature is None:
        return None
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, parameter in signature.parameters.items() if parameter.kind in by_name]


def _takes_any(function: Any) -> bool:
    signature = _signature(function)
    return signature is None or any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values())


def _taken(function: Any, params: Mapping[str, Any], *, bound: bool) -> dict[str, Any]:
    if _takes_any(function):
        return dict(params)
    names = (_parameters(function) or [])[bound:]
    return {name: value for name, value in params.items() if name in names}


def _resolve(module: Any, qualname: str) -> Any:
    found = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _is_importable(name: str) -> bool:
    if name == "__main__":
        return False
    cloudpickle = sys.modules.get("cloudpickle")
    return cloudpickle is None or name not in cloudpickle.list_registry_pickle_by_value()


def _imported(module: str, qualname: str) -> Any:
    import importlib

    return _resolve(importlib.import_module(module), qualname)
