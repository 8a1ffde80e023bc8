"""The dataset on storage: a log of commits, the parts it counts, and reading them. The names here load when they are used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcompute.dataset.many import Datasets
    from dcompute.dataset.opening import open
    from dcompute.dataset.status import Dataset, Status
    from dcompute.dataset.store import Store
    from dcompute.dataset.writer import Writer

_HOMES = {
    "Dataset": "dcompute.dataset.status",
    "Datasets": "dcompute.dataset.many",
    "Status": "dcompute.dataset.status",
    "Store": "dcompute.dataset.store",
    "Writer": "dcompute.dataset.writer",
    "open": "dcompute.dataset.opening",
}

__all__ = ["Dataset", "Datasets", "Status", "Store", "Writer", "open"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'dcompute.dataset' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
