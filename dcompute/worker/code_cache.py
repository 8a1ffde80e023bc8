"""The description of a run on a worker: opened once, and fetched once from the scheduler where it is too large for every batch."""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from hashlib import blake2b
from typing import Any

from dcompute.errors import ClusterError
from dcompute.records import RunSpec

#: Descriptions that a worker process keeps.
MOST = 8

_known: OrderedDict[str, RunSpec] = OrderedDict()
_lock = threading.Lock()


def digest_of(data: bytes) -> str:
    """The digest under which the scheduler keeps a pickled description."""
    return blake2b(data, digest_size=16).hexdigest()


def run_spec(payload: bytes | str, worker: Any = None) -> RunSpec:
    """The run that a task's payload stands for.

    Parameters
    ----------
    payload
        The pickled description, or its digest.
    worker
        The Dask worker, whose scheduler has what the digest stands for.

    Raises
    ------
    ClusterError
        The scheduler does not have it, or something else under that digest.
    """
    digest = payload if isinstance(payload, str) else digest_of(payload)
    with _lock:  # threads that want the same one wait for the first
        found = _known.get(digest)
        if found is None:
            data = _fetched(payload, worker) if isinstance(payload, str) else payload
            found = _known[digest] = pickle.loads(data)  # noqa: S301  Dask's own wire between driver and worker
            while len(_known) > MOST:
                _known.popitem(last=False)
        _known.move_to_end(digest)
        return found


def _fetched(digest: str, worker: Any) -> bytes:
    if worker is None:
        raise ClusterError("the description of a run can be fetched inside a Dask task only")
    from distributed.utils import sync

    data = sync(worker.loop, worker.scheduler.get_metadata, keys=["dcompute", digest], default=None)
    if not isinstance(data, (bytes, bytearray, memoryview)) or digest_of(bytes(data)) != digest:
        raise ClusterError(
            f"the scheduler does not have the description {digest} of this run: "
            f"it was restarted, or the run has ended. Run the same line again."
        )
    return bytes(data)
