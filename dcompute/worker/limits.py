"""How much memory a slot has."""

from __future__ import annotations

from dcompute.worker import system

#: Share of what machine and cgroup allow that all slots together get, where a worker has no limit of its own.
SHARE_OF_MACHINE = 0.8


def usable_memory() -> int:
    """Bytes that children of this machine may take together: 80 % of what machine and cgroups allow."""
    limits = [limit for limit in (system.machine_memory(), system.cgroup_memory_limit()) if limit]
    return int(SHARE_OF_MACHINE * min(limits))


def slot_limit(explicit: int | None, worker_limit: int | None, share: float) -> int:
    """Bytes that the tree of one child may take.

    Parameters
    ----------
    explicit
        What the workload asks for; nothing else counts then.
    worker_limit
        The memory limit of the Dask worker; None or 0 where it has none.
    share
        The slot's share of its worker, above 0 and at most 1.
    """
    if explicit:
        return explicit
    return int((worker_limit or usable_memory()) * min(1.0, max(0.0, share)))
