"""Adaptive scaling that knows classes: a cluster gets workers for what they could do, and none for work that no new worker could run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dcompute.errors import UsageError, WorkloadError
from dcompute.resources import CPU, MEMORY, WorkerOffer, parse_bytes, parse_seconds


def adapt(
    cluster: Any,
    *,
    maximum: int,
    minimum: int = 0,
    offers: Mapping[str, float | str] | None = None,
    idle: float | str | None = None,
    interval: float | str = 1.0,
) -> Any:
    """Let a cluster have as many workers as the runs on it can use, of every class; what Dask's own ``adapt`` does not know.

    Parameters
    ----------
    cluster
        A ``LocalCluster``, a ``SLURMCluster`` or any other cluster of Dask that adapts; or an object with a method ``scale(n)`` and an
        attribute ``scheduler_address``. One that has only ``scale`` gets fewer workers when none of them has anything to do.
    maximum, minimum
        Workers that it has at most, and at least.
    offers
        What one new worker has, such as ``{"CPU": 8, "MEMORY": "32 GiB", "GPU": 1}``; of a cluster of Dask what it says itself, and what
        its workers turn out to have.
    idle
        How long a worker has nothing to do before it is closed; 10 s, of Slurm jobs 60 s.
    interval
        Seconds between two looks.

    Returns
    -------
    object
        Its method ``stop()`` ends the scaling.

    Raises
    ------
    UsageError
        A number makes no sense, or it is no such cluster.
    """
    for name, value in (("minimum", minimum), ("maximum", maximum)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UsageError(f"{name}={value!r}: say a whole number of workers, from 0 on")
    if maximum < max(1, minimum):
        raise UsageError(f"maximum={maximum}: it must be at least 1, and no less than minimum={minimum}")
    offer = None if offers is None else offer_of(offers)
    seconds = _time("interval", interval)
    patience = None if idle is None else _time("idle", idle)
    if hasattr(cluster, "worker_spec") and hasattr(cluster, "adapt"):
        from dcompute.scaling.by_class import ByClass

        return cluster.adapt(Adaptive=ByClass, minimum=minimum, maximum=maximum, interval=seconds, offer=offer, patience=patience)
    if not callable(getattr(cluster, "scale", None)):
        raise UsageError(f"{type(cluster).__name__} cannot be scaled: it has no method scale(n)")
    if offer is None:
        raise UsageError('say what one new worker has: offers={"CPU": 8, "MEMORY": "32 GiB"}')
    from dcompute.scaling.hook import Scaler

    return Scaler(cluster, offer, minimum=minimum, maximum=maximum, interval=seconds, patience=10.0 if patience is None else patience)


def offer_of(amounts: Mapping[str, float | str]) -> WorkerOffer:
    """What a new worker has, as a user says it.

    Raises
    ------
    UsageError
        An amount is no number, or there is none of ``CPU``.
    """
    resources = {
        str(name): float(parse_bytes(amount, name) if name == MEMORY else _number(name, amount)) for name, amount in amounts.items()
    }
    if resources.get(CPU, 0) < 1:
        raise UsageError(f'offers={dict(amounts)!r}: say how many threads a new worker has, such as {{"CPU": 8}}')
    memory = resources.get(MEMORY)
    return WorkerOffer(
        address="a new worker",
        nthreads=int(resources[CPU]),
        memory_limit=None if memory is None else int(memory),
        resources={name: amount for name, amount in resources.items() if name not in (CPU, MEMORY)},
    )


def _number(name: str, amount: float | str) -> float:
    try:
        return float(amount)
    except (TypeError, ValueError):
        raise UsageError(f"offers: {name}={amount!r} is no number") from None


def _time(name: str, value: float | str) -> float:
    try:
        return parse_seconds(value, name)
    except WorkloadError as error:
        raise UsageError(str(error)) from None
