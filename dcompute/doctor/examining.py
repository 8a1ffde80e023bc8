"""The doctor's round: connect, ask, try the storage, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import dcompute
from dcompute.clusters import Cluster, profile_of
from dcompute.clusters.addresses import is_loopback
from dcompute.dataset.names import new_id
from dcompute.dataset.store import Store
from dcompute.dataset.trial import no_traces, tried
from dcompute.doctor import facts, findings
from dcompute.doctor.asking import Questions
from dcompute.doctor.findings import FAILURE, OK, WARNING, Finding
from dcompute.errors import DcomputeError

#: Bytes that are written to and read from a storage, from each place.
SIZE = 8 << 20
#: At most so many places try the storage.
PLACES = 16
#: At most so many seconds to connect.
CONNECT_SECONDS = 15.0


def examine(
    where: str | None, dataset: str | None, *, seconds: float = 30.0, overrides: Mapping[str, Any] | None = None
) -> Iterator[Finding]:
    """What is found, one after another.

    Parameters
    ----------
    where
        A profile, an address or a scheduler's file; None: what :func:`dcompute.cluster` gives without a name, in this process.
    dataset
        A dataset's place, whether or not one is there; None: no storage is tried.
    seconds
        How long each step may take.
    overrides
        Settings of the profile that count before what it says.
    """
    yield Finding(OK, "here", "here", ", ".join(f"{name} {version}" for name, version in _here()["versions"].items()))
    store = None
    if dataset is not None:
        found, store = _storage_here(dataset, seconds)
        yield found
    given = dict(overrides or {})
    if where is None and "kind" not in given:
        given = {"kind": "local", "processes": False, **given}
    began = time.monotonic()
    try:
        cluster = Cluster(profile_of(where, {"timeout": min(seconds, CONNECT_SECONDS), **given}))
    except DcomputeError as error:
        yield Finding(FAILURE, "connect", where or "local", error.message)
        return
    with cluster:
        yield from _connected(cluster, time.monotonic() - began)
        yield from _Round(cluster, store, seconds).findings()


def _here() -> dict[str, Any]:
    return facts.about()


def _connected(cluster: Cluster, seconds: float) -> Iterator[Finding]:
    address = cluster.scheduler_address
    protocol, _, rest = address.partition("://")
    text = f"{address} answered in {seconds:.2f} s"
    if protocol in ("tls", "wss"):
        yield Finding(OK, "connect", "scheduler", f"{text}, encrypted")
    elif protocol == "inproc" or is_loopback(rest.rpartition(":")[0].strip("[]")):
        yield Finding(OK, "connect", "scheduler", f"{text}, on this machine")
    else:
        todo = "whoever reaches that port can have any code executed: see `dcompute certs`"
        yield Finding(WARNING, "connect", "scheduler", f"{text}, not encrypted", todo)


class _Round:
    """What is asked of one cluster."""

    def __init__(self, cluster: Cluster, store: Store | None, seconds: float) -> None:
        self._client = cluster.client
        self._store = store
        self._seconds = seconds
        self._here = _here()["versions"]

    def findings(self) -> Iterator[Finding]:
        yield from self._scheduler()
        try:
            workers: Mapping[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        except Exception as error:  # noqa: BLE001  whatever it is, there is nobody to ask
            yield Finding(FAILURE, "workers", "scheduler", f"it does not say who its workers are: {type(error).__name__}: {error}")
            return
        if not workers:
            yield Finding(FAILURE, "workers", "scheduler", "it has no workers", "start some: dask worker --preload dcompute.worker ADDRESS")
            return
        yield from _resources(workers)
        questions = Questions(self._client)
        try:
            yield from self._ask_all(questions, workers)
        finally:
            questions.close()

    def _ask_all(self, questions: Questions, workers: Mapping[str, Any]) -> Iterator[Finding]:
        told = questions.ask(workers, "facts", until=time.monotonic() + self._seconds)
        silent = [address for address in workers if address not in told]
        yield from (findings.of_silence(address, workers[address], self._seconds) for address in silent)
        said = {address: answer for address, (_, _, answer) in told.items()}
        for address in [address for address, answer in said.items() if "versions" not in answer]:
            yield Finding(FAILURE, "answer", address, f"it cannot answer: {said.pop(address).get('problem')}")
        yield from _alike(self._here, said)
        able = [address for address, answer in said.items() if answer["import_problem"] is None]
        yield from self._clocks(questions, list(said))
        if self._store is not None:
            yield from self._storage_there(questions, {address: said[address] for address in able}, self._store)

    def _scheduler(self) -> Iterator[Finding]:
        try:
            there = self._client.sync(_versions_of, self._client, self._seconds)
        except Exception as error:  # noqa: BLE001  told
            yield Finding(WARNING, "versions", "scheduler", f"it does not say which it has: {type(error).__name__}: {error}")
            return
        wrong = findings.of_versions("scheduler", self._here, there, scheduler=True)
        yield from wrong or [Finding(OK, "versions", "scheduler", f"dask and distributed {there.get('distributed')}, as here")]

    def _clocks(self, questions: Questions, addresses: list[str]) -> Iterator[Finding]:
        """Tasks that do nothing but say the time: how long they take, and how far that time is from ours."""
        told = questions.ask(addresses, "clock", until=time.monotonic() + self._seconds)
        skews, placing, longest, furthest = [], [], 0.0, 0.0
        for address, (asked, came, answer) in told.items():
            # it was said at some moment between the question and the answer
            skew, uncertain = answer["time"] - (asked + came) / 2, (came - asked) / 2
            skews += findings.of_clock(address, skew, uncertain)
            placing += findings.of_placing(address, came - asked)
            longest, furthest = max(longest, came - asked), max(furthest, abs(skew))
        yield from findings.summed("clock", f"at most {furthest:.2f} s from ours", list(told), skews)
        yield from findings.summed("placing", f"a task takes at most {longest * 1e3:,.0f} ms there and back", list(told), placing)

    def _storage_there(self, questions: Questions, said: Mapping[str, Mapping[str, Any]], store: Store) -> Iterator[Finding]:
        if store.is_memory:
            yield Finding(
                WARNING, "storage", "workers", f"{store.url} is seen by this process only", "use a path or URL that workers see too"
            )
            return
        asked = findings.one_a_place(said, most=PLACES)
        name = f"probe-{new_id()}.json"
        with no_traces(store):
            try:
                store.create(name, questions.token.encode())
                values = (store.url, questions.token, name, SIZE)
                until = time.monotonic() + self._seconds
                answers = questions.call(asked, "dcompute.worker.checkup:check_storage", values, until=until)
            finally:
                with contextlib.suppress(DcomputeError):
                    store.remove([name])
        for address in asked:
            if address in answers:
                yield from findings.of_storage(address, answers[address], store.url)
            else:
                todo = "look whether that host reaches it, with the credentials that it has"
                yield Finding(FAILURE, "storage", address, f"{store.url} did not answer there in {self._seconds:.0f} s", todo)


async def _versions_of(client: Any, seconds: float) -> dict[str, str]:
    there = await asyncio.wait_for(client.scheduler.versions(packages=[]), seconds)
    return {name: version for name, version in _pairs(there) if version}


def _pairs(there: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "python", ".".join(str(dict(there["packages"]).get("python", "")).split(".")[:2])
    yield from ((name, version) for name, version in dict(there["packages"]).items() if name != "python")


def _alike(here: Mapping[str, str], said: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    differing = [
        finding
        for address, answer in said.items()
        for finding in findings.of_versions(address, here, answer["versions"], executable=answer["executable"])
    ]
    yield from findings.summed("versions", "the same as here", list(said), differing)
    unable = [finding for address, answer in said.items() for finding in findings.of_import(address, answer, dcompute.__version__)]
    yield from findings.summed("import", "dcompute can be imported", list(said), unable)


def _resources(workers: Mapping[str, Any]) -> list[Finding]:
    return findings.of_resources(
        {address: info.get("resources") or {} for address, info in workers.items()},
        threads=sum(int(info["nthreads"]) for info in workers.values()),
        memory=sum(float(info.get("memory_limit") or 0) for info in workers.values()),
    )


def _storage_here(dataset: str, seconds: float) -> tuple[Finding, Store | None]:
    """What the storage says here, and the storage where it can be tried from workers too."""
    try:
        store = Store.named(dataset)
    except DcomputeError as error:
        return Finding(FAILURE, "storage", "here", error.message), None
    answer = _in_time(lambda: asdict(tried(store, SIZE)), seconds)
    if answer is None:
        todo = "is its address right, and does it let you in?"
        return Finding(FAILURE, "storage", "here", f"{store.url} did not answer in {seconds:.0f} s", todo), None
    (found,) = findings.of_storage("here", answer, store.url)
    return found, store if found.status != FAILURE else None


def _in_time(act: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any] | None:
    """What it gives, or the problem that it has; None where that takes too long."""
    found: list[dict[str, Any]] = []

    def run() -> None:
        try:
            found.append(act())
        except DcomputeError as error:
            found.append({"problem": error.message})
        except Exception as error:  # noqa: BLE001  a finding, as all else
            found.append({"problem": f"{type(error).__name__}: {error}"})

    thread = threading.Thread(target=run, name="dcompute-doctor-storage", daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None
