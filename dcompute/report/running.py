"""One run of a report: what moved is taken, computed, checked and published as the next version."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dcompute.dataset.names import new_id
from dcompute.dataset.schema import to_text
from dcompute.errors import ClusterError, DatasetNotFoundError, DcomputeError, ReportOvertaken, StoreError, UsageError
from dcompute.report.computing import compute
from dcompute.report.making import Made, Making
from dcompute.report.portions import InPortions, why_all
from dcompute.report.publishing import overtaken
from dcompute.report.sources import Opened, Taken
from dcompute.report.versions import Version
from dcompute.secrecy import shown

if TYPE_CHECKING:
    from dcompute.report.report import Report

log = logging.getLogger("dcompute.report")

#: So often a stage is tried that others publish at the same moment.
_TURNS = 3


def run(report: Report, client: Any = None, *, full: bool = False) -> Version:
    """Publish the next version of a report, or give the one that is up to date.

    Parameters
    ----------
    report
        What to compute.
    client
        Of Dask; None: the current one, else threads of this process.
    full
        Compute all of it, whatever moved.

    Raises
    ------
    ReportError
        Its function failed, or its result breaks a promise: nothing was published.
    ReportOvertaken
        Somebody else published the version first.
    """
    base = report.newest()
    if base is not None and not full and not report.moved(base):
        log.info("report %s: version %d is up to date", report.name, base.number, extra={"action": "report_up_to_date"})
        return replace(base, is_new=False)
    making = Making(report, base, compute)
    # current for Dask: what the function itself computes is computed there too
    with contextlib.nullcontext() if client is None else client.as_current():
        version = _computed(making, full=full)
    _published(making, version)
    _log(version)
    with _aside(report, "older versions could not be cleaned up, the next run tries again"):
        report.shelf.clean(version, keep=report.keep, retention=report.retention)
    return version


def run_upstream(report: Report, client: Any = None, *, full: bool = False) -> Iterator[Version]:
    """Bring the reports that a report is computed from up to date, each after its own sources; a version another process made is as good.

    Raises
    ------
    ReportError
        One of them failed.
    """
    for one in report.upstream():
        for left in reversed(range(_TURNS)):
            try:
                yield run(one, client, full=full and left == _TURNS - 1)
                break
            except ReportOvertaken:
                if not left:
                    raise


def _computed(making: Making, *, full: bool) -> Version:
    began = time.perf_counter()
    try:
        taken, made = _made(making, full=full)
    except Exception as error:
        _discard(making)
        there = None
        with _aside(making.report, "whether somebody else published could not be looked up"):
            there = making.report.shelf.read(making.number)
        if there is not None:
            # what went wrong here may be that its cleaning up removed what this run was reading
            raise overtaken(there) from error
        if not isinstance(error, ClusterError) and (making.steps or not isinstance(error, UsageError | DatasetNotFoundError)):
            # without its sources it was not begun, and their folder may not even be there
            _note(making, error)
        raise
    return _version(making, taken, made, time.perf_counter() - began)


def _version(making: Making, taken: Mapping[str, Taken], made: Made, seconds: float) -> Version:
    return Version(
        report=making.report.name,
        number=making.number,
        id=new_id(),
        published=making.report.now(),
        seconds=round(seconds, 3),
        host=socket.gethostname(),
        pid=os.getpid(),
        digest=making.report.digest,
        sources={name: one.places for name, one in taken.items()},
        columns={name: one.schema for name, one in taken.items()},
        schema=to_text(made.schema),
        partial="" if made.partial is None else to_text(made.partial),
        files=made.files,
        rows_in=made.rows_in,
        dropped=made.dropped,
        portions=made.portions,
        computed=made.computed,
        reason=made.reason,
        steps=tuple(making.steps),
    )


def _made(making: Making, *, full: bool) -> tuple[Mapping[str, Taken], Made]:
    report = making.report
    opened: Opened = {}
    taken = {name: source.take(opened) for name, source in report.sources.items()}
    making.step("read")
    if making.base is None:
        report.shelf.prove()
    first = next(iter(taken))
    units = taken[first].units
    if report.mergeable is None or units is None:
        made = making.whole(taken)
    else:
        made = InPortions(making, taken, first, units, why_all(making, taken, first, full=full)).make()
    making.check(made)
    return taken, made


def _published(making: Making, version: Version) -> None:
    try:
        making.report.shelf.publish(version)
    except ReportOvertaken:
        _discard(making)
        raise
    except StoreError as error:
        # it may count all the same: its files stay
        _note(making, error)
        raise


def _note(making: Making, error: Exception) -> None:
    # no warning: who called gets the error itself
    log.info("report %s failed: %s", making.report.name, error, extra={"action": "report_failed"})
    with _aside(making.report, "no word of its failure could be left"):
        making.report.shelf.note_failure(making.number, shown(error))


def _discard(making: Making) -> None:
    with _aside(making.report, "files that no version has could not be removed"):
        making.report.shelf.store.remove(making.written)


@contextlib.contextmanager
def _aside(report: Report, words: str) -> Iterator[None]:
    """What comes after the fact: where the storage fails at it, that is logged, and hides neither an error nor a version that counts."""
    try:
        yield
    except (DcomputeError, OSError) as error:
        log.warning("report %s: %s: %s", report.name, words, error, extra={"action": "report_left_behind"})


def _log(version: Version) -> None:
    came = ", ".join(f"{count:,} of {name}" for name, count in version.rows_in.items())
    dropped = "".join(f", {count:,} dropped ({reason})" for reason, count in version.dropped.items())
    log.info(
        "report %s: version %d, rows in: %s; out: %d%s; %.3f s",
        version.report, version.number, came, version.rows, dropped, version.seconds,
        extra={"action": "report_published", "steps": {one.step: one.seconds for one in version.steps}},
    )  # fmt: skip
