"""What one run is asked to do, checked as far as that can be done without a worker and without waiting."""

from __future__ import annotations

import contextlib
import math
import shlex
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dcompute.checks.forms import checks_of
from dcompute.checks.travel import RunChecks, packed
from dcompute.code import pack, zip_module
from dcompute.config import settings
from dcompute.connection import Connection, Place, connect, existing_client, leave_slot, place_of
from dcompute.dataset.names import new_run_id
from dcompute.dataset.renaming import due_before
from dcompute.dataset.schema import declared, to_text
from dcompute.dataset.store import Store
from dcompute.dataset.writer import Writer
from dcompute.errors import UsageError, WorkloadError
from dcompute.graph import Packed, refuse_fusing
from dcompute.inputs import Inputs
from dcompute.priority import parse_priority
from dcompute.quotas import Quota, check_uses, parse_quotas
from dcompute.records import STAYING_KINDS, Kind, Request, RunSpec
from dcompute.relay import Relay
from dcompute.resources import parse_seconds
from dcompute.secrecy import shown_words
from dcompute.window import WindowConfig
from dcompute.worker.supervisor import release
from dcompute.workload import Workload

#: Batches that a whole run may end each second on an object store: three requests each (a look for the mark, results, mark), and up to
#: four a second of the driver, stay below 50 while batches are a fourth shorter than expected.
BATCHES_PER_SECOND = 12.0
#: Of a run's weight; the most is as many times 1.
_LEAST_WEIGHT = 1e-6
#: What ``retry_failed`` may say beside True, False and kinds.
NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a run goes about its work."""

    batch_size: int | str = "auto"
    errors: str = "record"
    max_failures: float | None = None
    retry_failed: bool | str | Sequence[str] = False
    on_change: str = "rerun"
    on_gone: str = "keep"
    takeover: bool = False
    workers: int | None = None
    priority: int | str | None = None  #: None: that of the workload
    weight: float = 1.0
    ageing: Any = None
    limits: Any = None
    wait_for_workers: Any = None

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises
        ------
        UsageError
            Which names the option and what it may be.
        """
        size = self.batch_size
        if size != "auto" and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise UsageError(f'batch_size={size!r}: say "auto", or a whole number of items from 1 on')
        _one_of("errors", self.errors, ("record", "raise"))
        _one_of("on_change", self.on_change, ("rerun", "keep", "error"))
        _one_of("on_gone", self.on_gone, ("keep", "drop"))
        _check_limit(self.max_failures)
        wanted = self.retry_failed
        if not isinstance(wanted, bool | str | list | tuple | set | frozenset):
            raise UsageError(f'retry_failed={wanted!r}: say True, "never", or kinds such as "timeout"')
        for kind in self.kinds_again() or ():
            _one_of("retry_failed", kind, tuple(Kind))
        if not isinstance(self.takeover, bool):
            raise UsageError(f"takeover={self.takeover!r}: say True or False")
        self._check_place_among_others()

    def _check_place_among_others(self) -> None:
        if self.priority is not None:
            parse_priority(self.priority)
        weight = self.weight
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not _LEAST_WEIGHT <= weight <= 1 / _LEAST_WEIGHT:
            raise UsageError(
                f"weight={weight!r}: say a number such as 0.5 or 3, from a millionth to a million; a run of weight 2 gets twice the slots "
                "of one of weight 1"
            )
        if self.ageing is not None and _time(self.ageing, "ageing") < 1:
            raise UsageError(
                f'ageing={self.ageing!r}: say a time from 1 s on, such as "10 min", after which what waits goes one level higher'
            )
        if self.wait_for_workers is not None:
            _time(self.wait_for_workers, "wait_for_workers")
        parse_quotas(self.limits)

    def kinds_again(self, *, idempotent: bool = True) -> frozenset[str] | None:
        """The kinds of final failures that are executed again; None: no failed item at all.

        What may be executed once only goes again by no rule, but when it is asked for.
        """
        wanted = self.retry_failed
        if wanted == NEVER:
            return None
        by_themselves = frozenset(Kind) - STAYING_KINDS if idempotent else frozenset()
        if wanted is True or (idempotent and self.errors == "raise"):
            return frozenset(Kind)
        if not wanted:
            return by_themselves
        return by_themselves | frozenset([wanted] if isinstance(wanted, str) else wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A workload, its inputs, where the outcomes go, and how."""

    workload: Workload
    source: Inputs
    store: Store
    spec: RunSpec
    packed: Packed
    options: Options
    request: Request
    place: Place | None  #: where the scheduler is; None: a local cluster is started
    again: str  #: "run the same line again: ..."
    is_nameless: bool  #: the workload is a lambda, and nobody gave it a name

    @classmethod
    def of(
        cls,
        workload: Any,
        inputs: Any,
        dataset: Any,
        *,
        options: Options,
        params: Mapping[str, Any] | None,
        key: Any,
        modules: Sequence[Any],
        seed: int,
        name: str | None,
        client: Any,
        input_checks: Any = None,
    ) -> Assignment:
        """Check and gather it all.

        Raises
        ------
        DcomputeError
            What speaks against the run already now.
        """
        options.check()
        if params is not None and not isinstance(params, Mapping):
            raise UsageError(f'params={params!r}: say names and values, such as {{"window": 1800}}')
        modules = _modules(modules)
        refuse_fusing()
        around = leave_slot()  # whatever cluster is named: a task that waits for a run must not hold the slot that it needs
        found = client if client is not None else (around or existing_client())
        work = Workload.of(workload)
        request = work.request()
        if options.priority is not None:
            request = replace(request, priority=parse_priority(options.priority))
        check_uses(request.uses, _quotas(options))
        source = Inputs.of(_as_rows(inputs), key=key)
        store = Store.named(dataset)
        if any(url == store.url for url, _ in source.sources):
            raise UsageError(
                f"{store.url} is both the input and the dataset: each run would find the outcomes of the last one as new inputs. "
                "Name another dataset for the outcomes"
            )
        spec = _spec(work, source, store, params=params, modules=modules, seed=seed, name=name, input_checks=input_checks)
        state = Writer.check(store, spec.workload, options.takeover)
        if not (work.renames and state.unsettled):  # else the columns in question may be in what is adopted first
            due_before(store, state, work.renames, schema=spec.schema)
        return cls(
            workload=work,
            source=source,
            store=store,
            spec=spec,
            packed=Packed.of(spec),
            options=options,
            request=request,
            place=place_of(found) if found is not None else None,
            again=_again(),
            is_nameless=name is None and work.is_lambda,
        )

    @property
    def quotas(self) -> dict[str, Quota]:
        """How much there is of each named limit that the workload uses."""
        used = {name for name, _ in self.request.uses}
        return {name: quota for name, quota in _quotas(self.options).items() if name in used}

    @property
    def patience(self) -> float | None:
        """Seconds for which a worker is waited for that is not there; None: that is an error."""
        wanted = self.options.wait_for_workers
        return None if wanted is None else _time(wanted, "wait_for_workers")

    @property
    def ageing(self) -> float | None:
        """Seconds after which what waits goes one level higher; None: it never does."""
        return None if self.options.ageing is None else _time(self.options.ageing, "ageing")

    @contextlib.contextmanager
    def connect(self) -> Iterator[Connection]:
        """The cluster, for as long as the run needs it."""
        connection = connect(self.place, workers=self.options.workers)
        try:
            with Relay(connection, self.store, self.spec.run):
                yield connection
        finally:
            connection.close()
            if connection.owns_cluster:
                release(self.spec.run)

    def window_config(self) -> WindowConfig:
        """Limits and sizes of this run's window."""
        chosen, size, limits = self.options, settings().batch, settings().window
        return WindowConfig(
            request=self.request,
            batch_size=chosen.batch_size if isinstance(chosen.batch_size, int) else None,
            group=self.workload.group,
            idempotent=self.workload.idempotent,
            errors=chosen.errors,
            max_failures=_limit(chosen.max_failures),
            max_items=size.items,
            max_bytes=size.bytes,
            short_seconds=size.min,
            usual_seconds=size.max,
            long_seconds=size.long,
            second_below=limits.ahead,
            max_retrying=limits.waiting,
            alike_share=limits.alike_share,
            alike_items=limits.alike_of,
            twins=limits.twins,
            setup_failures=limits.setup_failures,
            ageing=self.ageing,
            limits=self.quotas,
            batches_per_second=None if self.store.is_local or self.store.is_memory else BATCHES_PER_SECOND,
        )


def _quotas(options: Options) -> dict[str, Quota]:
    return {**parse_quotas(settings().limits, "dcompute.limits"), **parse_quotas(options.limits)}


def _time(text: Any, what: str) -> float:
    try:
        return parse_seconds(text, what)
    except WorkloadError as error:  # of a workload's timeout it would be
        raise UsageError(error.message) from None


def _as_rows(inputs: Any) -> Any:
    """Inputs, of which an open dataset is its rows."""
    module = sys.modules.get("dcompute.dataset.readable")
    if module is None or not isinstance(inputs, module.Readable):
        return inputs
    from dcompute.upstream import rows

    return rows(inputs)


def _limit(limit: float | None) -> float | None:
    """A whole number of items as an int: the window takes a float for a share."""
    return int(limit) if isinstance(limit, float) and limit > 1 else limit


def _check_limit(limit: Any) -> None:
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 <= limit < math.inf:
        raise UsageError(f"max_failures={limit!r}: say a number of items, or a share between 0 and 1")
    if isinstance(limit, float) and limit > 1 and not limit.is_integer():
        raise UsageError(f"max_failures={limit!r}: a share lies between 0 and 1, a number of items is whole")


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UsageError(f"{name}={value!r}: it is one of {', '.join(repr(str(choice)) for choice in allowed)}")


def _modules(modules: Any) -> tuple[Any, ...]:
    """Modules or their names; one alone need not be in a list."""
    if isinstance(modules, str | types.ModuleType):
        return (modules,)
    found = tuple(modules) if isinstance(modules, Iterable) else (modules,)
    if all(isinstance(module, str | types.ModuleType) for module in found):
        return found
    raise UsageError(f'modules={modules!r}: say local packages or modules, or their names, such as ["lab"]')


def _spec(
    work: Workload,
    source: Inputs,
    store: Store,
    *,
    params: Mapping[str, Any] | None,
    modules: Sequence[Any],
    seed: int,
    name: str | None,
    input_checks: Any,
) -> RunSpec:
    if source.keywords:
        work.check_call(params or {}, source.names)
    code, code_digest, params_digest = pack(work, params or {}, keywords=source.keywords)
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise UsageError(f"name={name!r}: say text, which the dataset will call the workload")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UsageError(f"seed={seed!r}: say a whole number")
    if modules and work.isolation == "thread":
        raise WorkloadError(
            'modules= needs processes of its own, because a worker keeps what it has imported: leave isolation="thread" out, or install '
            "the module on the workers"
        )
    return RunSpec(
        run=new_run_id(),
        dataset=store.url,
        workload=name or work.name,
        code=code,
        code_digest=code_digest,
        params_digest=params_digest,
        version=f"code:{code_digest}" if work.version == "code" else work.version,
        modules=tuple(zip_module(module) for module in modules),
        keywords=source.keywords,
        group=work.group,
        timeout=work.timeout,
        grace=work.grace,
        setup_timeout=settings().worker.setup_timeout,
        isolation=work.isolation,
        cpus=work.requirements.cpus,
        gpus=work.requirements.gpus,
        idempotent=work.idempotent,
        seed=seed,
        schema=to_text(declared(work.schema)) if work.schema is not None else None,
        checks=packed(RunChecks(work.checks, work.requirements.on_invalid == "refuse", checks_of(input_checks, "input_checks"))),
        metrics=settings().metrics,
        sources=source.sources,
        storage_options=tuple(store.storage_options.items()),
    )


def _again() -> str:
    """How a person goes on: the same command where there is one."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main is None:
        return "run the same line again"
    script = Path(sys.argv[0] or main).name
    words = ["python", script] if script.endswith(".py") else [script]
    return f"run the same line again: {shlex.join([*words, *shown_words(sys.argv[1:])])}"
