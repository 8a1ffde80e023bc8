"""Compaction, vacuum, deletion and archives on real object storages."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from dcompute.dataset.archive import copy
from dcompute.dataset.compaction import compact
from dcompute.dataset.deletion import delete
from dcompute.dataset.reading import results_arrow
from dcompute.dataset.store import Store
from dcompute.dataset.vacuum import vacuum
from dcompute.dataset.writer import open_dataset
from tests.component.upkeep.driving import on_storage
from tests.component.upkeep.producing import Producing, content, produced
from tests.servers import Server

Place = Callable[[Server], str]


def visible(store: Store) -> dict[int, bytes]:
    """The rows that count, each with what the file of its item holds."""
    rows = results_arrow(store, open_dataset(store)[1], ["n", "map_url"]).to_pylist()
    found = {row["n"]: store.read(row["map_url"].removeprefix(f"{store.url}/")) for row in rows}
    assert len(found) == len(rows)
    assert all(data == content({"n": n}) for n, data in found.items())
    return found


def test_a_dataset_is_looked_after(server: Server, place: Place, tmp_path: Path) -> None:
    """Twelve parts become one, the storage tells how old they are, what was deleted is gone, files are where rows say, in copies too."""
    store = Store.at(place(server), server.options)
    driver = Producing(store)
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
    assert len(done.removed) == 12 + 3
    assert done.bytes > 12 * 100
    assert sum(on_storage(store).values()) == 12
    assert visible(store) == before
    assert len(produced(store)) == 12

    assert delete(store, ["3"]).items == 1
    assert compact(store, all=True, sort_by="n").dropped == 1
    vacuum(store, 0)
    assert len(on_storage(store)) == len(produced(store)) == 11

    archived = Store.at(tmp_path / "archive")
    copy(store, archived)
    restored = Store.at(place(server), server.options)
    copy(archived, restored)
    assert visible(restored) == visible(archived) == visible(store)
