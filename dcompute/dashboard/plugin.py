"""What adds the page when a client asks for it; it travels to the scheduler by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distributed import SchedulerPlugin

if TYPE_CHECKING:
    from distributed import Scheduler


class PagePlugin(SchedulerPlugin):  # type: ignore[misc]  # distributed has no types here
    """Adds the page where it starts, and leaves in the scheduler's metadata whether it is there."""

    name = "dcompute-page"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Add the page."""
        from dcompute.dashboard import PAGE, add

        scheduler.set_metadata([f"{PAGE}-page"], add(scheduler))
