"""What the settings of a worker hold for storages, told to its children: there user code opens datasets and files as the worker does.

They may be secrets: they go through the connection between the two, never through an environment, an argument or a file.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any


def told() -> list[bytes]:
    """What a child has to be told: nothing where the settings hold nothing."""
    from dcompute.config import settings

    profiles = settings().storage
    if not profiles:
        return []
    return [
        pickle.dumps(
            {prefix: {name: option for name, option in options.items() if _travels(option)} for prefix, options in profiles.items()}
        )
    ]


def take(blobs: Sequence[bytes]) -> None:
    """Have what the worker told in the settings of this process."""
    if not blobs:
        return
    import dask

    dask.config.set({"dcompute.storage": pickle.loads(blobs[0])})  # noqa: S301  from the worker


def _travels(option: Any) -> bool:
    try:
        pickle.dumps(option)
    except Exception:  # noqa: BLE001  what a program put into its settings may raise what it likes
        return False
    return True
