"""The connection to a Dask cluster: whose it is, what its workers offer, and whether it is still there."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dcompute.config import settings
from dcompute.errors import ClusterError, UsageError
from dcompute.resources import WorkerOffer
from dcompute.worker.limits import usable_memory

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger("dcompute.connection")

#: A dead scheduler answers nothing: closing must not wait for it longer than this (seconds).
CLOSE_SECONDS = 3.0
#: Seconds in which a scheduler answers, or is as good as gone.
ANSWER_SECONDS = 5.0
#: Name under which a worker tells the scheduler what Dask has no place for: ``labels`` (names and texts), ``until`` (seconds since the
#: epoch, when its walltime is over) and ``devices``.
WORKER_INFORMATION = "dcompute"


class Connection:
    """A client of our own to the scheduler, so that whatever the user does with theirs harms no run."""

    def __init__(self, client: Client, *, local: Callable[[], None] | None = None, elastic: Any = None) -> None:
        self.client = client
        self._local = local
        self._elastic = elastic

    @property
    def owns_cluster(self) -> bool:
        """Whether the cluster was started for runs of this process, and ends with the last of them."""
        return self._local is not None

    @property
    def address(self) -> str:
        """The scheduler's address."""
        return str(self.client.scheduler.address) if self.client.scheduler is not None else "(closed)"

    @property
    def lost(self) -> bool:
        """Whether the scheduler is gone: a client that reconnects has lost its tasks all the same."""
        return bool(self.client.status != "running")

    @property
    def target(self) -> int | None:
        """How many workers an adaptive cluster may grow to for tasks that it sees; None where it does not go by them."""
        adaptive = getattr(self._elastic, "_adaptive", None)
        if getattr(adaptive, "reads_demand", False):
            return None
        maximum = getattr(adaptive, "maximum", None)
        return int(maximum) if isinstance(maximum, int | float) and maximum < 1e6 else None

    def offers(self) -> dict[str, WorkerOffer]:
        """What each running worker offers, by address.

        Raises
        ------
        ClusterError
            The scheduler does not answer.
        """
        try:
            workers: Mapping[str, Any] = self.client.scheduler_info(n_workers=-1)["workers"]
        except Exception as error:
            raise ClusterError(f"the scheduler at {self.address} does not answer any more") from error
        return {address: offer_from(address, info) for address, info in workers.items() if info.get("status", "running") == "running"}

    def listen(self, topic: str, handler: Callable[[dict[str, Any]], None]) -> None:
        """Hand every event of a topic to ``handler``, on the client's own thread."""
        self.client.subscribe_topic(topic, lambda event: handler(event[1]))

    def compute(self, task: Any) -> Future:
        """Hand one delayed task to the scheduler."""
        return self.client.compute(task, optimize_graph=False)

    def keep(self, digest: str, data: bytes) -> None:
        """Let the scheduler keep a run's description, from where each worker fetches it once."""
        self.client.set_metadata(["dcompute", digest], data)

    def forget(self, digest: str) -> None:
        """Let the scheduler drop what :meth:`keep` gave it."""
        with contextlib.suppress(Exception):
            self.note(["dcompute", digest], None)

    @property
    def new_worker(self) -> WorkerOffer | None:
        """What a new worker would have, where the cluster at hand scales by classes and knows it."""
        offer = getattr(getattr(self._elastic, "_adaptive", None), "offer", None)
        return offer if isinstance(offer, WorkerOffer) else None

    def note(self, names: Sequence[str], value: Any) -> None:
        """Have the scheduler keep something in its metadata, under names within names.

        Raises
        ------
        ClusterError
            It does not answer.
        """
        self._asked("set_metadata", keys=list(names), value=value)

    def noted(self, *names: str) -> Any:
        """What the scheduler keeps there; None where that is nothing. See :meth:`note`."""
        return self._asked("get_metadata", keys=list(names), default=None)

    def _asked(self, what: str, **arguments: Any) -> Any:
        # a client whose scheduler is gone tries to reach it for half a minute
        if self.lost:
            raise ClusterError(f"the scheduler at {self.address} is gone")
        try:
            return self.client.sync(getattr(self.client.scheduler, what), callback_timeout=ANSWER_SECONDS, **arguments)
        except Exception as error:
            raise ClusterError(f"the scheduler at {self.address} does not answer") from error

    def close(self) -> None:
        """Close our client, and the cluster where it is ours."""
        with contextlib.suppress(Exception):
            self.client.close(timeout=CLOSE_SECONDS)
        if self._local is not None:
            self._local()


def offer_from(address: str, info: Mapping[str, Any]) -> WorkerOffer:
    """What the scheduler knows of a worker; of a plain one neither labels nor walltime."""
    known = info.get(WORKER_INFORMATION) or {}
    return WorkerOffer(
        address=address,
        nthreads=int(info["nthreads"]),
        memory_limit=int(info.get("memory_limit") or 0) or usable_memory(),
        resources=dict(info.get("resources") or {}),
        host=str(info.get("host", "")),
        labels=dict(known.get("labels") or {}),
        until=known.get("until"),
    )


class Hush:
    """Lets only errors of ``distributed`` be printed while a local cluster is there.

    What its clusters do themselves, ``silence_logs=``, ends for all of them with the one that was there first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._levels: list[tuple[logging.Handler, int]] = []

    def hold(self) -> None:
        """There is one more local cluster."""
        with self._lock:
            self._holders += 1
            if self._holders > 1:
                return
            handlers = [handler for handler in logging.getLogger("distributed").handlers if isinstance(handler, logging.StreamHandler)]
            self._levels = [(handler, handler.level) for handler in handlers if handler.level < logging.ERROR]
            for handler, _ in self._levels:
                handler.setLevel(logging.ERROR)

    def release(self) -> None:
        """There is one less; after the last one all is printed again."""
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
            for handler, level in self._levels:
                handler.setLevel(level)
            self._levels = []


hush = Hush()


def existing_client() -> Client | None:
    """The client that this thread, task or process has, or None."""
    import sys

    if "distributed" not in sys.modules:
        return None
    from distributed import Client

    try:
        return Client.current(allow_global=True)
    except ValueError:
        return None


def leave_slot() -> Any | None:
    """The worker whose task this thread executes, after giving its slot back; None outside a task."""
    import sys

    if "distributed" not in sys.modules:
        return None
    from distributed import get_worker, secede

    try:
        worker = get_worker()
    except ValueError:
        return None
    with contextlib.suppress(Exception):  # a thread that has seceded before has nothing to give back
        secede()
    return worker


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scheduler is; what it was read from may be closed meanwhile."""

    address: str
    security: Any = None
    elastic: Any = None  #: the cluster, which may be adaptive


def connect(place: Place | None, *, workers: int | None = None) -> Connection:
    """A connection of our own to a scheduler; a local cluster where that is None.

    Parameters
    ----------
    place
        Where the scheduler is.
    workers
        Threads of the local cluster; the machine's where None.
    """
    if place is None:
        return _start_local(workers)
    return Connection(open_client(place.address, place.security), elastic=place.elastic)


def place_of(found: Any) -> Place:
    """Where the scheduler of a client, an address, a cluster or a worker (inside a task) is.

    Raises
    ------
    UsageError
        It is connected to none.
    """
    if isinstance(found, str):
        return Place(found)
    scheduler = getattr(found, "scheduler", None)
    address = getattr(scheduler, "address", None) or getattr(found, "scheduler_address", None)
    if not address:
        raise UsageError(
            f"client={type(found).__name__} is not connected to a scheduler: await an asynchronous client first, "
            "or pass a connected Client, a cluster or an address such as 'tcp://host:8786'"
        )
    return Place(str(address), getattr(found, "security", None), getattr(found, "cluster", found))


def open_client(address: str, security: Any = None) -> Client:
    """A client that is nobody's default one.

    Raises
    ------
    ClusterError
        Nobody answers at the address.
    """
    from distributed import Client

    try:
        return Client(address, security=security, set_as_default=False, name="dcompute")
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise ClusterError(
            f"no scheduler answers at {address} ({error}). It may have ended: start a cluster and run the same line again."
        ) from error


@dataclass(slots=True)
class _Local:
    """One local cluster."""

    cluster: Any
    size: tuple[int, ...]
    users: int = 0


class _Locals:
    """The local clusters of this process: runs of one size that overlap share one, so that together they use the machine once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._there: dict[tuple[int, ...], _Local] = {}

    def take(self, workers: int | None) -> _Local:
        """A cluster, started where there is none."""
        # a process forked from this one has its threads no more
        size = (*_local_size(workers), os.getpid())
        with self._lock:
            local = self._there.get(size)
            if local is None or local.cluster.status.name != "running":
                local = self._there[size] = _Local(self._started(workers), size)
            local.users += 1
            return local

    def give_back(self, local: _Local) -> None:
        """End it where nobody else uses it."""
        with self._lock:
            local.users -= 1
            if local.users:
                return
            if self._there.get(local.size) is local:
                del self._there[local.size]
        with contextlib.suppress(Exception):
            local.cluster.close(timeout=CLOSE_SECONDS)
        hush.release()

    def _started(self, workers: int | None) -> Any:
        hush.hold()
        try:
            return _local_cluster(workers)
        except BaseException:
            hush.release()
            raise


_locals = _Locals()


def _start_local(workers: int | None) -> Connection:
    """In-process workers: no main guard is needed, and the items have children of their own."""
    from distributed import Client

    local = _locals.take(workers)
    try:
        return Connection(Client(local.cluster, set_as_default=False, name="dcompute"), local=lambda: _locals.give_back(local))
    except BaseException:
        _locals.give_back(local)
        raise


def offers_at(place: Place | None, *, workers: int | None = None) -> list[WorkerOffer]:
    """What a run would find there now, as far as it can be told; starts nothing. See :func:`connect`."""
    if place is None:
        count, threads = _local_size(workers)
        return [WorkerOffer(address=str(number), nthreads=threads, memory_limit=usable_memory()) for number in range(count)]
    try:
        connection = connect(place)
    except ClusterError:
        return []
    try:
        return list(connection.offers().values())
    except ClusterError:
        return []
    finally:
        connection.close()


def _local_size(workers: int | None) -> tuple[int, int]:
    """Workers of a local cluster, and threads of each."""
    from dask.system import CPU_COUNT

    local = settings().local
    return local.workers or 1, workers or local.threads or CPU_COUNT


def _local_cluster(workers: int | None) -> Any:
    from distributed import Scheduler, SpecCluster, Worker

    count, threads = _local_size(workers)
    # LocalCluster would have the web servers of scheduler and workers listen on every interface
    web = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    return SpecCluster(
        scheduler={"cls": Scheduler, "options": {"protocol": "inproc://", **web}},
        workers={
            number: {"cls": Worker, "options": {"protocol": "inproc://", "nthreads": threads, "memory_limit": 0, **web}}
            for number in range(count)
        },
        name="dcompute",
    )
