"""What a class of items asks for, what a worker offers, and how often the one fits into the other.

Pure: offers come in as records. Workers say what they have by Dask's resources (``CPU``, ``MEMORY`` and ``DISK`` in bytes, ``GPU``, any
other name); where no worker declares ``CPU`` or ``MEMORY``, threads and memory limits are counted in their place. In a cluster where some
workers declare a name, those that do not have none of it.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from dcompute.affinity import missing, permits
from dcompute.errors import WorkloadError
from dcompute.records import Request

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
    if request.affinity and not permits(request.affinity, offer.host, offer.labels):
        return 0
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
    wrong = missing(request.affinity, ((offer.host, offer.labels) for offer in offers))
    if wrong:
        return f"{'; '.join(wrong)}. Start workers that fit, or use hard=False"
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
