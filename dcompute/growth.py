"""What a run knows of the scaling of its cluster: whether somebody starts workers for it, and what a new one would have."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dcompute.demand import SCALING, SILENT_SECONDS, offer_told, why_impossible
from dcompute.errors import ClusterError
from dcompute.resources import WorkerOffer, slots

if TYPE_CHECKING:
    from dcompute.connection import Connection
    from dcompute.records import Request


class Growth:
    """What scales the cluster, if anything does, as its scheduler knows it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._told: Mapping[str, Any] = {}
        self._number: Any = None
        self._since = 0.0
        self._alive = False

    def look(self) -> None:
        """Read again what the scaler says."""
        now = time.monotonic()
        told: Any = None
        with contextlib.suppress(ClusterError):  # whoever needs the scheduler hears of it
            told = self._connection.noted(SCALING)
        self._told = told if isinstance(told, Mapping) else {}
        if self._told.get("number") != self._number:
            self._number, self._since = self._told.get("number"), now
        # a scaler that has ended leaves what it said
        self._alive = bool(self._told) and now - self._since < SILENT_SECONDS

    @property
    def offer(self) -> WorkerOffer | None:
        """What a new worker would have; None where none is to be expected, or nobody knows."""
        return (offer_told(self._told) if self._alive else None) or self._connection.new_worker

    def serves(self, request: Request) -> bool:
        """Whether a new worker could execute a class."""
        new = self.offer
        return new is not None and slots(request, new, [new]) > 0

    def said(self, request: Request) -> str:
        """What is done about a class that no present worker can execute; "" where nothing is known."""
        new = self.offer
        if new is None:
            return ""
        if not self.serves(request):
            return f"none is asked for: {why_impossible(request, new)}"
        trouble = self._told.get("trouble")
        return f"{self._told.get('asked', 0)} are asked for, {self._told.get('have', 0)} are there{f'; {trouble}' if trouble else ''}"
