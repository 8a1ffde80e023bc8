"""A batch as a small ``dask.delayed`` graph with annotations, handed to ``client.compute``.

Scheduler and workers unpickle what they are given, and a worker that cannot ends: so a task carries byte strings and the name of one
function of dcompute. User code is opened in the worker's children only.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dask
from dask import delayed

from dcompute.code import pack
from dcompute.config import settings
from dcompute.dataset.names import new_run_id
from dcompute.errors import UsageError
from dcompute.packed import Sealed
from dcompute.records import BatchSpec, Request, RunSpec, split_batch_id
from dcompute.resources import exact, whole_share

if TYPE_CHECKING:
    from dcompute.workload import Workload

#: Values of these types open everywhere.
_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
#: A run's description larger than this goes to the scheduler once, instead of with every batch.
INLINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a task may go, and when."""

    resources: Mapping[str, float]  #: only names that workers declare
    priority: int = 0  #: higher goes first
    workers: tuple[str, ...] | None = None  #: the only workers it may go to
    weight: float = 1.0  #: of its run, among those of its priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A run's description as tasks carry it."""

    payload: bytes | str  #: the pickled :class:`RunSpec`, or the digest under which the scheduler keeps it
    digest: str
    data: bytes

    @classmethod
    def of(cls, spec: RunSpec) -> Packed:
        """Pickle it once for all batches of the run."""
        data = pickle.dumps(spec, protocol=pickle.HIGHEST_PROTOCOL)
        digest = blake2b(data, digest_size=16).hexdigest()
        return cls(payload=data if len(data) <= INLINE_BYTES else digest, digest=digest, data=data)

    @property
    def inline(self) -> bool:
        """Whether every task carries the description itself."""
        return isinstance(self.payload, bytes)


def _called(function: str, *values: Any, key: str, **named: Any) -> Any:
    """A delayed call of a function of dcompute, ``"module:name"``, of which nothing is imported where the task is only handed on.

    Each hop pickles a task anew, and what it cannot pickle by reference it sends as its own bytecode, which ends a worker of another
    Python. So all that travels is built in, or text: who lacks dcompute, or has another one, answers with the error of the import.
    """
    source = f"__import__('pkgutil').resolve_name({function!r})(*values, **named)"
    # without globals of its own: eval would leave all builtins in them, and they in the task
    return delayed(eval, pure=False, traverse=False)(source, None, {"values": values, "named": named}, dask_key_name=key)


def refuse_fusing() -> None:
    """Refuse ``optimization.fuse.delayed``: fusing drops annotations without a word.

    Raises
    ------
    UsageError
        Where that setting is on.
    """
    if dask.config.get("optimization.fuse.delayed", False):
        raise UsageError(
            "Dask's setting optimization.fuse.delayed is on: fused tasks lose their resources and priority. "
            "Turn it off (dask.config.set({'optimization.fuse.delayed': False})) and run the same line again."
        )


def pack_values(values: Iterable[Any]) -> bytes:
    """The values of a batch as bytes; those that only their own classes can open, each on its own."""
    return pickle.dumps([value if _is_plain(value) else Sealed(_pickled(value)) for value in values], protocol=pickle.HIGHEST_PROTOCOL)


def _is_plain(value: Any) -> bool:
    return type(value) in _PLAIN or (type(value) is dict and all(type(inner) in _PLAIN for inner in value.values()))


def _pickled(value: Any) -> bytes:
    """By reference where the standard pickle can, else by value."""
    import cloudpickle

    try:
        data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception:  # noqa: BLE001  pickle raises whatever a value's __reduce__ raises; cloudpickle is the second try
        data = None
    # no other process finds in its __main__ what a script or notebook has in its own
    here = ("__main__", *cloudpickle.list_registry_pickle_by_value())
    if data is None or any(name.encode() in data for name in here):
        data = bytes(cloudpickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))
    return data


def batch_task(run: Packed, batch: BatchSpec, placement: Placement, *, key: str) -> Any:
    """A delayed batch; compute it with :func:`annotated`'s annotations already on it."""
    spec = pickle.dumps(batch, protocol=pickle.HIGHEST_PROTOCOL)
    about = {"batch": batch.id, "run": split_batch_id(batch.id)[0], "weight": placement.weight, "priority": placement.priority}
    with annotated(placement, about):
        return _called("dcompute.worker.batch:run_batch", run.payload, spec, key=key)


def probe_task(run: Packed, token: str, *, worker: str, key: str) -> Any:
    """A delayed probe of one worker."""
    with annotated(Placement(resources={}, priority=1_000_000, workers=(worker,)), {"probe": token}):
        return _called("dcompute.worker.probe:probe", run.payload, token, key=key)


def rewrite_task(run: Packed, old: str, new: str, schema: str | None, *, workers: tuple[str, ...], key: str) -> Any:
    """A delayed rewrite of a written batch by one of these workers; no user code is loaded."""
    with annotated(Placement(resources={}, priority=1_000_000, workers=workers), {"batch": new}):
        return _called("dcompute.worker.rewrite:rewrite_batch", run.payload, old, new, schema, key=key)


def delayed_call(workload: Workload, value: Any) -> Any:
    """A delayed call of a workload for a user's own graph, with the workload's annotations."""
    refuse_fusing()
    request = workload.request()
    key = f"{workload.name}-{uuid4().hex}"
    function, spec = "dcompute.worker.delayed:run_delayed", _call_spec(workload)
    with annotated(Placement(resources=_declared_needs(request), priority=request.priority), {"workload": workload.name}):
        return _called(function, spec, value, key=key, memory=request.memory, cpus=request.cpus, gpus=request.gpus)


@functools.lru_cache(maxsize=64)
def _call_spec(workload: Workload) -> bytes:
    """The description of a workload's calls, one for all of them: a child serves one run, and stays warm from call to call."""
    code, code_digest, params_digest = pack(workload, {})
    spec = RunSpec(
        run=new_run_id(),
        dataset="",
        workload=workload.name,
        code=code,
        code_digest=code_digest,
        params_digest=params_digest,
        group=workload.group,
        timeout=workload.timeout,
        grace=workload.grace,
        cpus=workload.requirements.cpus,
        gpus=workload.requirements.gpus,
        setup_timeout=settings().worker.setup_timeout,
    )
    return pickle.dumps(spec, protocol=pickle.HIGHEST_PROTOCOL)


def _declared_needs(request: Request) -> dict[str, float]:
    """What differs from the defaults: a plain graph has no driver that counts what nobody declares."""
    wanted = {
        "CPU": 0.0 if request.cpus == 1 else request.cpus,
        "GPU": whole_share(request.gpus),
        "MEMORY": request.memory or 0,
        **dict(request.resources),
    }
    return {name: exact(amount) for name, amount in wanted.items() if amount}


def annotated(placement: Placement, about: Mapping[str, Any]) -> Any:
    """A context in which a delayed call takes the placement's annotations.

    Annotations are captured where the delayed object is *called*, so the call stands inside this context.
    """
    notes: dict[str, Any] = {"priority": placement.priority, "dcompute": dict(about)}
    if placement.resources:
        notes["resources"] = dict(placement.resources)
    if placement.workers is not None:
        notes |= {"workers": list(placement.workers), "allow_other_workers": False}
    return dask.annotate(**notes)
