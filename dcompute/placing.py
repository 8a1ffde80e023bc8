"""Where batches of each class may go: what workers offer, whether they can do the work at all, and what is annotated."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dcompute.dataset.parts import mark_name
from dcompute.errors import ClusterError, DcomputeError, ResourceError, RunCancelled, StoreError, WorkloadError
from dcompute.graph import probe_task
from dcompute.records import Receipt, Request
from dcompute.resources import WorkerOffer, annotation, explain_aside, explain_gap, is_counted, memory_share, slots
from dcompute.window import Capacity, Send
from dcompute.worker.probe import versions

if TYPE_CHECKING:
    from dcompute.assignment import Assignment
    from dcompute.cluster import Connection
    from dcompute.dataset.store import Store

#: A probe waits for a free thread of its worker, which others may hold; who has answered by then (seconds) is enough to begin with.
PROBE_SECONDS = 60.0
#: How often (seconds) the scheduler is asked whether a worker that does not answer is still there.
GONE_SECONDS = 1.0
_COMMON = "Use a folder that all machines share, or a URL (s3://...)."


class Placing:
    """The workers of one cluster, as one run sees them; everything here is called on the driver's thread."""

    def __init__(self, connection: Connection, assignment: Assignment) -> None:
        self.address = connection.address
        self._connection = connection
        self._assignment = assignment
        self._offers: dict[str, WorkerOffer] = {}
        self._trusted: set[str] = set()  #: workers whose files this driver has found
        if not assignment.packed.inline:
            connection.keep(assignment.packed.digest, assignment.packed.data)

    def refresh(self) -> bool:
        """Look again at what workers offer; whether it changed."""
        offers = self._connection.offers()
        changed = offers != self._offers
        self._offers = offers
        return changed

    def capacity(self, classes: Iterable[Request]) -> Capacity:
        """What the cluster offers to these classes."""
        offers, classes = list(self._offers.values()), list(classes)
        return Capacity(
            slots={request: {offer.address: slots(request, offer, offers) for offer in offers} for request in classes},
            target=self._target(),
            largest_memory=max((memory_share(offer, whole=True) for offer in offers), default=None),
            share=max((self._share(offer) for offer in offers), default=None),
            counted=frozenset(request for request in classes if is_counted(request, offers)),
        )

    def _target(self) -> int | None:
        """Batches in flight that an adaptive cluster must see to grow as far as it may: one for each slot it would then have."""
        most = self._connection.target
        if most is None:
            return None
        request, offers = self._assignment.request, list(self._offers.values())
        return most * max((slots(request, offer, offers) for offer in offers), default=1)

    def _share(self, offer: WorkerOffer) -> int:
        """Bytes that a call has on a worker where its class declares none: as many slots' shares as it asks for cores."""
        return min(memory_share(offer, whole=True), int(memory_share(offer) * max(1.0, self._assignment.request.cpus)))

    def resources(self, request: Request) -> dict[str, float]:
        """What is annotated on the batches of a class: only names that workers declare."""
        return annotation(request, self._offers.values())

    def workers(self, send: Send) -> tuple[str, ...] | None:
        """The only workers that may execute a batch; None where any may."""
        one = send.alone_on or send.only_on
        if one is not None:
            return (one,)
        if not send.avoid:
            return None
        return tuple(address for address in self._offers if address not in send.avoid) or None

    def refuse_impossible(self, request: Request) -> None:
        """Refuse what no present worker can do; a cluster without workers may still get some.

        Raises
        ------
        ResourceError
            Which names the gap.
        """
        offers = list(self._offers.values())
        if offers and not any(slots(request, offer, offers) for offer in offers):
            raise ResourceError(explain_gap(request, offers))

    def aside(self, request: Request) -> str:
        """Which workers take no part because they do not declare what others do; "" where all do."""
        return explain_aside(request, self._offers.values())

    def probe(self, store: Store, *, cancelled: Callable[[], str | None]) -> None:
        """Let every worker show that it can execute this workload and sees this dataset.

        Raises
        ------
        ClusterError
            A worker of another version, or none that answers.
        StoreError
            A worker that does not see the dataset as the driver does.
        WorkloadError
            A workload that a worker cannot import.
        """
        for who, why in self._connection.lacking("dcompute").items():
            raise ClusterError(f"{who} cannot import dcompute ({why}): install it there, in the same version, and {self._assignment.again}")
        until = time.monotonic() + PROBE_SECONDS
        rounds = 0
        answers = self._ask(store, rounds, until, cancelled)
        while answers and not any(answers.values()) and time.monotonic() < until:
            # All who were asked are gone; who came in their place is asked too.
            self.refresh()
            rounds += 1
            answers = self._ask(store, rounds, until, cancelled)
        if answers and not any(answers.values()):
            raise ClusterError(
                f"none of the {len(answers)} workers of {self.address} answered within {PROBE_SECONDS:.0f} s: they are busy with other "
                f"work, or cut off. Free some, and {self._assignment.again}"
            )

    def _ask(self, store: Store, rounds: int, until: float, cancelled: Callable[[], str | None]) -> dict[str, dict[str, Any] | None]:
        token = self._assignment.spec.run
        futures = {
            address: self._connection.compute(
                probe_task(self._assignment.packed, token, worker=address, key=f"probe-{token}-{rounds}-{number}")
            )
            for number, address in enumerate(self._offers)
        }
        try:
            answers = {address: self._answer(address, future, until, cancelled) for address, future in futures.items()}
            self._judge(answers, store)
        finally:
            for future in futures.values():
                future.release()
        return answers

    def _answer(self, address: str, future: Any, until: float, cancelled: Callable[[], str | None]) -> dict[str, Any] | None:
        """What a worker says; None where it is gone or says nothing in time."""
        look_at = time.monotonic() + GONE_SECONDS
        while not future.done():
            reason = cancelled()
            if reason is not None:
                raise RunCancelled(f"the run was cancelled before its first batch ({reason}). To go on, {self._assignment.again}")
            if self._connection.lost:
                raise ClusterError(f"the scheduler at {self.address} is gone: start a cluster and {self._assignment.again}")
            # The task of a worker that is gone may run nowhere else, and would wait for ever.
            if time.monotonic() > until:
                return None
            if time.monotonic() > look_at:
                if address not in self._connection.offers():
                    return None
                look_at = time.monotonic() + GONE_SECONDS
            with contextlib.suppress(Exception):  # what it raised is looked at below
                future.exception(timeout=0.2)
        if future.status == "cancelled":
            return None
        if future.status != "finished":
            error = future.exception()
            return {"ok": False, "fault": "cluster", "problem": f"{type(error).__name__}: {error}"}
        return dict(future.result())

    def _judge(self, answers: dict[str, dict[str, Any] | None], store: Store) -> None:
        answered = {address: answer for address, answer in answers.items() if answer is not None}
        for address, answer in answered.items():
            if not answer.get("ok"):
                raise _refusal(address, answer)
            _check_versions(address, answer)
            self._check_place(address, answer, store)
            self._trusted.add(address)

    def check_written(self, receipt: Receipt, store: Store) -> None:
        """Look for what a worker wrote that came too late to be probed, once a worker.

        Raises
        ------
        StoreError
            It is not there: that worker sees other storage.
        """
        if not receipt.worker or receipt.worker in self._trusted:
            return
        try:
            found = store.exists(mark_name(receipt.batch))
        except StoreError:  # it fails, which says nothing of the worker: the next batch is looked for
            return
        if not found:
            raise StoreError(
                f"worker {receipt.worker} on {receipt.host} wrote a batch into {store.url}, and the driver does not find it: they see "
                f"different storage. {_COMMON} What is committed stays; {self._assignment.again}"
            )
        self._trusted.add(receipt.worker)

    def _check_place(self, address: str, answer: dict[str, Any], store: Store) -> None:
        if store.is_memory and (answer.get("host"), answer.get("pid")) != (os.uname().nodename, os.getpid()):
            raise StoreError(f"{store.url} lies in the memory of this process, and worker {address} is another: use a path or URL both see")
        name = answer.get("file")
        if name is None:
            return
        if not store.exists(str(name)):
            raise StoreError(
                f"worker {address} on {answer.get('host')} wrote a probe into {store.url}, and the driver does not find it: they see "
                f"different storage. {_COMMON}"
            )
        store.remove([str(name)])

    def forget(self) -> None:
        """Take back what the scheduler keeps for this run."""
        if not self._assignment.packed.inline:
            self._connection.forget(self._assignment.packed.digest)


def _check_versions(address: str, answer: dict[str, Any]) -> None:
    """Code and records cross between driver and workers: what they are pickled with must be the same on both."""
    here, there = versions(), answer.get("versions") or {}
    differ = [f"{name} {there.get(name)} (here {known})" for name, known in here.items() if there.get(name) != known]
    if differ:
        raise ClusterError(
            f"worker {address} on {answer.get('host')} has {', '.join(differ)}: install the same versions on workers and driver "
            f"({answer.get('executable')} there)"
        )


def _refusal(address: str, answer: dict[str, Any]) -> DcomputeError:
    error = {"workload": WorkloadError, "store": StoreError}.get(str(answer.get("fault")), ClusterError)
    return error(f"worker {address} on {answer.get('host', 'an unknown host')} cannot do this work: {answer.get('problem')}")
