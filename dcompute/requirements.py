"""What one call of a workload needs and how it is done: checked, and in plain units."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dcompute.affinity import affinities_of
from dcompute.errors import UsageError, WorkloadError
from dcompute.priority import parse_priority
from dcompute.records import Affinity
from dcompute.resources import DISK, OWN_NAMES, parse_bytes, parse_seconds

if TYPE_CHECKING:
    from dcompute.checks.forms import Check
    from dcompute.retry import Retry

_LEAST_MEMORY = 1 << 20
_LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What one call needs and how it is done, checked and in plain units."""

    cpus: float = 1.0  #: cores
    gpus: float = 0.0  #: whole or shared devices
    memory: int | None = None  #: bytes for one call with all its processes; None: the slot's share of its worker's
    resources: tuple[tuple[str, float], ...] = ()  #: named resources, sorted by name
    timeout: float | None = None  #: seconds for one call
    retries: int | Retry | None = None  #: more attempts, or a policy; None: by kind of failure
    priority: int = 0  #: higher goes first; names are numbers here
    uses: tuple[tuple[str, float], ...] = ()  #: of named limits, sorted by name
    affinity: tuple[Affinity, ...] = ()  #: where items may go
    isolation: str = "process"  #: or "thread"
    version: str | None = None  #: a change of it redoes finished items; "code": the code's own digest
    schema: Any = None  #: of the results; None: it grows
    renames: tuple[tuple[str, str], ...] = ()  #: old and new names of columns that earlier results have
    checks: tuple[Check, ...] = ()  #: of the rows of the results
    on_invalid: str = "keep"  #: or "refuse": what becomes of an item with a row that does not pass
    initializer: Callable[..., Any] | None = None  #: called once a child; its value is the keyword ``state``
    group: int | None = None  #: the function takes a list of up to so many values
    idempotent: bool = True  #: False: an item is executed at most once

    @classmethod
    def of(cls, given: Mapping[str, Any], base: Requirements | None = None) -> Requirements:
        """Requirements from what a user wrote.

        Raises
        ------
        UsageError
            There is no requirement of that name.
        WorkloadError
            A value makes no sense, or two do not go together.
        """
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f"; is {close[0]}= meant?" if close else f": there are {', '.join(names)}"
                raise UsageError(f"a workload has no requirement {name!r}{hint}")
        made = replace(base or cls(), **{name: _CHECKS.get(name, _as_it_is)(value) for name, value in given.items()})
        made._check_together()
        return made

    def _check_together(self) -> None:
        if self.isolation == "thread" and (self.timeout is not None or self.memory is not None):
            name = "timeout" if self.timeout is not None else "memory"
            raise WorkloadError(f'{name}= needs a process of its own to be ended: leave it out, or use isolation="process"')
        if self.isolation == "thread" and self.gpus:
            raise WorkloadError('gpus= needs a process of its own, which sees its devices only: leave it out, or use isolation="process"')
        if self.idempotent:
            return
        if self.group is not None:
            raise WorkloadError("group= executes the items of a failed group again, which idempotent=False forbids: leave one of them out")
        if self.retries is not None and self.retries != 0:
            raise WorkloadError("retries= executes an item again, which idempotent=False forbids: leave one of them out")


def _as_it_is(value: Any) -> Any:
    return value


def _number(name: str, *, zero: bool = False) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max
        if not good or (value == 0 and not zero):
            raise WorkloadError(f"{name}={value!r}: say a number above 0, such as {name}=1")
        return float(value)

    return check


def _gpus(value: Any) -> float:
    gpus = _number("gpus", zero=True)(value)
    if (gpus > 1 and not gpus.is_integer()) or 0 < gpus < _LEAST_SHARE:
        raise WorkloadError(f"gpus={value!r}: say whole devices, such as gpus=2, or a share of one, such as gpus=0.5")
    return gpus


def _memory(value: float | str | None) -> int | None:
    if value is None:
        return None
    size = parse_bytes(value)
    if size < _LEAST_MEMORY:
        raise WorkloadError(f'memory={value!r} means {size} bytes, and no Python starts in that: say it with a unit, as memory="2 GiB"')
    return size


def _timeout(value: float | str | timedelta | None) -> float | None:
    if value is None:
        return None
    seconds = parse_seconds(value)
    if seconds == 0:
        raise WorkloadError("timeout=0 ends every call before it begins: say a longer time, or None for no limit")
    return seconds


def _amounts(what: str, example: Mapping[str, float]) -> Callable[[Any], tuple[tuple[str, float], ...]]:
    def check(value: Any) -> tuple[tuple[str, float], ...]:
        if isinstance(value, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
            value = dict(value)
        if value is not None and not isinstance(value, Mapping):
            raise WorkloadError(f"{what}={value!r}: say names and amounts, as {what}={json.dumps(example)}")
        for name in value or ():
            if not isinstance(name, str) or not name.strip():
                raise WorkloadError(f"{what}= has the name {name!r}: names are text")
        return tuple(sorted((name, _amount_of(name, amount, f"{what}[{name!r}]")) for name, amount in (value or {}).items()))

    return check


def _amount_of(name: str, amount: Any, what: str) -> float:
    return float(parse_bytes(amount, what)) if name == DISK and isinstance(amount, str) else _number(what)(amount)


def _resources(value: Any) -> tuple[tuple[str, float], ...]:
    amounts = _amounts("resources", {"SCRATCH": 20})(value)
    for name, _ in amounts:
        if name.upper() in OWN_NAMES:
            raise WorkloadError(f"resources={{{name!r}: ...}} has an argument of its own: {OWN_NAMES[name.upper()]}=")
    return amounts


def _priority(value: Any) -> int:
    try:
        return parse_priority(value)
    except UsageError as error:
        raise WorkloadError(str(error)) from None


def _whole(name: str, least: int | None) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        good = isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)
        if not good and not (value is None and name == "group"):
            raise WorkloadError(f"{name}={value!r}: say a whole number{'' if least is None else f' from {least} on'}")
        return value

    return check


def _retries(value: Any) -> Any:
    if value is None or isinstance(value, int):
        from dcompute.retry import Retry

        Retry.of(value)
        return value
    if type(value).__name__ != "Retry" or not hasattr(value, "decide"):
        raise WorkloadError(f"retries={value!r}: say a number of further attempts, a dc.Retry(...), or None for the usual ones")
    return value


def _checks(value: Any) -> tuple[Check, ...]:
    from dcompute.checks.forms import checks_of

    return checks_of(value)


def _on_invalid(value: Any) -> str:
    if value not in ("keep", "refuse"):
        raise WorkloadError(f'on_invalid={value!r}: it is "keep" (the other rows of the item) or "refuse" (the item fails)')
    return str(value)


def _isolation(value: Any) -> str:
    if value not in ("process", "thread"):
        raise WorkloadError(f'isolation={value!r}: it is "process" or "thread"')
    return str(value)


def _version(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise WorkloadError(f'version={value!r}: say a text such as "2", or "code" for the digest of the code')
    return str(value)


def _renames(value: Any) -> tuple[tuple[str, str], ...]:
    if value is None or value == ():
        return ()
    if not isinstance(value, Mapping):
        raise WorkloadError(f'renames={value!r}: say old names and new ones, as renames={{"temp": "temperature"}}')
    return tuple(value.items())


def _initializer(value: Any) -> Any:
    if value is not None and not callable(value):
        raise WorkloadError(f"initializer={value!r} cannot be called: give a function")
    return value


def _idempotent(value: Any) -> bool:
    if not isinstance(value, bool):
        raise WorkloadError(f"idempotent={value!r}: it is True or False")
    return value


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "cpus": _number("cpus"),
    "gpus": _gpus,
    "memory": _memory,
    "resources": _resources,
    "timeout": _timeout,
    "retries": _retries,
    "priority": _priority,
    "affinity": affinities_of,
    "uses": _amounts("uses", {"licence": 1}),
    "isolation": _isolation,
    "checks": _checks,
    "on_invalid": _on_invalid,
    "version": _version,
    "renames": _renames,
    "initializer": _initializer,
    "group": _whole("group", 1),
    "idempotent": _idempotent,
}
