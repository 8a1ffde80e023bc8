"""The reports that lie in a dataset, and how fresh they are as far as it tells: what is declared of them, only who declared it knows."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dcompute.dataset.listing import names_of_reports
from dcompute.dataset.names import REPORTS
from dcompute.dataset.status import Dataset
from dcompute.dataset.store import Store
from dcompute.report.freshness import Freshness, freshness
from dcompute.report.publishing import Shelf
from dcompute.report.sources import Behind, behind
from dcompute.report.versions import Place, Version


def freshness_of(dataset: Dataset) -> list[Freshness]:
    """Of each report in a dataset, by name; sources that lie elsewhere are not looked at.

    Parameters
    ----------
    dataset
        As it is now.
    """
    store = dataset._store
    shelves = {name: Shelf(Store.at(f"{store.url}/{REPORTS}/{name}", store.storage_options)) for name in names_of_reports(store)}
    versions = {shelf.store.url: shelf.newest() for shelf in shelves.values()}
    told = []
    for name, shelf in shelves.items():
        version = versions[shelf.store.url]
        sources = {} if version is None else version.sources
        found = {source: _behind(dataset, versions, places) for source, places in sources.items()}
        told.append(freshness(version, shelf.failure(), found, name=name, url=shelf.store.url, now=time.time(), changed="", upstream=()))
    return told


def _behind(dataset: Dataset, versions: dict[str, Version | None], places: Sequence[Place]) -> Behind:
    commits, since = 0, None
    for place in places:
        if place.url == dataset.url:
            found = behind(dataset, place)
            commits, since = commits + found.commits, found.since
        elif (version := versions.get(place.url)) is not None and version.number > place.number:
            commits, since = commits + version.number - place.number, version.published
    return Behind(commits=commits, since=since)
