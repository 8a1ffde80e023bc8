"""What a worker finds when the doctor sends it to a dataset's storage."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dcompute.dataset.store import Store
from dcompute.dataset.trial import no_traces, tried
from dcompute.errors import DcomputeError
from dcompute.worker.slot import Slot


def check_storage(url: str, token: str, name: str, size: int) -> None:
    """Say as an event whether this worker sees the dataset's storage, may write there, and how fast; never raises.

    Parameters
    ----------
    url
        Of the dataset.
    token
        Names the topic of the event, and is what the file holds.
    name
        A file that the asking side wrote there.
    size
        Bytes to be written and read.
    """
    slot = Slot.here()
    answer: dict[str, Any] = {"event": "storage", "problem": None, "sees": None}
    try:
        store = Store.at(url)
        with no_traces(store):
            answer["sees"] = store.read_or_none(name) == token.encode()
            answer |= asdict(tried(store, size))
    except DcomputeError as error:
        answer["problem"] = str(error)
    except Exception as error:  # noqa: BLE001  told to whoever asked
        answer["problem"] = f"{type(error).__name__}: {error}"
    slot.tell(token, answer)
