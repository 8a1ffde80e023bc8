"""``dcompute cluster start``: a scheduler on this host in the foreground, and workers beside it only where that was asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcompute.clusters import tls
from dcompute.clusters.addresses import ENCRYPTED, PORT, Address, is_loopback, parsed
from dcompute.clusters.local import command, told
from dcompute.clusters.members import Member
from dcompute.clusters.profiles import Profile, named
from dcompute.clusters.scheduling import scheduler
from dcompute.errors import ClusterError, UsageError

#: Seconds that workers beside the scheduler have to start.
START_SECONDS = 60.0
#: What may happen to a scheduler that has workers beside it.
RISK = (
    "Workers on the scheduler's host share its memory and cores: an item that takes too much of them may take the scheduler along, and "
    "with it every run of the cluster."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What to start on this host."""

    listen: Address
    folder: str | None = None  #: of certificates; None: those of Dask's configuration, where the address is encrypted
    workers: int = 0  #: beside the scheduler
    threads: int | None = None  #: of each
    beside: bool = False  #: whether workers may be on this host
    dashboard: str = "127.0.0.1:0"
    address_file: Path | None = None


def listening(text: str | None, *, folder: str | None, plain: bool) -> Address:
    """Where to listen: all interfaces with certificates, loopback without.

    Raises
    ------
    UsageError
        Others could reach it without encryption.
    """
    if text is None:
        text = f"tls://0.0.0.0:{PORT}" if folder is not None else f"tcp://127.0.0.1:{PORT}"
    return parsed(text, encrypted=folder is not None, plain=plain)


def serve(start: Start, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; workers that were started here end first.

    Raises
    ------
    ClusterError
        The port is taken, or workers do not start.
    """
    asyncio.run(_serve(start, say))


async def _serve(start: Start, say: Callable[[str], None]) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    encrypted = start.listen.protocol in ENCRYPTED
    credentials = tls.of_nodes(start.folder) if start.folder is not None and encrypted else None
    async with contextlib.AsyncExitStack() as stack:
        try:
            running = await stack.enter_async_context(
                scheduler(
                    host=start.listen.host,
                    port=start.listen.port,
                    security=credentials.security() if credentials is not None else None,
                    encrypted=encrypted,
                    dashboard=start.dashboard,
                    beside=start.beside,
                )
            )
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise ClusterError(f"no scheduler could be started at {start.listen}: {error}") from error
        if start.workers:
            close = await asyncio.to_thread(_workers_beside, start, str(running.address), credentials)
            stack.push_async_callback(asyncio.to_thread, close)  # they take leave of the scheduler, which has to answer
        stack.enter_context(noted(start.address_file, running.identity()))
        for line in about(start, str(running.address)):
            say(line)
        finished = asyncio.create_task(running.finished())
        await asyncio.wait([asyncio.create_task(ended.wait()), finished], return_when=asyncio.FIRST_COMPLETED)


def about(start: Start, address: str) -> list[str]:
    """What a person needs to know of a scheduler that is there."""
    folder = start.folder and Path(start.folder).expanduser().absolute()
    files = f" --tls-ca-file {folder / tls.CA} --tls-cert {folder / tls.NODE} --tls-key {folder / tls.NODE_KEY}" if folder else ""
    given = f", tls={str(folder)!r}" if folder else ""
    plain = "" if folder or not start.listen.is_plain else ", plain=True"
    lines = [
        f"Scheduler  {address}",
        f"Workers    dask worker --preload dcompute.worker{files} {address}",
        f"Programs   dc.cluster({address!r}{given}{plain})",
    ]
    if start.listen.is_plain:
        lines.append("Plain      nothing is encrypted, and whoever reaches this port can have any code executed")
    if is_loopback(start.listen.host) and not start.beside:
        lines.append("Alone      no other machine reaches it, and workers of this one are sent away: see --tls and --scheduler-as-worker")
    if start.workers:
        lines.append(f"Beside it  {start.workers} worker{'s' if start.workers > 1 else ''} on this host")
    return lines


def _workers_beside(start: Start, address: str, credentials: tls.Credentials | None) -> Callable[[], None]:
    """Start them; what ends them."""
    order: dict[str, Any] = {"role": "worker", "count": start.workers, "threads": start.threads, "tls": told(credentials)}
    member = Member("workers", command(), {**order, "scheduler": address, "host": parsed(address, plain=True).host})
    try:
        member.answer(time.monotonic() + START_SECONDS)
    except BaseException:
        member.close()
        raise
    return member.close


@contextlib.contextmanager
def noted(file: Path | None, identity: Mapping[str, Any]) -> Iterator[None]:
    """A scheduler's file, as Dask's own, while the block lasts: whoever reads it finds it whole."""
    if file is None:
        yield
        return
    file = file.expanduser().absolute()
    half = file.with_name(f".{file.name}.{os.getpid()}")
    half.write_text(json.dumps(identity, default=str, indent=2) + "\n", encoding="utf-8")
    half.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def kept_profile(name: str, *, beside: bool, given: Mapping[str, Any]) -> Profile:
    """The profile whose cluster is to be started and kept for programs that come.

    Raises
    ------
    UsageError
        It starts none, workers would be on the scheduler's host and nobody asked for that, or nobody else could get in.
    """
    overrides = {setting: value for setting, value in given.items() if value}
    profile = named(name, overrides)
    if profile.kind == "address":
        raise UsageError(f"profile {name!r} is a cluster that is somewhere else: start it on its scheduler's host")
    if profile.kind == "local" and not beside:
        raise UsageError(f"profile {name!r} has its workers on the scheduler's host. {RISK} Where that is meant, say --scheduler-as-worker")
    if profile.kind != "ssh":
        return profile
    if profile.tls is None and not profile.plain:
        raise UsageError(
            f"profile {name!r} has no tls: its certificates would be in no file, and no program could get in: see `dcompute certs`"
        )
    return named(name, {**overrides, "scheduler_as_worker": True}) if beside else profile
