"""How a batch comes to its devices and cores: at once, when a child without work gave them back, or after a wait that ends."""

from __future__ import annotations

import time
from collections.abc import Callable

from dcompute.config import settings
from dcompute.worker import threads
from dcompute.worker.children import Child, Idle
from dcompute.worker.execution import SetupFailed, Stopped
from dcompute.worker.holdings import Holdings, Loan, holdings
from dcompute.worker.work import SetupFailure, Work

_LOOK_EVERY = 0.2


def devices(
    work: Work, idle: Idle, *, stopped: Callable[[], str | None], fresh: bool = False, held: Holdings | None = None
) -> Loan | Child:
    """The devices for a new child of a batch, as soon as there are some, or a warm child that has them and may (not ``fresh``) be used.

    A device that a child without work has is taken from it. Dask counts devices, so a wait is short: for a tree that is being killed, or
    where shares of several sizes do not fit together. Where another program uses a device's memory, who needs one waits for the others.

    Raises
    ------
    Stopped
        The batch is to end.
    SetupFailed
        There were none for too long, and no child of this worker is about to give one back: the batch goes elsewhere.
    """
    held = held or holdings()
    seconds = settings().worker.device_wait if work.device_wait is None else work.device_wait
    since: float | None = None
    while (loan := held.lend(work.batch.gpus, more=False)) is None:
        if stopped() is not None:
            raise Stopped
        if not fresh and (child := idle.take(work.identity, ends_another=False)) is not None:
            return child
        is_coming = idle.end_one_with_devices()
        # others of this host may need what this worker could claim beside those that are about to be free
        if not is_coming and (loan := held.lend(work.batch.gpus)) is not None:
            return loan
        is_coming = is_coming or (held.is_lending() and work.device_wait is None)
        since = time.monotonic() if is_coming or since is None else since
        if time.monotonic() - since >= seconds and not is_coming:
            raise SetupFailed(SetupFailure(text=_none_free(held, work, seconds), stage="devices"))
        held.wait(_LOOK_EVERY)
    return loan


def _none_free(held: Holdings, work: Work, seconds: float) -> str:
    used = held.in_use()
    why = f"other programs use the memory of {', '.join(used)}" if used else "other processes of this host have them"
    return (
        f"no device of this worker was free for gpus={work.batch.gpus:g} within {seconds:g} s: {why}. End what uses them, or start workers "
        f"that see other devices (CUDA_VISIBLE_DEVICES); dcompute.worker.device-memory says how much may be in use"
    )


def environment(work: Work) -> dict[str, str]:
    """Variables of a child of a batch: how many threads its libraries use."""
    return threads.environment(work.batch.cpus) if settings().worker.threads == "set" else {}


def bind(child: Child, work: Work) -> None:
    """Give a child cores of its own for a batch, on a worker that has some."""
    child.bind(holdings().lend_cores(work.batch.cpus, before=child.cores.numbers))
