"""What a user holds: ``dc.map`` starts a run and returns it at once."""

from __future__ import annotations

import inspect
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from dcompute.errors import RunCancelled, UsageError
from dcompute.records import Outcome
from dcompute.summary import Summary

if TYPE_CHECKING:
    from dcompute.assignment import Assignment
    from dcompute.dataset import Dataset
    from dcompute.dataset.explaining import Explanation
    from dcompute.driver import Driver
    from dcompute.outlook import Preview
    from dcompute.progress import Progress, Snapshot

#: How often a waiting caller looks at the run, for its progress (seconds).
LOOK_SECONDS = 0.1


def map(
    workload: Any,
    inputs: Any,
    dataset: Any,
    *,
    params: Mapping[str, Any] | None = None,
    client: Any = None,
    key: Any = None,
    batch_size: int | Literal["auto"] = "auto",
    errors: Literal["record", "raise"] = "record",
    max_failures: float | None = None,
    retry_failed: bool | str | Sequence[str] = False,
    on_change: Literal["rerun", "keep", "error"] = "rerun",
    on_gone: Literal["keep", "drop"] = "keep",
    takeover: bool = False,
    modules: Sequence[Any] = (),
    seed: int = 0,
    name: str | None = None,
    input_checks: Any = None,
    priority: int | str | None = None,
    weight: float = 1.0,
    ageing: float | str | None = None,
    limits: Mapping[str, float | str] | None = None,
    wait_for_workers: float | str | None = None,
) -> Run:
    """A run that executes ``workload`` for every input and commits the outcomes to ``dataset``; returns at once.

    The same line again goes on: items with a final outcome are skipped.

    Parameters
    ----------
    workload
        A function, a class or a :class:`Workload`.
    inputs
        Any iterable, :func:`files`, :func:`grid`, or a pandas or Dask dataframe (an item a row).
    dataset
        Where the outcomes go: a path or an fsspec URL.
    params
        Keyword arguments that are the same for every item; they count as part of the workload.
    client
        A ``distributed.Client``, a cluster or an address; the client that exists, else a local cluster.
    key
        A function of the value, or a column's name, that gives the key of an item.
    batch_size
        Items a Dask task; ``"auto"`` goes by measured durations.
    errors
        ``"raise"`` stops at the first final failure, with :class:`~dcompute.errors.ItemError` from ``wait()``.
    max_failures
        Stop after so many failed items; a share (below 1) counts from 100 ended items on.
    retry_failed
        Run final failures again: True, kinds (``"timeout"``, or several), or ``"never"`` for none of any kind.
    on_change
        What to do with finished items whose input, params, seed or declared version changed.
    on_gone
        What to do with items of the dataset that are no input any more: ``"drop"`` hides their results at the end of a run that read
        its inputs to their end and did its work.
    takeover
        Fence off another driver that is alive.
    modules
        Local packages to send to the workers.
    seed
        What ``dc.current().seed`` is derived from, with the key; counts like a parameter.
    name
        What the dataset calls the workload; its own name where None. Lambdas have none: where one was changed, or is another one than
        the dataset's, that is an error unless a name is given.
    input_checks
        What must be true of each input, as ``checks=`` of a workload: expressions of the columns of a grid or table, of ``value`` where
        inputs are plain values; functions of the value itself. An input that does not pass goes to the quarantine, and its item fails.
    priority
        A number (higher goes first) or ``"urgent"``, ``"high"``, ``"normal"``, ``"low"``, in place of the workload's. Of runs on one
        cluster, whatever process they are of, those with a higher one get the slots first.
    weight
        Runs of the same priority share slots by it: one of weight 3 gets three times those of weight 1.
    ageing
        Seconds, or a time such as ``"10 min"``, after which what waits counts one level higher; None: priorities are strict.
    limits
        How much there is of what ``uses=`` names, as ``{"licence": 3, "api": "20/s"}``, for all runs on one cluster together; beside
        the setting ``dcompute.limits``.
    wait_for_workers
        Seconds, or a time, for which a worker is waited for where none that is there can do the work; None: that is an error at once.

    Raises
    ------
    DcomputeError
        What can be told without a worker and without waiting: wrong arguments, storage that cannot be written, another
        workload's dataset (``DatasetMismatchError``), a driver seen alive (``DatasetBusy``). The rest is raised by ``wait()``.
    """
    from dcompute.dataset.writer import open_dataset
    from dcompute.driver import Driver

    given = {
        "params": params, "client": client, "key": key, "batch_size": batch_size, "errors": errors, "max_failures": max_failures,
        "retry_failed": retry_failed, "on_change": on_change, "on_gone": on_gone, "takeover": takeover, "modules": modules,
        "seed": seed, "name": name, "input_checks": input_checks, "priority": priority, "weight": weight, "ageing": ageing,
        "limits": limits, "wait_for_workers": wait_for_workers,
    }  # fmt: skip
    assignment = _assignment(workload, inputs, dataset, given)
    # storage that cannot be written, or trusted with a commit, is told here and not by wait()
    open_dataset(assignment.store, create=True)
    return Run(Driver.started(assignment))


class Run:
    """One execution that adds outcomes to a dataset, under way in the background.

    As a context manager it waits at the end of the block, and is cancelled where the block raises.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._shown: Progress | None = None

    @property
    def id(self) -> str:
        """The run's id, in every row of its attempts."""
        return self._driver.run_id

    @property
    def url(self) -> str:
        """Where its dataset is."""
        return self._driver.assignment.store.url

    def wait(self, timeout: float | None = None, *, progress: str | None = None) -> bool:
        """Whether the run has ended, after at most ``timeout`` seconds; shows progress meanwhile.

        Never raises for a failed item unless ``errors="raise"``. Ctrl-C commits what is done and ends the run with the line
        that goes on; a second Ctrl-C does not wait for that commit. In a notebook it ends the waiting only.

        Parameters
        ----------
        timeout
            Seconds; without end where None.
        progress
            ``"auto"``, ``"bar"``, ``"log"``, ``"html"`` or ``"quiet"``; the setting ``dcompute.progress`` where None.

        Raises
        ------
        UsageError
            ``timeout`` is no number of seconds.
        DcomputeError
            What ended the run before its work was done.
        """
        from dcompute.progress import make_progress

        until = None if timeout is None else time.monotonic() + _seconds(timeout)
        # a log whose lines come every ten seconds is not begun anew by who waits a second at a time
        show = self._shown or make_progress(progress)
        try:
            ended = self._watch(show, until)
        except KeyboardInterrupt:
            show.close(None)
            self._interrupted()
            raise
        self._shown = show if show.lasting and not ended else None
        if self._shown is None:
            show.close(self._driver.snapshot() if ended else None)
        if ended:
            self._driver.raise_error()
        return ended

    def _watch(self, show: Any, until: float | None) -> bool:
        shown = ""
        while not self._driver.ended.wait(LOOK_SECONDS):
            snapshot = self._driver.snapshot()
            if snapshot.note != shown:
                shown = snapshot.note
                show.note(shown)
            show.update(snapshot)
            if until is not None and time.monotonic() >= until:
                return False
        return True

    def _interrupted(self) -> None:
        if _in_notebook():
            print("Waiting was interrupted; the run goes on. run.wait() waits again, run.cancel() ends it.", file=sys.stderr)  # noqa: T201
            return
        from dcompute.ending import interrupt

        interrupt(self._driver)

    def cancel(self, reason: str = "cancelled by its owner") -> None:
        """End the run: children are killed, what is finished is committed, nothing more goes out. Returns at once."""
        self._driver.cancel(reason)

    def explain(self) -> Explanation:
        """Why what waits of this run does not go out, as of the last seconds; print it."""
        return self._driver.explained()

    def reprioritize(self, priority: int | str) -> None:
        """Let what waits go by another priority from now on, also against other runs on the same cluster. Returns at once.

        Parameters
        ----------
        priority
            A number (higher goes first) or ``"urgent"``, ``"high"``, ``"normal"``, ``"low"``.
        """
        from dcompute.priority import parse_priority

        self._driver.reprioritize(parse_priority(priority))

    def status(self) -> Snapshot:
        """Where the run stands now."""
        return self._driver.snapshot()

    def summary(self) -> Summary:
        """What this run did so far; print it."""
        return self._driver.summary()

    @property
    def dataset(self) -> Dataset:
        """The reading side of the dataset, as of now."""
        from dcompute.dataset import Dataset

        return Dataset(self._driver.assignment.store)

    def results(self, columns: Sequence[str] | None = None, filters: Any = None, *, inputs: bool = False) -> Any:
        """The whole dataset's results as a Dask dataframe: item_key, key_kind and the user's columns; see :meth:`Dataset.results`."""
        return self.dataset.results(columns, filters, inputs=inputs)

    def attempts(self, columns: Sequence[str] | None = None, filters: Any = None) -> Any:
        """The whole dataset's attempts as a Dask dataframe, a row an attempt; see :meth:`Dataset.attempts`."""
        return self.dataset.attempts(columns, filters)

    def failures(
        self, by: Literal["kind", "error", "host"] | None = None, *, columns: Sequence[str] | None = None, filters: Any = None
    ) -> Any:
        """What failed at last in the whole dataset: a row a failed item, or grouped; see :meth:`Dataset.failures`."""
        return self.dataset.failures(by, columns=columns, filters=filters)

    def quarantine(self, columns: Sequence[str] | None = None, filters: Any = None) -> Any:
        """What did not pass a check in the whole dataset: a row a record; see :meth:`Dataset.quarantine`."""
        return self.dataset.quarantine(columns, filters)

    def as_completed(self) -> Iterator[Outcome]:
        """The outcome of each item of this run, as it is committed; ends with the run.

        They are read from the dataset by the caller's own thread, so that a slow consumer holds nothing up. Ctrl-C does what it does
        in :meth:`wait`.

        Raises
        ------
        DcomputeError
            What ended the run before its work was done.
        """
        try:
            yield from self._driver.outcomes()
        except KeyboardInterrupt:
            self._interrupted()
            raise
        self._driver.raise_error()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.cancel("an exception left its with block")
            self._driver.ended.wait()
            return
        try:
            self.wait()
        except RunCancelled:
            if not self._driver.cancelled_here:
                raise

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self._driver.assignment.spec.workload} into {self.url}: {self._driver.snapshot().state}>"

    def _repr_html_(self) -> str:
        from html import escape

        from dcompute.progress import as_html

        snapshot = self._driver.snapshot()
        told = "" if snapshot.state == "running" else f"<pre>{escape(str(self.summary()))}</pre>"
        what = f"<b>{escape(self._driver.assignment.spec.workload)}</b> into {escape(self.url)}, run {escape(self.id)}"
        return f"<div>{what}</div>{as_html(snapshot)}{told}"


def preview(workload: Any, inputs: Any, dataset: Any, **options: Any) -> Preview:
    """What :func:`map` with the same arguments would execute and skip, and why; nothing is executed or written.

    What a run that was killed wrote since its last commit counts as to do here; the next run adds it, and executes less.

    Raises
    ------
    DcomputeError
        What :func:`map` would raise, and what the inputs raise.
    """
    from dcompute.outlook import preview_of

    return preview_of(_assignment(workload, inputs, dataset, options))


def _assignment(workload: Any, inputs: Any, dataset: Any, given: Mapping[str, Any]) -> Assignment:
    from dcompute.assignment import Assignment, Options

    unknown = given.keys() - inspect.signature(map).parameters.keys()
    if unknown:
        raise UsageError(f"{sorted(unknown)[0]}= is no option of dc.map")
    chosen = Options(**{name: value for name, value in given.items() if name in Options.__dataclass_fields__})
    about: dict[str, Any] = {"params": None, "key": None, "modules": (), "seed": 0, "name": None, "client": None, "input_checks": None}
    about |= {name: value for name, value in given.items() if name in about}
    return Assignment.of(workload, inputs, dataset, options=chosen, **about)


def _seconds(timeout: object) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, Real) or math.isnan(timeout):
        raise UsageError(f"timeout={timeout!r} is no number of seconds: say one such as run.wait(timeout=60), or None to wait to the end")
    return float(timeout)


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    instance = shell.get_ipython() if shell is not None else None
    return instance is not None and "IPKernelApp" in instance.config and threading.current_thread() is threading.main_thread()
