"""What a class of items asks for, what a worker offers, and how often the one fits into the other.

Pure: offers come in as records. Workers say what they have by Dask's resources (``CPU``, ``MEMORY`` and ``DISK`` in bytes, ``GPU``, any
other name); where no worker declares ``CPU`` or ``MEMORY``, threads and memory limits are counted in their place. In a cluster where some
workers declare a name, those that do not have none of it.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dcompute.errors import UsageError, WorkloadError
from dcompute.priority import parse_priority
from dcompute.records import Request

if TYPE_CHECKING:
    from dcompute.checks.forms import Check
    from dcompute.retry import Retry

CPU, GPU, MEMORY, DISK = "CPU", "GPU", "MEMORY", "DISK"
#: Names that have arguments of their own, ``cpus=``, ``gpus=`` and ``memory=``.
OWN_NAMES: Mapping[str, str] = {CPU: "cpus", GPU: "gpus", MEMORY: "memory"}

#: Share of a machine's memory that counts where a worker has no limit.
SHARE_OF_MACHINE = 0.8

# 0.1 + 0.2 must fit into 0.3
_TOLERANCE = 1e-9
# a worker adds and subtracts what tasks hold: of multiples of this the sum is exact, and nothing is lost by a million of tasks
_GRAIN = 2.0**-20


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOffer:
    """What one worker has."""

    address: str
    nthreads: int
    memory_limit: int | None = None  #: bytes; None: it has no limit of its own
    resources: Mapping[str, float] = field(default_factory=dict)  #: as declared
    host: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)  #: what its operator says of it, and what it found itself
    until: float | None = None  #: when its walltime is over, in seconds since the epoch


# ------------------------------------------------------------------------------------------------------------------------ fitting


def slots(request: Request, offer: WorkerOffer, offers: Iterable[WorkerOffer]) -> int:
    """How many batches of a class fit on one worker at once.

    Parameters
    ----------
    request
        What one item of the class asks for.
    offer
        The worker.
    offers
        All workers: what anybody declares is counted by declarations only.
    """
    return _slots(request, offer, declared_names(offers))


def _slots(request: Request, offer: WorkerOffer, declared: frozenset[str], without: frozenset[str] = frozenset()) -> int:
    # a task takes a thread whatever it asks for
    fits = [float(offer.nthreads)]
    for name, need in _needs(request).items():
        if name in without:
            continue
        have = _have(name, offer, declared)
        fits.append(0.0 if have is None else have / need + _TOLERANCE)
    return max(0, math.floor(min(fits)))


def is_counted(request: Request, offers: Iterable[WorkerOffer]) -> bool:
    """Whether a worker would execute more of the class at once than fit, by its threads and what it declares: somebody has to count."""
    offers = list(offers)
    declared = declared_names(offers)
    names = frozenset(name for name in _needs(request) if name not in declared)
    return bool(names) and any(_slots(request, offer, declared) < _slots(request, offer, declared, names) for offer in offers)


def annotation(request: Request, offers: Iterable[WorkerOffer]) -> dict[str, float]:
    """The resources to annotate on a task of the class: of what it asks for, that which workers declare."""
    declared = declared_names(offers)
    return {name: exact(need) for name, need in _needs(request).items() if name in declared}


def exact(amount: float) -> float:
    """An amount that may be added and subtracted for ever with no rounding; never more than was given, by a millionth at most less."""
    return math.floor(amount / _GRAIN + _TOLERANCE) * _GRAIN or amount


def whole_share(gpus: float) -> float:
    """What a request for devices takes: of one device, the share of the most such shares that one has room for; whole ones as they are."""
    return 1 / math.floor(1 / gpus + _TOLERANCE) if 0 < gpus < 1 else gpus


def declared_names(offers: Iterable[WorkerOffer]) -> frozenset[str]:
    """The names that any worker declares."""
    return frozenset(name for offer in offers for name in offer.resources)


def idle_workers(request: Request, offers: Iterable[WorkerOffer]) -> list[str]:
    """Addresses of workers that take no part only because they do not declare what others do."""
    offers = list(offers)
    declared = declared_names(offers)
    names = [name for name in _needs(request) if name in declared and name in (CPU, MEMORY)]
    return [offer.address for offer in offers if any(name not in offer.resources for name in names)]


def memory_share(offer: WorkerOffer, *, whole: bool = False) -> int:
    """Bytes that one slot of a worker has where its class asks for none; ``whole``: that one call may have at most."""
    total = offer.resources.get(MEMORY) or offer.memory_limit or _machine_memory()
    return int(total if whole else total / max(1, offer.nthreads))


def _needs(request: Request) -> dict[str, float]:
    needs = {CPU: request.cpus, GPU: whole_share(request.gpus), MEMORY: float(request.memory or 0), **dict(request.resources)}
    return {name: need for name, need in needs.items() if need > 0}


def _have(name: str, offer: WorkerOffer, declared: frozenset[str]) -> float | None:
    """How much a worker has of a name; None where it does not say."""
    if name in declared:
        return offer.resources.get(name)
    if name == CPU:
        return float(offer.nthreads)
    if name == MEMORY:
        return float(memory_share(offer, whole=True))
    return None


def _machine_memory() -> int:
    # the driver's own: in-process workers are the ones without a limit
    return int(SHARE_OF_MACHINE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


# ---------------------------------------------------------------------------------------------------------------------- explaining


def explain_aside(request: Request, offers: Iterable[WorkerOffer]) -> str:
    """Which workers take no part only because they do not declare what others do; "" where all take part."""
    offers = list(offers)
    aside = idle_workers(request, offers)
    if not aside:
        return ""
    declared = declared_names(offers)
    names = " and ".join(name for name in (CPU, MEMORY) if name in declared and name in _needs(request))
    return (
        f"{len(aside)} of {len(offers)} workers do not declare {names}, as others do, and take no part: start them with --preload "
        "dcompute.worker, or with --resources"
    )


def explain_gap(request: Request, offers: Iterable[WorkerOffer]) -> str:
    """Why no worker can do the work, and what to do; "" where one can, or where there are no workers yet."""
    offers = list(offers)
    declared = declared_names(offers)
    if not offers or any(_slots(request, offer, declared) for offer in offers):
        return ""
    gaps = [gap for name, need in _needs(request).items() if (gap := _gap(name, need, offers))]
    if gaps:
        return f"{'; '.join(gaps)}. {_advice(request, declared)}"
    wanted = ", ".join(_amount(name, need) for name, need in _needs(request).items())
    return f"needs {wanted} on one worker; every part of it is there, but no single one of the {len(offers)} workers has it all"


def _gap(name: str, need: float, offers: list[WorkerOffer]) -> str:
    declared = declared_names(offers)
    largest = max((_have(name, offer, declared) or 0.0 for offer in offers), default=0.0)
    if largest + _TOLERANCE >= need:
        return ""
    if name in declared or name in (CPU, MEMORY):
        what = "thread" if name == CPU and name not in declared else "limit" if name == MEMORY and name not in declared else ""
        unit = f" ({what}{'s' if what == 'thread' else ''})" if what else ""
        return f"needs {_amount(name, need)}; the largest worker has {_amount(name, largest)}{unit}"
    return f"needs {_amount(name, need)}; no worker declares {name}{_nearest(name, declared)}"


def _nearest(name: str, declared: frozenset[str]) -> str:
    by_upper = {other.upper(): other for other in declared}
    close = difflib.get_close_matches(name.upper(), by_upper, n=1)
    if close:
        return f" (one declares {by_upper[close[0]]!r}: names are compared letter by letter)"
    return f" (they declare {', '.join(sorted(declared))})" if declared else ""


def _advice(request: Request, declared: frozenset[str]) -> str:
    missing = {name: need for name, need in _needs(request).items() if name not in declared and name not in (CPU, MEMORY)}
    if not missing:
        return "Ask for less, or start a larger worker"
    text = ",".join(f"{name}={need:g}" for name, need in missing.items())
    preload = "with --preload dcompute.worker, which finds GPUs, or " if GPU in missing else ""
    return f'Start workers {preload}with --resources "{text}", or leave it out'


def _amount(name: str, amount: float) -> str:
    return f"{name}={format_bytes(amount) if name in (MEMORY, DISK) else f'{amount:g}'}"


# ------------------------------------------------------------------------------------------------------------------------ quantities

_SIZES = {"": 1, "b": 1} | {
    f"{letter}{unit}": base**power
    for power, letter in enumerate("kmgtp", start=1)
    for unit, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
}
_TIMES = {
    seconds: names.split()
    for seconds, names in {
        1e-9: "ns nanosecond nanoseconds",
        1e-6: "us microsecond microseconds",
        1e-3: "ms millisecond milliseconds",
        1.0: "s sec secs second seconds",
        60.0: "m min mins minute minutes",
        3600.0: "h hr hrs hour hours",
        86400.0: "d day days",
        604800.0: "w week weeks",
    }.items()
}
_SECONDS = {name: seconds for seconds, names in _TIMES.items() for name in names} | {"": 1.0}
_PART = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*")


def parse_bytes(text: float | str, what: str = "memory") -> int:
    """Bytes that a text such as ``"2 GiB"``, ``"500MB"`` or ``"1e9"`` means; a number is bytes.

    Raises
    ------
    WorkloadError
        It means no size.
    """
    value = _parse(text, _SIZES, several=False)
    if value is None or value < 0:
        raise WorkloadError(f'{what}={text!r} is no size: say it as "2 GiB", "500 MB" or a number of bytes')
    return int(value)


def parse_seconds(text: float | str | timedelta, what: str = "timeout") -> float:
    """Seconds that a text such as ``"10 min"``, ``"90s"`` or ``"1h 30min"`` means; a number is seconds.

    Raises
    ------
    WorkloadError
        It means no time.
    """
    value = text.total_seconds() if isinstance(text, timedelta) else _parse(text, _SECONDS, several=True)
    if value is None or value < 0:
        raise WorkloadError(f'{what}={text!r} is no time: say it as "10 min", "90 s", "1.5 h" or a number of seconds')
    return value


def format_bytes(size: float) -> str:
    """A size for a person: ``"2 GiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def _parse(text: float | str, units: Mapping[str, float], *, several: bool) -> float | None:
    if isinstance(text, bool) or not isinstance(text, int | float | str):
        return None
    if not isinstance(text, str):
        return float(text) if abs(text) <= sys.float_info.max else None
    text = text.strip().lower().replace("µ", "u").replace("μ", "u")
    total, end = 0.0, 0
    while end < len(text):
        part = _PART.match(text, end)
        if part is None or part[2] not in units or (end and not several):
            return None
        total += float(part[1]) * units[part[2]]
        end = part.end()
    return total if text and math.isfinite(total) else None


# ---------------------------------------------------------------------------------------------------------------------- requirements

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
