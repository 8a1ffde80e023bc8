"""What a scaler sees of its cluster, and what it tells of itself: plain records from what Dask's scheduler says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dcompute.connection import offer_from
from dcompute.demand import Need, Unit, why_impossible
from dcompute.resources import WorkerOffer

#: Keys of tasks with which a run asks a worker whether it can do the work begin with this.
PROBES = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Workers that are there, and what was asked for."""

    units: list[Unit]
    own: list[WorkerOffer]  #: of workers of this cluster that take tasks
    others: list[WorkerOffer]  #: that somebody else has started

    @classmethod
    def of(cls, specs: Mapping[Any, Any], workers: Mapping[str, Any], processing: Mapping[str, Any], leaving: Iterable[str]) -> View:
        """From a cluster's specs, the scheduler's workers, and the tasks on each.

        Parameters
        ----------
        specs
            Name -> what is started under it; a job of several workers has a ``group`` of suffixes.
        workers, processing
            By address.
        leaving
            Names of units that take nothing new.
        """
        gone = frozenset(leaving)
        by_name = {str(info["name"]): address for address, info in workers.items()}
        units = [_unit(str(name), spec or {}, by_name, processing, str(name) in gone) for name, spec in specs.items()]
        own = {address for unit in units for address in unit.present}
        leave = {address for unit in units if unit.leaving for address in unit.present}
        offers = {address: offer_from(address, info) for address, info in workers.items() if info.get("status", "running") == "running"}
        return cls(
            units=units,
            own=[offer for address, offer in offers.items() if address in own - leave],
            others=[offer for address, offer in offers.items() if address not in own],
        )


def _unit(name: str, spec: Mapping[str, Any], by_name: Mapping[str, str], processing: Mapping[str, Any], leaving: bool) -> Unit:
    suffixes = spec.get("group", [""])
    present = frozenset(by_name[f"{name}{suffix}"] for suffix in suffixes if f"{name}{suffix}" in by_name)
    return Unit(name=name, size=len(suffixes), present=present, busy=any(processing.get(one) for one in present), leaving=leaving)


def offer_of_cluster(cluster: Any) -> WorkerOffer | None:
    """What a new worker of a cluster has, by what the cluster says of it; None where it does not."""
    own = getattr(cluster, "offer", None)
    if isinstance(own, WorkerOffer):
        return own
    job = None
    with contextlib.suppress(Exception):  # a property of dask-jobqueue's clusters, and of no other
        job = cluster._dummy_job
    options: Mapping[str, Any] = (getattr(cluster, "new_spec", None) or {}).get("options", {})
    threads = getattr(job, "worker_process_threads", None) or options.get("nthreads")
    if not threads:
        return None
    limit = options.get("memory_limit") if job is None else job.worker_memory // job.worker_processes
    return WorkerOffer(
        address="a new worker", nthreads=int(threads), memory_limit=_bytes(limit), resources=dict(options.get("resources") or {})
    )


def _bytes(limit: Any) -> int | None:
    from dask.utils import parse_bytes

    with contextlib.suppress(ValueError, TypeError, AttributeError):
        return int(parse_bytes(limit)) or None
    return None  # "auto", or a share of the machine


def prefixes(runs: Any) -> frozenset[str]:
    """With what the keys of the tasks of runs begin, as Dask groups them."""
    from dask.utils import key_split

    found = {one["workload"] for one in runs.values() if isinstance(one, Mapping) and isinstance(one.get("workload"), str)}
    return frozenset({PROBES, *(key_split(f"{name}{what}-0-0") for name in found for what in ("", "-rewrite"))})


async def foreign_tasks(cluster: Any, scheduler: Any, ours: frozenset[str]) -> int:
    """Tasks that are to be executed and belong to no run."""
    here = getattr(getattr(cluster, "scheduler", None), "task_prefixes", None)
    if here is not None:
        states = {prefix.name: prefix.states for prefix in here.values()}
    else:
        states = await scheduler.get_task_prefix_states()
    waiting = ("processing", "queued", "no-worker", "waiting")
    return sum(found.get(state, 0) for name, found in states.items() if name not in ours for state in waiting)


def report(new: WorkerOffer | None, wanted: Need, *, want: int, asked: int, have: int, most: float, trouble: str) -> dict[str, Any]:
    """What a scaler tells of itself, in built-in types."""
    return {
        "want": want,
        "asked": asked,
        "have": have,
        "most": int(most) if most < 1e6 else None,
        "trouble": trouble,
        "impossible": [] if new is None else sorted({why_impossible(request, new) for request in wanted.impossible}),
        "offer": None
        if new is None
        else {"nthreads": new.nthreads, "memory": new.memory_limit, "resources": {name: float(one) for name, one in new.resources.items()}},
    }
