"""Compaction, vacuum, deletion and archives on real object storages."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dcompute.dataset import compaction
from dcompute.dataset.archive import copy
from dcompute.dataset.compaction import compact, compact_after_run
from dcompute.dataset.deletion import delete
from dcompute.dataset.entries import Add, setting
from dcompute.dataset.pace import UPKEEP
from dcompute.dataset.reading import results_arrow
from dcompute.dataset.state import State
from dcompute.dataset.store import Store
from dcompute.dataset.vacuum import vacuum
from dcompute.dataset.writer import open_dataset
from tests.component.upkeep.driving import Driving, on_storage
from tests.component.upkeep.producing import Producing, content, produced
from tests.servers import Server
from tests.stores.proxy import Proxy

Place = Callable[[Server], str]

#: Requests a second that looking after a dataset may make.
MOST = 50


def visible(store: Store) -> dict[int, bytes]:
    """The rows that count, each with what the file of its item holds."""
    rows = results_arrow(store, open_dataset(store)[1], ["n", "map_url"]).to_pylist()
    found = {row["n"]: store.read(row["map_url"].removeprefix(f"{store.url}/")) for row in rows}
    assert len(found) == len(rows)
    assert all(data == content({"n": n}) for n, data in found.items())
    return found


def test_a_dataset_is_looked_after(proxy: Proxy, place: Place, tmp_path: Path) -> None:
    """Twelve parts become one, the storage tells how old they are, what was deleted is gone, files are where rows say, in copies too.

    Each request is counted, and merging asks for a part once.
    """
    server = proxy.server
    store = Store.at(place(server), server.options)
    driver = Producing(store)
    for number in range(12):
        driver.add({f"{number}": [{"n": number}]})
    driver.write({"late": [{"n": 12}]})
    driver.close()
    before = visible(store)
    made = len(proxy.seen)
    assert compact(store).replaced == 12
    assert len([one for one in proxy.seen[made:] if "/results/" in one.path and one.method != "PUT"]) == 12
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
    assert store.requests + restored.requests == len(proxy.seen)


def scattered(store: Store, count: int) -> State:
    """So many small parts, of one commit."""
    driver = Driving(store)
    batches = [driver.write({f"{number}": [{"n": number}]}) for number in range(count)]
    driver.writer.commit([*setting(driver.schema, None), Add(batches=tuple(batches))])
    driver.close()
    return driver.writer.state


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
@pytest.mark.parametrize("after_run", [False, True])
def test_compaction_stays_below_fifty_requests_a_second(server: Server, proxy: Proxy, place: Place, after_run: bool) -> None:
    """Merging asks for each small part once, at a pace; after a run it takes no more parts than there is time for."""
    url = place(server)
    state = scattered(Store.at(url, server.options), 130)
    store = Store.at(url, proxy.server.options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "LEAST_AFTER_RUN", 50)
        patch.setattr(compaction, "SECONDS_AFTER_RUN", 2.0)
        began = time.monotonic()
        if after_run:
            compact_after_run(store, state)
        else:
            compact(store)
    kept = 130 - 2 * int(UPKEEP) if after_run else 0
    assert len(list(open_dataset(store)[1].counted_parts())) == kept + 1
    proxy.seen.sort(key=lambda one: one.at)
    asked = [one for one in proxy.seen if "/results/" in one.path and one.method != "PUT"]
    assert len(asked) == 130 - kept
    assert len(asked) / (asked[-1].at - began) < MOST
    assert store.requests == len(proxy.seen)
