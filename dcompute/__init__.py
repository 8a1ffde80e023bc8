"""Run a function or a program over any number of inputs on a Dask cluster and get a Parquet dataset back.

The way of the data, and the modules in its order::

    inputs -> plan -> window -> graph -> scheduler -> worker -> child -> parts -> receipt -> log -> results

    errors, records, config                    the words that every stage shares
    workload, requirements, resources, retry   what to do: no cluster, no clock
    code                                       how it travels, and when it has changed
    priority, quotas, affinity                 what goes first, how much at once, and where
    program, commands                          an external program as a workload
    checks                                     what must be true of rows and of inputs
    keys, inputs, upstream, index, plan, cost  what to do it to, what is left to do, and what it costs
    window                                     the state machine: events in, instructions out, time is an argument
    clusters                                   where it is done: profiles, certificates, clusters that are found or started
    demand, scaling, growth                    how many workers that wants of a cluster that scales
    graph, connection, intake, ledger, driver  what speaks to the scheduler and carries the instructions out
    run                                        what a user holds
    worker                                     what runs on worker nodes: batch, guardian, child, limits, meter
    dataset                                    the log, the parts, reading
    report                                     what is computed from datasets, and published
    progress, cli, dashboard                   what a person sees

Names load when they are used: ``import dcompute`` loads neither Dask nor pandas nor Arrow.
The module ``workload`` is the exception: it costs the standard library only, and loaded later it would hide the decorator of its name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dcompute.workload import Workload, workload

if TYPE_CHECKING:
    from dcompute.affinity import apart, off, on, together
    from dcompute.clusters import cluster
    from dcompute.commands import command
    from dcompute.dataset import Dataset, open
    from dcompute.inputs import files, grid
    from dcompute.report.dropping import drop
    from dcompute.report.report import Report
    from dcompute.retry import Retry, Rule
    from dcompute.run import Run, map, preview
    from dcompute.scaling import adapt
    from dcompute.upstream import rows
    from dcompute.worker.commands import process
    from dcompute.worker.context import current

__version__ = "0.1.0"

#: Where each public name is defined.
_HOMES = {
    "Dataset": "dcompute.dataset",
    "Report": "dcompute.report.report",
    "Retry": "dcompute.retry",
    "Rule": "dcompute.retry",
    "Run": "dcompute.run",
    "adapt": "dcompute.scaling",
    "apart": "dcompute.affinity",
    "cluster": "dcompute.clusters",
    "command": "dcompute.commands",
    "current": "dcompute.worker.context",
    "drop": "dcompute.report.dropping",
    "files": "dcompute.inputs",
    "grid": "dcompute.inputs",
    "map": "dcompute.run",
    "off": "dcompute.affinity",
    "on": "dcompute.affinity",
    "open": "dcompute.dataset",
    "preview": "dcompute.run",
    "process": "dcompute.worker.commands",
    "rows": "dcompute.upstream",
    "together": "dcompute.affinity",
}

__all__ = [
    "Dataset",
    "Report",
    "Retry",
    "Rule",
    "Run",
    "Workload",
    "adapt",
    "apart",
    "cluster",
    "command",
    "current",
    "drop",
    "files",
    "grid",
    "map",
    "off",
    "on",
    "open",
    "preview",
    "process",
    "rows",
    "together",
    "workload",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'dcompute' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
