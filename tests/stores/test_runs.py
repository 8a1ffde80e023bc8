"""Whole runs on real storages, with workers in processes of their own, and servers that are killed under them."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dcompute as dc
from dcompute.dataset.names import entry_name
from dcompute.dataset.store import Store
from dcompute.dataset.writer import Writer
from dcompute.errors import DatasetCorruptError
from tests import servers
from tests.servers import Server
from tests.stores.clusters import workers
from tests.stores.proxy import Proxy, proxied

Place = Callable[[Server], str]

#: Requests a second that a run may make.
MOST = 50


def square(number: int) -> dict[str, int]:
    time.sleep(0.01)
    return {"square": number * number}


def slow_square(number: int) -> dict[str, int]:
    time.sleep(0.05)
    return {"square": number * number}


def drawn(number: int) -> dict[str, int]:
    dc.current().output(f"maps/{number}.txt", column="map").write_text(f"{number}" * 1000)
    return {"number": number}


def squares(url: str) -> dict[int, int]:
    """The results at a place as somebody reads them who has just come."""
    frame = dc.open(url).results().compute(scheduler="threads")
    assert frame.item_key.is_unique
    return {int(key): square for key, square in zip(frame.item_key, frame.square, strict=True)}


def test_run_is_right_and_the_next_one_up_to_date(server: Server, place: Place) -> None:
    """Results and attempts are those of the items, the second run has nothing to do, and nothing was listed on the way."""
    with proxied(server) as proxy, workers(proxy.server) as client:
        url = place(proxy.server)
        run = dc.map(square, range(300), url, client=client)
        run.wait(progress="quiet")
        made = len(proxy.seen)
        summary = run.summary()
        assert summary.all_succeeded
        # beside them each worker showed once that it sees the dataset
        assert made - 4 <= summary.requests <= made
        assert "requests to storage" in str(summary)
        again = dc.map(square, range(300), url, client=client)
        again.wait(progress="quiet")
        assert "up to date" in str(again.summary())
        assert proxy.listings(url.rpartition("/")[2]) == []
        assert squares(url) == {number: number * number for number in range(300)}
        assert len(dc.open(url).attempts().compute(scheduler="threads")) == 300
        assert run.results().square.sum().compute(scheduler=client) == sum(number * number for number in range(300))


def test_files_of_items_are_opened_by_their_urls(server: Server, place: Place) -> None:
    """Anybody who may read the storage opens what the rows name; it is the item's file."""
    import fsspec

    with workers(server) as client:
        url = place(server)
        run = dc.map(drawn, range(12), url, client=client)
        run.wait(progress="quiet")
        rows = dc.open(url).to_arrow(["number", "map_url", "map_size"]).to_pylist()
    assert sorted(row["number"] for row in rows) == list(range(12))
    assert run.summary().requests > 12
    for row in rows:
        assert row["map_url"].startswith(f"{url}/files/")
        with fsspec.open(row["map_url"], **server.options) as file:
            data = file.read()
        assert data == b"%d" % row["number"] * 1000
        assert len(data) == row["map_size"]


# the same code on every store
@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_folders_are_listed_when_a_run_goes_on_after_a_broken_one(server: Server, place: Place) -> None:
    """After a driver that did not end in order the marks are listed, once; nothing else is."""
    with proxied(server) as proxy, workers(proxy.server) as client:
        url = place(proxy.server)
        Writer.acquire(Store.at(url), workload="square", run="broken").abandon()
        proxy.seen.clear()
        dc.map(square, range(20), url, client=client).wait(progress="quiet")
        listed = proxy.listings()
        assert listed
        assert all("attempts/" in path or f"prefix={url.rpartition('/')[2]}/&" in path for path in listed), listed
        assert len(listed) <= 2


# the same code on every store
@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_many_slots_stay_below_fifty_requests_a_second(server: Server, place: Place) -> None:
    """Once batches are measured they grow with the number of slots, until a whole run asks the storage less than fifty times a second."""
    with proxied(server) as proxy, workers(proxy.server, threads=16) as client:
        run = dc.map(slow_square, range(9_000), place(proxy.server), client=client)
        run.wait(progress="quiet")
        asked = list(proxy.seen)  # those of compaction at its end among them
        fives = Counter(int(one.at - asked[0].at) // 5 for one in asked)
        # the first ten seconds have the start of 32 children, and small batches that measure
        full = [count / 5 for five, count in fives.items() if 2 <= five < max(fives)]
        assert run.summary().all_succeeded
        assert full
        assert sum(full) / len(full) <= MOST, full
        assert run.summary().requests / run.summary().seconds <= MOST
        # beside them each worker showed once that it sees the dataset
        assert len(asked) - 2 * 2 <= run.summary().requests <= len(asked)


@pytest.mark.parametrize("start", [servers.seaweedfs, servers.fake_gcs])
@pytest.mark.parametrize("how", ["act", "lose"])
@pytest.mark.parametrize("entry", [3, 5])
def test_server_killed_in_a_commit_loses_nothing(start: Callable[..., object], how: str, entry: int, scratch: Path, place: Place) -> None:
    """A server that is killed before or after it wrote an entry, and started again: the run goes on and every item counts once."""
    with start(scratch) as server, proxied(server) as proxy, workers(proxy.server) as client:
        url = place(proxy.server)

        def kill() -> None:
            server.kill()
            threading.Timer(1.0, server.start).start()

        proxy.trouble(how, "POST" if server.kind == "fake_gcs" else "PUT", f"log/{entry:020d}.json", act=kill)
        run = dc.map(square, range(400), url, client=client)
        run.wait(progress="quiet")
        assert proxy.troubles[0].times == 0
        assert run.summary().all_succeeded
        assert squares(url) == {number: number * number for number in range(400)}
        again = dc.map(square, range(400), url, client=client)
        again.wait(progress="quiet")
        assert again.summary().executed == 0


class Forgetful:
    """Azurite behind a proxy: killed, it forgets its last seconds. It keeps what it knows every five, in a file."""

    def __init__(self, server: Server, proxy: Proxy, scratch: Path) -> None:
        self.server = server
        self.proxy = proxy
        self.gone: list[str] = []  #: what it forgot when it was killed, which is done once
        self._file = scratch / "__azurite_db_blob__.json"
        self._alone = threading.Lock()  # several workers ask at once

    def kill_before(self, part: str, newest: Callable[[], list[str]]) -> None:
        """Kill it at a request to write a file whose path has this part, once some of the newest files are not kept yet."""

        def kill() -> None:
            with self._alone:
                kept = self._file.read_text()
                gone = [name for name in newest() if name not in kept]
                if gone and not self.gone:
                    self.server.kill()
                    self.gone += gone
                    self.server.start()

        self.proxy.trouble("act", "PUT", part, times=1000, act=kill)

    def written(self, folder: str) -> list[str]:
        """The files of a folder that were sent to it."""
        paths = [one.path.partition("?")[0] for one in self.proxy.seen if one.method == "PUT" and f"/{folder}/" in one.path]
        return [path.rpartition("/")[2] for path in paths]


@pytest.fixture
def forgetful(scratch: Path) -> Iterator[Forgetful]:
    """One that has kept what it was given so far."""
    with servers.azurite(scratch) as server, proxied(server) as proxy:
        Store.at(f"{proxy.server.url}/first", proxy.server.options).prove()
        time.sleep(7.0)
        yield Forgetful(server, proxy, scratch)


def test_server_that_forgets_is_found_out(forgetful: Forgetful, place: Place) -> None:
    """Azurite, killed, forgets its last seconds: the run ends with an error that names what is gone, and the next one does it again."""
    proxy = forgetful.proxy
    url = place(proxy.server)

    def last_entry() -> list[str]:
        number = int(re.search(r"log/(\d{20})\.json", proxy.seen[-1].path)[1])  # type: ignore[index]
        return [entry_name(number - 1)] if number > 3 else []

    with workers(proxy.server) as client:
        forgetful.kill_before("log/0000", last_entry)
        run = dc.map(square, range(1500), url, client=client)
        with pytest.raises(DatasetCorruptError, match=r"is gone from abfs://.*run the same line again") as caught:
            run.wait(progress="quiet")
        assert forgetful.gone[0] in str(caught.value)
        proxy.troubles.clear()
        until = time.monotonic() + 60
        while True:
            again = dc.map(square, range(1500), url, client=client, takeover=True)
            again.wait(progress="quiet")
            if again.summary().all_succeeded or time.monotonic() > until:
                break
        assert squares(url) == {number: number * number for number in range(1500)}


def test_part_that_a_server_forgot_before_its_mark_does_not_count(forgetful: Forgetful, place: Place) -> None:
    """Azurite, killed between a part and its mark, forgets the part: its items are there at the end all the same, once."""
    url = place(forgetful.proxy.server)
    with workers(forgetful.proxy.server) as client:
        forgetful.kill_before("attempts/", lambda: forgetful.written("results"))
        for _ in range(5):
            run = dc.map(square, range(600), url, client=client, takeover=True)
            with contextlib.suppress(DatasetCorruptError):
                run.wait(progress="quiet")
                break
        assert forgetful.gone
        assert run.summary().all_succeeded
        assert squares(url) == {number: number * number for number in range(600)}


# the same code on every store
@pytest.mark.parametrize("server", ["azurite"], indirect=True)
def test_part_that_a_server_forgot_is_named(server: Server, place: Place) -> None:
    """A part that the log counts and the storage lost is an error that names it, never a result without its rows."""
    with workers(server) as client:
        url = place(server)
        dc.map(square, range(50), url, client=client).wait(progress="quiet")
        store = Store.at(url)
        lost = store.names("results")[0]
        store.remove([lost])
        with pytest.raises(DatasetCorruptError, match=f"{lost} is gone from {url}"):
            dc.open(url).results().compute(scheduler="threads")


# the same code on every store
@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_options_are_nowhere_but_in_the_settings(server: Server, place: Place, scratch: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the dataset nor the log nor the graph of its results holds what logs in to the storage."""
    import pickle

    with workers(server) as client, caplog.at_level("DEBUG", logger="dcompute"):
        url = place(server)
        run = dc.map(square, range(20), url, client=client)
        run.wait(progress="quiet")
        store = Store.at(url)
        files = [name for folder in ("", "log", "runs", "attempts", "results") for name in store.names(folder)]
        assert len(files) > 5
        held = [name for name in files if b"testsecret" in store.read(name)]
        assert held == []
        assert "testsecret" not in caplog.text
        assert b"testsecret" not in pickle.dumps(run.results().__dask_graph__())
        assert b"testsecret" not in pickle.dumps(run._driver.assignment.spec)
