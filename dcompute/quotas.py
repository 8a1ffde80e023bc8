"""Named limits: how much there is of what no worker has, such as licences or calls of a service.

A limit is a number at once (``3``) or a rate (``"20/s"``, ``"1000/h"``). A workload says what one item uses of which.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dcompute.errors import UsageError, WorkloadError

_PERIODS = {
    1.0: "s sec secs second seconds",
    60.0: "m min mins minute minutes",
    3600.0: "h hr hrs hour hours",
    86400.0: "d day days",
}
_SECONDS = {name: seconds for seconds, names in _PERIODS.items() for name in names.split()}
_RATE = re.compile(r"\s*([0-9][0-9_,]*\.?[0-9]*(?:e[+-]?[0-9]+)?)\s*(?:/|per)\s*([0-9]*\.?[0-9]*)\s*([a-z]+)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Quota:
    """How much there is of one named limit."""

    amount: float  #: at once, or in each period
    period: float | None = None  #: seconds; None: it is a number at once

    @property
    def rate(self) -> float | None:
        """What may be taken each second; None where it is a number at once."""
        return None if self.period is None else self.amount / self.period

    @property
    def measure(self) -> float:
        """What an allowance of it is said in: the number at once, or the rate a second."""
        return self.amount if self.period is None else self.amount / self.period

    def __str__(self) -> str:
        if self.period is None:
            return f"{self.amount:g}"
        return f"{self.amount:g}/{_PERIODS[self.period].split()[0]}" if self.period in _PERIODS else f"{self.amount:g}/{self.period:g}s"


def parse_quota(value: Any, name: str = "", what: str = "limits") -> Quota:
    """The limit that ``3``, ``"3"``, ``"20/s"`` or ``"1000 per hour"`` means.

    Raises
    ------
    UsageError
        It means none.
    """
    if isinstance(value, Quota):
        return value
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is not None:
        amount, period = _number(found[1]), _SECONDS.get(found[3].lower())
        times = 1.0 if not found[2] else _number(found[2])
        if amount is not None and period is not None and times is not None:
            return Quota(amount, period * times)
    elif (amount := _number(value)) is not None:
        return Quota(amount)
    which = f"{what}[{name!r}]" if name else what
    raise UsageError(f'{which}={value!r}: say a number at once, such as 3, or a rate, such as "20/s", "100/min" or "1000/h", above 0')


def parse_quotas(limits: Any, what: str = "limits") -> dict[str, Quota]:
    """Named limits from what a user wrote: names and :func:`parse_quota`'s values.

    Raises
    ------
    UsageError
        A name or a value makes no sense.
    """
    if limits is None:
        return {}
    if not isinstance(limits, Mapping) or not all(isinstance(name, str) and name.strip() for name in limits):
        raise UsageError(f'{what}={limits!r}: say names and how much there is, as {what}={{"licence": 3, "api": "20/s"}}')
    return {name: parse_quota(value, name, what) for name, value in limits.items()}


def check_uses(uses: Iterable[tuple[str, float]], limits: Mapping[str, Quota]) -> None:
    """Refuse what no allowance could ever permit.

    Raises
    ------
    UsageError
        A name of which nobody says how much there is.
    WorkloadError
        An item needs more than there ever is.
    """
    for name, amount in uses:
        quota = limits.get(name)
        if quota is None:
            known = f" (there are {', '.join(sorted(limits))})" if limits else ""
            raise UsageError(
                f"the workload uses {name!r}, and nothing says how much of it there is{known}: say it as limits={{{name!r}: 3}}, "
                f"as a rate such as {{{name!r}: '20/s'}}, or in the setting dcompute.limits"
            )
        if amount > quota.amount:
            raise WorkloadError(f"an item uses {amount:g} of {name!r}, and the limit is {quota}: no item could ever be executed")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value.replace(",", "")) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None
