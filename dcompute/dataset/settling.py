"""What an interrupted run left is added before anything else changes the dataset, for those who are no run themselves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from dcompute.dataset.claims import Claims
from dcompute.dataset.lease import Clock
from dcompute.dataset.names import new_run_id, started_name
from dcompute.dataset.parts import read_mark
from dcompute.dataset.schema import join
from dcompute.dataset.state import State
from dcompute.dataset.store import Store
from dcompute.dataset.writer import Writer
from dcompute.errors import DatasetError, SchemaError, UsageError


@contextlib.contextmanager
def settled(store: Store, state: State, verb: str, *, clock: Clock = time) -> Iterator[Writer]:
    """The right to write to a dataset of which all earlier epochs are settled; given back at the end.

    Parameters
    ----------
    store
        Where the dataset is.
    state
        What its log says.
    verb
        What is to be done, as in ``delete``.
    clock
        Tells the time and sleeps.

    Raises
    ------
    DatasetBusy
        A driver is alive.
    DatasetError
        A batch that the run wrote has to be rewritten first.
    """
    writer = Writer.acquire(store, workload=state.workload or "", run=f"{verb}-{new_run_id()}", clock=clock)
    try:
        if writer.state.sent:
            Claims(store, clock).await_marks(set(writer.state.sent.values()))
        is_once = _is_once(store, writer.state)
        # by marks alone nobody knows which failures its policy calls final: tried once too often is better than never again
        writer.adopt(read_mark, lambda _kind, _attempt: is_once, join=lambda old, new: _join_or_refuse(old, new, verb))
        yield writer
    except (UsageError, SchemaError):
        # nothing was committed that could be unclear
        writer.close()
        raise
    except BaseException:
        writer.abandon()
        raise
    writer.close()


def _is_once(store: Store, state: State) -> bool:
    """Whether items of epochs that are not settled may be executed once only: their batches were claimed."""
    claims = (started_name(f"{opened.run}-{epoch:06d}-") for epoch, opened in state.opened.items() if epoch not in state.settled)
    prefixes = tuple(claim.removesuffix(".started") for claim in claims)
    return any(name.startswith(prefixes) and name.endswith(".started") for name in store.names("runs"))


def _join_or_refuse(old: str | None, new: str | None, verb: str) -> str | None:
    try:
        return join(old, new)
    except SchemaError as error:
        raise DatasetError(
            f"the last run was interrupted, and a batch that it wrote has to be rewritten before you can {verb} anything: run the same "
            f"line again, which does that, then {verb} ({error})"
        ) from error
