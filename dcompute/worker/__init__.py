"""What runs on worker nodes: the batch of a Dask task, the guardian and its children, limits, figures, parts.

A batch goes from ``batch`` through ``supervisor`` and ``execution`` to a child (``child``, ``loop``, ``attempt``).
What happens there is noted in a mapped file (``journal``), of which parts are made (``finish``, ``tables``).
What only Linux has is in ``system``. As a preload of Dask's workers (``preload``) it finds out what they have (``hardware``, ``devices``,
``walltime``), claims it (``claims``) and declares it; children get their part (``holdings``, ``threads``).
"""

from __future__ import annotations

from typing import Any


async def dask_setup(worker: Any) -> None:
    """What ``dask worker --preload dcompute.worker`` calls before the worker registers."""
    from dcompute.worker.preload import set_up

    await set_up(worker)


async def dask_teardown(worker: Any) -> None:
    """What it calls when the worker closes."""
    from dcompute.worker.preload import tear_down

    await tear_down(worker)
