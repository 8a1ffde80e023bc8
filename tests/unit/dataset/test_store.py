"""A store before its first request."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from dcompute.dataset.store import Store


def test_threads_that_come_first_at_once_share_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else requests and failures that one of them has counted are lost."""
    store = Store.at("memory://threads-at-once")
    connect, gate = Store._file_system, threading.Barrier(8)

    def slowly(self: Store) -> Any:
        time.sleep(0.01)  # so that others come meanwhile
        return connect(self)

    monkeypatch.setattr(Store, "_file_system", slowly)
    found: list[int] = []

    def ask() -> None:
        gate.wait()
        found.append(id(store._files))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {id(store._backend)}
