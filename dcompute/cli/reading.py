"""What commands that read take: one dataset, or several as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from dcompute.dataset import Dataset
    from dcompute.dataset.many import Datasets

#: One or more datasets: a shell makes many words of a pattern, and quoted it is one.
datasets: Callable[..., Any] = click.argument("datasets", metavar="DATASET...", nargs=-1, required=True)


def opened(urls: tuple[str, ...], at: str | None = None) -> Dataset | Datasets:
    """The reading side of what an argument names, as of a time where one is given."""
    import dcompute as dc

    found: Dataset | Datasets = dc.open(urls[0], at=at) if len(urls) == 1 else dc.open(urls, at=at)
    return found


def opened_one(url: str) -> Dataset:
    """The dataset that an argument names: what several have each for itself is asked of one."""
    from dcompute.dataset.status import open as open_one

    return open_one(url)
