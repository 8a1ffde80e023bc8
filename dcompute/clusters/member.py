"""One host's part of a cluster that somebody started: ``python -m dcompute.clusters.member``, a scheduler or workers.

What to be is a line of JSON on standard input, so that neither certificates nor passwords are in a command line; what came of it is a line
on standard output. It ends with its standard input: where whoever started it is killed, or the connection to this host is lost, nothing is
left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

#: Seconds that workers have to write what is finished.
CLOSE_SECONDS = 10.0


def main() -> None:
    """Be what the first line says until there are no more lines."""
    order = json.loads(sys.stdin.readline())
    os.environ.update(order.get("environment") or {})
    if order.get("path"):
        sys.path[:] = [*order["path"], *(entry for entry in sys.path if entry not in order["path"])]
    # what libraries print is for people, and this line for a program
    answers, sys.stdout = sys.stdout, sys.stderr
    asyncio.run(_serve(order, lambda answer: print(json.dumps({"dcompute": 1, **answer}), file=answers, flush=True)))


async def _serve(order: Mapping[str, Any], answer: Any) -> None:
    ended = _end_of_input()
    try:
        async with _member(order) as (told, gone):
            answer(told)
            await asyncio.wait([asyncio.create_task(ended.wait()), *gone], return_when=asyncio.FIRST_COMPLETED)
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}"})
        raise


def _end_of_input() -> asyncio.Event:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()

    def read() -> None:
        with contextlib.suppress(OSError, ValueError):
            while sys.stdin.readline():
                pass
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=read, name="dcompute-member-input", daemon=True).start()
    return ended


@contextlib.asynccontextmanager
async def _member(order: Mapping[str, Any]) -> AsyncIterator[tuple[dict[str, Any], list[asyncio.Task[Any]]]]:
    import dask

    from dcompute.clusters.scheduling import scheduler

    if order.get("configuration"):
        dask.config.update(dask.config.config, dask.config.deserialize(order["configuration"]), priority="new")
    host = order.get("host") or _own_host()
    async with contextlib.AsyncExitStack() as stack:
        if order["role"] == "scheduler":
            dashboard = order.get("dashboard") or "127.0.0.1:0"
            about = scheduler(host=host, port=order.get("port") or 0, security=_security(order), dashboard=dashboard)
            started = [await stack.enter_async_context(about)]
        else:
            started = [await stack.enter_async_context(_worker(order, host)) for _ in range(order["count"])]
        address = started[0].address if order["role"] == "scheduler" else None
        yield {"address": address, "host": host}, [asyncio.create_task(one.finished()) for one in started]


@contextlib.asynccontextmanager
async def _worker(order: Mapping[str, Any], host: str) -> AsyncIterator[Any]:
    from dask.system import CPU_COUNT
    from distributed import Nanny

    nanny = await Nanny(
        order["scheduler"],
        nthreads=order.get("threads") or max(1, CPU_COUNT // order["count"]),
        memory_limit=order.get("memory") or "auto",
        security=_security(order),
        host=host,
        preload=["dcompute.worker"],
        local_directory=order.get("scratch"),
        dashboard=False,
        dashboard_address="127.0.0.1:0",
    )
    try:
        yield nanny
    finally:
        with contextlib.suppress(Exception):
            await nanny.close(timeout=CLOSE_SECONDS)


def _security(order: Mapping[str, Any]) -> Any:
    tls = order.get("tls")
    if not tls:
        return None
    from dcompute.clusters.tls import Credentials

    return Credentials(ca=tls["ca"], node=(tls["node"][0], tls["node"][1])).security()


def _own_host() -> str:
    """The address under which whoever started this reached this host."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    return words[2] if len(words) == 4 else "127.0.0.1"


if __name__ == "__main__":
    main()
