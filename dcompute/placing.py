"""Where batches of each class may go: what workers offer, whether they can do the work at all, and what is annotated."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any

from dcompute.answer import COMMON, Answers, answer_of, check_answer
from dcompute.dataset.parts import mark_name
from dcompute.errors import ClusterError, DcomputeError, RunCancelled, StoreError
from dcompute.gaps import Gaps
from dcompute.graph import probe_task
from dcompute.growth import Growth
from dcompute.newcomers import Newcomers
from dcompute.records import Receipt, Request
from dcompute.resources import WorkerOffer, annotation, explain_aside, explain_gap, is_counted, memory_share, slots
from dcompute.window import Capacity, Ended, Event, Lost, Send, SetupFailed

if TYPE_CHECKING:
    from dcompute.assignment import Assignment
    from dcompute.connection import Connection
    from dcompute.dataset.store import Store

#: A probe waits for a free thread of its worker, which others may hold; who has answered by then (seconds) is enough to begin with.
PROBE_SECONDS = 60.0
#: Beside other runs a thread may be free only when their batches end: who has answered by then (seconds), one at least, is enough.
BESIDE_SECONDS = 5.0
#: How often (seconds) the scheduler is asked whether a worker that does not answer is still there.
GONE_SECONDS = 1.0
#: Seconds between two looks for a worker that a run waits for.
WAIT_SECONDS = 1.0
#: Seconds for which a run waits for other workers, when all that are there cannot do the work.
REFUSED_SECONDS = 60.0


class Placing:
    """The workers of one cluster, as one run sees them; everything here is called on the driver's thread."""

    def __init__(self, connection: Connection, assignment: Assignment) -> None:
        self.address = connection.address
        self._connection = connection
        self._assignment = assignment
        self._offers: dict[str, WorkerOffer] = {}
        self.present: Mapping[str, WorkerOffer] = {}  #: all workers
        self.beside: Callable[[], bool] = lambda: False  #: whether other runs are at work there
        self.limit: Callable[[Capacity], Capacity] | None = None  #: what other runs leave of what the cluster offers
        self._trusted: set[str] = set()  #: workers whose files this driver has found
        self._admitted: set[str] = set()  #: the first workers, and those that came later and have answered well
        self._outside: Set[str] = frozenset()  #: workers that are there and get no batches: they have not answered yet, or are refused
        self._refused: dict[str, DcomputeError] = {}
        self._refused_since: float | None = None  #: when there were no other workers any more
        self._newcomers: Newcomers | None = None  #: None: the run has not begun, and all workers count
        self._news: list[str] = []
        self._growth = Growth(connection)
        self._answers: Answers = {}
        if not assignment.packed.inline:
            connection.keep(assignment.packed.digest, assignment.packed.data)

    def refresh(self) -> bool:
        """Look again at what workers offer, and at what those answered that came in mid-run; whether it changed."""
        present = self.present = self._connection.offers()
        self._growth.look()
        if self._newcomers is not None:
            self._look_at_newcomers(self._newcomers, present)
        offers = {address: offer for address, offer in present.items() if self._newcomers is None or address in self._admitted}
        outside = present.keys() - offers.keys()
        changed = (offers, outside) != (self._offers, self._outside)
        self._offers, self._outside = offers, outside
        return changed

    def _look_at_newcomers(self, newcomers: Newcomers, present: Collection[str]) -> None:
        newcomers.forget(present)
        self._refused = {address: why for address, why in self._refused.items() if address in present}
        for address, refusal in newcomers.verdicts().items():
            if refusal is None:
                self._admitted.add(address)
                self._trusted.add(address)
            else:
                self._refused[address] = refusal
                why = str(refusal).partition("\n")[0]  # without the traceback
                self._news.append(f"a worker that joined takes no part: {why}")
        for address in present:
            if address not in self._admitted and address not in self._refused and address not in newcomers.waiting:
                newcomers.ask(address)
        self._give_up(present)

    def _give_up(self, present: Collection[str]) -> None:
        """End a run whose only workers have been refused for long: nobody else may come."""
        if not self._refused or len(self._refused) < len(present):
            self._refused_since = None
            return
        self._refused_since = self._refused_since or time.monotonic()
        if time.monotonic() - self._refused_since > REFUSED_SECONDS:
            raise next(iter(self._refused.values()))

    def note_answer(self, message: Mapping[str, Any]) -> None:
        """Keep what a worker answers to its probe; called on the client's thread, before it knows of the task's end."""
        self._answers[str(message.get("task"))] = dict(message["answer"])

    def news(self) -> list[str]:
        """What is to be said of workers that came, once."""
        news, self._news = self._news, []
        return news

    def lost(self) -> ClusterError:
        """The error that a scheduler means which is gone."""
        again = self._assignment.again
        return ClusterError(f"the scheduler at {self.address} is gone. What was committed stays; start a cluster and {again}")

    def capacity(self, classes: Iterable[Request]) -> Capacity:
        """What the cluster offers to these classes."""
        offers, classes = list(self._offers.values()), list(classes)
        full = Capacity(
            slots={request: {offer.address: slots(request, offer, offers) for offer in offers} for request in classes},
            target=self._target(),
            largest_memory=max((memory_share(offer, whole=True) for offer in offers), default=None),
            share=max((self._share(offer) for offer in offers), default=None),
            counted=frozenset(request for request in classes if is_counted(request, offers)),
            outsiders=bool(self._outside),
            hosts={offer.address: offer.host for offer in offers if offer.host},
            labels={offer.address: offer.labels for offer in offers if offer.labels},
        )
        return full if self.limit is None else self.limit(full)

    @property
    def shunned(self) -> Set[str]:
        """Workers that are there and get no batches."""
        return self._outside

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

    @property
    def workers_present(self) -> frozenset[str]:
        """Those that get batches."""
        return frozenset(self._offers)

    def workers(self, send: Send) -> tuple[str, ...] | None:
        """The only workers that may execute a batch; None where any may."""
        one = send.alone_on or send.only_on
        if one is not None:
            return (one,)
        if not send.avoid:
            return None
        return tuple(address for address in self._offers if address not in send.avoid) or None

    def gap(self, request: Request) -> str:
        """Why no worker that is there can execute a class; "" where one can."""
        offers = list(self._offers.values())
        why = explain_gap(request, offers) if offers else "no worker is there"
        said = self._growth.said(request) if why else ""
        return f"{why}; {said}" if said else why

    def await_worker(self, request: Request, patience: float | None, *, said: Callable[[str], None]) -> None:
        """Return when a worker is there that can execute a class. A cluster without workers may still get some, where nothing is said.

        Parameters
        ----------
        request
            The class.
        patience
            Seconds to wait for one; None: what the workers that are there cannot do is an error at once.
        said
            Called now and then with what is waited for, at last with ""; raises where the run is to end.

        Raises
        ------
        ResourceError
            Which names the gap.
        """
        gaps = Gaps(patience, self._assignment.again)
        while self._is_refused(request, patience) and (text := gaps.must_wait(request, self.gap(request), time.monotonic())):
            said(text)
            if self._connection.lost:
                raise ClusterError(f"the scheduler at {self.address} is gone: start a cluster and {self._assignment.again}")
            time.sleep(WAIT_SECONDS)
            self.refresh()
        said("")

    def _is_refused(self, request: Request, patience: float | None) -> bool:
        """Whether a class that nobody can execute now may not simply wait: somebody may come, where it is not known who comes."""
        if self._growth.offer is not None:
            return not self._growth.serves(request)
        return bool(self._offers) or patience is not None

    def aside(self, request: Request) -> str:
        """Which workers take no part because they do not declare what others do; "" where all do."""
        return explain_aside(request, self._offers.values())

    def probe(self, store: Store, *, cancelled: Callable[[], str | None], told: Callable[[], None]) -> None:
        """Let every worker show that it can execute this workload and sees this dataset; those that come later too.

        Parameters
        ----------
        store
            Where the dataset is.
        cancelled
            Why the run is to end, or None.
        told
            Called on another thread, when a worker that came later has answered: time for :meth:`refresh`.

        Raises
        ------
        ClusterError
            A worker of another version, or none that answers.
        StoreError
            A worker that does not see the dataset as the driver does.
        WorkloadError
            A workload that a worker cannot import.
        """
        began = time.monotonic()
        rounds = 0
        answers = self._ask(store, rounds, began, cancelled)
        while answers and not any(answers.values()) and (self.beside() or time.monotonic() < began + PROBE_SECONDS):
            # All who were asked are gone; who came in their place is asked too.
            self.refresh()
            rounds += 1
            answers = self._ask(store, rounds, began, cancelled)
        if answers and not any(answers.values()):
            raise ClusterError(
                f"none of the {len(answers)} workers of {self.address} answered within {PROBE_SECONDS:.0f} s: they are busy with other "
                f"work, or cut off. Free some, and {self._assignment.again}"
            )
        # where other runs hold slots, who has not answered comes later, as a newcomer does
        self._admitted.update(address for address in self._offers if not self.beside() or answers.get(address) is not None)
        self._newcomers = Newcomers(self._connection, self._assignment, store, answers=self._answers, told=told)

    def _ask(self, store: Store, rounds: int, began: float, cancelled: Callable[[], str | None]) -> dict[str, dict[str, Any] | None]:
        token = self._assignment.spec.run
        futures = {
            address: self._connection.compute(
                probe_task(self._assignment.packed, token, worker=address, key=f"probe-{token}-{rounds}-{number}")
            )
            for number, address in enumerate(self._offers)
        }

        def is_enough() -> bool:
            waited = time.monotonic() - began
            if self.beside():
                return waited > BESIDE_SECONDS and any(future.done() for future in futures.values())
            return waited > PROBE_SECONDS

        try:
            answers = {address: self._answer(address, future, is_enough, cancelled) for address, future in futures.items()}
            self._judge(answers, store)
        finally:
            for future in futures.values():
                future.release()
        return answers

    def _answer(
        self, address: str, future: Any, is_enough: Callable[[], bool], cancelled: Callable[[], str | None]
    ) -> dict[str, Any] | None:
        """What a worker says; None where it is gone or says nothing in time."""
        look_at = time.monotonic() + GONE_SECONDS
        while not future.done():
            reason = cancelled()
            if reason is not None:
                raise RunCancelled(f"the run was cancelled before its first batch ({reason}). To go on, {self._assignment.again}")
            if self._connection.lost:
                raise ClusterError(f"the scheduler at {self.address} is gone: start a cluster and {self._assignment.again}")
            # The task of a worker that is gone may run nowhere else, and would wait for ever.
            if is_enough():
                return None
            if time.monotonic() > look_at:
                if address not in self._connection.offers():
                    return None
                look_at = time.monotonic() + GONE_SECONDS
            with contextlib.suppress(Exception):  # what it raised is looked at below
                future.exception(timeout=0.2)
        return answer_of(future, self._answers)

    def _judge(self, answers: dict[str, dict[str, Any] | None], store: Store) -> None:
        answered = {address: answer for address, answer in answers.items() if answer is not None}
        for address, answer in answered.items():
            check_answer(address, answer, store)
            self._trusted.add(address)

    def heard(self, event: Event | None, store: Store) -> Event | None:
        """What an event means to the window: that a worker could not begin says nothing of the workload until that worker is admitted.

        Raises
        ------
        StoreError
            A worker wrote where the driver does not look.
        """
        if isinstance(event, Ended):
            self._check_written(event.receipt, store)
        if isinstance(event, SetupFailed) and event.worker is not None and self.is_doubtful(event):
            return Lost(event.batch, event.worker, again=event.again)
        return event

    def is_doubtful(self, event: Event | None) -> bool:
        """Whether a batch came to nothing, maybe because a worker took it that came in mid-run and has not been admitted."""
        return isinstance(event, Lost | SetupFailed) and self._newcomers is not None and event.worker not in self._admitted

    def _check_written(self, receipt: Receipt, store: Store) -> None:
        """Look for what a worker wrote that came too late to be probed, once a worker."""
        if not receipt.worker or receipt.worker in self._trusted:
            return
        try:
            found = store.exists(mark_name(receipt.batch))
        except StoreError:  # it fails, which says nothing of the worker: the next batch is looked for
            return
        if not found:
            raise StoreError(
                f"worker {receipt.worker} on {receipt.host} wrote a batch into {store.url}, and the driver does not find it: they see "
                f"different storage. {COMMON} What is committed stays; {self._assignment.again}"
            )
        self._trusted.add(receipt.worker)

    def forget(self) -> None:
        """Wait for no worker any more, and take back what the scheduler keeps for this run."""
        if self._newcomers is not None:
            self._newcomers.forget()
        if not self._assignment.packed.inline:
            self._connection.forget(self._assignment.packed.digest)
