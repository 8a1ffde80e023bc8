"""A page of Dask's dashboard, ``/dcompute``: the runs at a scheduler, their classes, windows and rates.

``dask scheduler --preload dcompute.dashboard`` adds it, and :func:`show` on a scheduler that runs. The scheduler needs dcompute for it, and
for nothing else. What the page is made of is internal to Dask: where a version of it lacks something there is no page but a warning.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from dcompute.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client, Scheduler

log = logging.getLogger("dcompute.dashboard")

#: Name of the page, and of what adds it.
PAGE = "dcompute"


def dask_setup(scheduler: Scheduler) -> None:
    """Add the page; Dask calls it for ``--preload dcompute.dashboard``."""
    add(scheduler)


def add(scheduler: Scheduler) -> bool:
    """Whether the page is there now; called in the scheduler's process. It never fails: a scheduler does without."""
    if getattr(scheduler, "_dcompute_page", False):
        return True
    try:
        from dcompute.dashboard.page import install

        install(scheduler, PAGE)
    except Exception as error:  # noqa: BLE001  whatever another version of Dask or Bokeh lacks
        log.warning("no page /%s on the dashboard (%s: %s); all else works", PAGE, type(error).__name__, error, extra={"action": "no_page"})
        return False
    scheduler._dcompute_page = True
    return True


async def add_where_possible(scheduler: Scheduler) -> None:
    """Add the page to a scheduler of ours; where Bokeh is missing there is no dashboard at all, and nothing to be said."""
    if importlib.util.find_spec("bokeh") is not None:
        add(scheduler)


def show(client: Client) -> str:
    """Add the page to a scheduler that runs; where it is to be seen.

    Parameters
    ----------
    client
        Of that scheduler.

    Raises
    ------
    ClusterError
        The scheduler has no dcompute, takes no plugins, or has no dashboard.
    """
    from dcompute.dashboard.plugin import PagePlugin

    answer: Any = None
    try:
        client.register_plugin(PagePlugin(), name=f"{PAGE}-page")
        with contextlib.suppress(Exception):
            answer = client.get_metadata([f"{PAGE}-page"], default=None)
    except Exception as error:
        raise ClusterError(
            f"the page /{PAGE} could not be added ({type(error).__name__}: {error}). The scheduler needs dcompute for it: install it there "
            "and start it with --preload dcompute.dashboard"
        ) from error
    if answer is not True:
        raise ClusterError(f"the scheduler adds no page /{PAGE}: it has no dashboard, or another version of it; its log says which")
    return urljoin(str(client.dashboard_link), PAGE)
