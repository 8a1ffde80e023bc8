"""Compaction, vacuum, deletion and archives on real object storages."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from dcompute.dataset.archive import copy
from dcompute.dataset.compaction import compact
from dcompute.dataset.deletion import delete
from dcompute.dataset.store import Store
from dcompute.dataset.vacuum import vacuum
from tests.component.upkeep.driving import Driving, on_storage, visible
from tests.servers import Server

Place = Callable[[Server], str]


def test_a_dataset_is_looked_after(server: Server, place: Place, tmp_path: Path) -> None:
    """Twelve files become one, the storage tells how old they are, what was deleted is gone, and a copy comes and goes."""
    store = Store.at(place(server), server.options)
    driver = Driving(store)
    for number in range(12):
        driver.add({f"{number}": [{"n": number}]})
    driver.write({"late": [{"n": 12}]})
    driver.close()
    before = visible(store)
    assert compact(store).replaced == 12
    assert visible(store) == before

    assert vacuum(store, "1 h").removed == ()
    assert vacuum(store, "1 h", now=lambda: time.time() - 7200, dry_run=True).removed == ()
    done = vacuum(store, "1 h", now=lambda: time.time() + 7200)
    assert len(done.removed) == 12 + 2
    assert done.bytes > 12 * 100
    assert visible(store) == on_storage(store) == before

    assert delete(store, ["3"]).items == 1
    assert compact(store, all=True, sort_by="n").dropped == 1
    vacuum(store, 0)
    assert len(on_storage(store)) == 11

    archived = Store.at(tmp_path / "archive")
    copy(store, archived)
    restored = Store.at(place(server), server.options)
    copy(archived, restored)
    assert visible(restored) == visible(archived) == visible(store)
