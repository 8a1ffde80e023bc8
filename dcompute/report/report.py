"""A report: what it is computed from, how, what it promises, and where its result lies."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from html import escape
from os import PathLike
from typing import Any, cast

import pyarrow as pa

from dcompute.code import code_digest
from dcompute.dataset.frames import Reading, to_pandas
from dcompute.dataset.schema import from_text
from dcompute.dataset.store import Store
from dcompute.dataset.vacuum import seconds_of
from dcompute.errors import UsageError
from dcompute.report.checks import RowCheck, WholeCheck, checks_of
from dcompute.report.combining import Combine
from dcompute.report.freshness import Freshness, freshness
from dcompute.report.publishing import Shelf
from dcompute.report.rows import reading
from dcompute.report.sources import Published, Stage, digest_of, sources_of
from dcompute.report.versions import Place, Version
from dcompute.report.writing import promised_schema

_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,99}")


class Report(Stage):
    """A table that is computed from datasets and from other reports, and published whole.

    Parameters
    ----------
    name
        Letters, digits, ``-``, ``_`` and ``.``; its folder has this name.
    sources
        What it is computed from: a dataset or its URL, a pair of one and ``"attempts"`` or ``"failures"`` where its results are not meant,
        a list of datasets that read as one, another report; or several of these by name.
    function
        Gets each source as a Dask dataframe, by keyword where the sources have names, and returns a Dask or pandas dataframe or an Arrow
        table.
    store
        The folder or URL that reports lie in; None: ``reports`` of the dataset that is the first source, or where the report lies that is.
    schema
        Promised: an Arrow schema, or names and types.
    checks
        Promised: expressions of pyarrow that are true of each row, and functions of the result as a Dask dataframe that return true, or a
        series that is true for each good row.
    mergeable
        ``"partition"``: the function may be applied to some files of the first source alone, and its results put together. A column or a
        list of them: the same, and rows with the same values there are then brought together by ``combine``. Then only what changed is
        computed again.
    combine
        Of a report that is mergeable by key: ``{"n": "sum", "low": "min"}`` for each other column (``"sum"``, ``"prod"``, ``"min"`` or
        ``"max"``), or a function of a Dask dataframe with all rows.
    balanced
        Promised: each row of the first source comes out, or is dropped by :func:`dcompute.drop`.
    keep
        So many versions stay, at least.
    retention
        A version stays at least so long after the next one: ``"1 h"``, or seconds.
    storage_options
        For fsspec, of ``store``.

    Examples
    --------
    >>> hourly = dc.Report("hourly", dc.open("lab/flux"), lambda flux: flux.groupby("hour").flux.mean().reset_index())  # doctest: +SKIP
    >>> hourly.run().rows  # doctest: +SKIP
    24

    Raises
    ------
    UsageError
        Something of it can never work.
    """

    def __init__(
        self,
        name: str,
        sources: Any,
        function: Callable[..., Any],
        *,
        store: str | PathLike[str] | None = None,
        schema: Any = None,
        checks: Any = (),
        mergeable: str | Sequence[str] | None = None,
        combine: Mapping[str, str] | Callable[[Any], Any] | None = None,
        balanced: bool = False,
        keep: int = 5,
        retention: float | str | timedelta = "1 h",
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = _checked_name(name)
        self.sources, self.by_name = sources_of(sources)
        self.function = _checked_function(function, list(self.sources) if self.by_name else None)
        self.schema: pa.Schema | None = promised_schema(schema)
        self.checks = checks_of(checks)
        self.mergeable = mergeable
        self.combine = _combining(mergeable, combine)
        self.balanced = balanced
        if balanced and self.combine is not None:
            raise UsageError(
                "balanced=True and a report that is mergeable by key: rows that are brought together do not come out one by one"
            )
        self.keep = _checked_keep(keep)
        self.retention = seconds_of(retention)
        self._refuse_unmergeable()
        self.root = self._found_root(store, storage_options)
        self.shelf = Shelf(_below(self.root, self.name), now=self.now)
        self._refuse_cycle()

    @property
    def url(self) -> str:
        """Where it lies."""
        return self.shelf.store.url

    def run(self, client: Any = None, *, upstream: bool = False, full: bool = False) -> Version:
        """Compute and publish it, where its sources moved since the last time; else give the version that is there.

        A reader sees the version before or this one, whole. Killed at any moment, the same line does it again.

        Parameters
        ----------
        client
            A ``distributed.Client``; None: the current one, else threads of this process.
        upstream
            Run the reports among its sources first, and theirs; where another process runs one too, either's version is taken.
        full
            Compute all of it, whether anything moved or not.

        Raises
        ------
        ReportError
            Its function failed, or its result does not keep what is promised: nothing was published.
        ReportOvertaken
            Somebody else published the same version first.
        """
        from dcompute.report.running import run, run_upstream

        for _ in run_upstream(self, client, full=full) if upstream else ():
            pass
        return run(self, client, full=full)

    def status(self) -> Freshness:
        """Whether it is up to date, how far it is behind, or since when it fails."""
        return self._status({})

    def results(self, columns: Sequence[str] | None = None, *, version: int | None = None) -> Any:
        """The rows of the version that counts as a Dask dataframe.

        Parameters
        ----------
        columns
            These only, in this order.
        version
            Those of an earlier version, while it is kept.
        """
        return self._reading(columns, version).to_dask()

    def to_arrow(self, columns: Sequence[str] | None = None, *, version: int | None = None) -> pa.Table:
        """The rows in memory, as an Arrow table; see :meth:`results`."""
        return self._reading(columns, version).to_arrow()

    def to_pandas(self, columns: Sequence[str] | None = None, *, version: int | None = None) -> Any:
        """The rows in memory, as a pandas dataframe with Arrow's types; see :meth:`results`."""
        return to_pandas(self._reading(columns, version).to_arrow())

    def newest(self) -> Version | None:
        """The version that counts; None where none was published."""
        found = self.shelf.newest()
        if found is not None and found.report != self.name:
            raise UsageError(f"{self.url} holds the report {found.report!r}, not {self.name!r}: give one of them another store=")
        return found

    def upstream(self) -> list[Report]:
        """The reports that it is computed from, and those that they are, each after its own sources."""
        found: dict[str, Report] = {}
        for report in self._feeding():
            for one in (*report.upstream(), report):
                found.setdefault(one.url, one)
        return list(found.values())

    def moved(self, version: Version) -> bool:
        """Whether a version is not what would be computed now, from the sources as they are."""
        return version.digest != self.digest or any(
            bool(source.behind(places)) for source, places in zip(self.sources.values(), self._read(version), strict=True)
        )

    @property
    def digest(self) -> str:
        """Changes with the function and with all that is declared, but for what is kept how long."""
        functions = [self.function, self.combine if callable(self.combine) else None]
        functions += [check.function for check in self.checks if isinstance(check, WholeCheck)]
        texts = [check.text for check in self.checks if isinstance(check, RowCheck)]
        declared = [self.schema, self.mergeable, self.balanced, [(name, one.identity) for name, one in self.sources.items()]]
        return digest_of("\n".join([code_digest(*functions), *texts, *map(str, declared)]))

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def __repr__(self) -> str:
        return f"<Report {self.name} at {self.url}>"

    def _repr_html_(self) -> str:
        lines = "".join(f"<div>{escape(line)}</div>" for line in str(self.status()).splitlines())
        return f"<b>{escape(self.url)}</b>{lines}"

    def _status(self, known: dict[str, Freshness]) -> Freshness:
        """With what is known of reports that stand upstream of several."""
        upstream = []
        for report in self._feeding():
            if report.url not in known:
                known[report.url] = report._status(known)
            upstream.append(known[report.url])
        version = self.newest()
        read = [] if version is None else self._read(version)
        found = {name: source.behind(places) for (name, source), places in zip(self.sources.items(), read, strict=False)}
        changed = "what is declared changed" if version is not None and version.digest != self.digest else ""
        failure = self.shelf.failure()
        return freshness(version, failure, found, name=self.name, url=self.url, now=self.now(), changed=changed, upstream=upstream)

    def _read(self, version: Version) -> list[Sequence[Place]]:
        """Of each source, what a version read of it."""
        if not self.by_name and len(version.sources) == 1:
            # it is called as its folder is, which may have moved
            return list(version.sources.values())
        return [version.sources.get(name, ()) for name in self.sources]

    def _feeding(self) -> list[Report]:
        """The reports among its sources."""
        stages = (source.report for source in self.sources.values() if isinstance(source, Published))
        return [stage for stage in stages if isinstance(stage, Report)]

    def _reading(self, columns: Sequence[str] | None, number: int | None) -> Reading:
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            raise UsageError(f"version={number!r}: give the number of a version, which is 1 or more")
        found = self.newest() if number is None else self.shelf.read(number)
        if found is None:
            what = "has published nothing yet: run it first" if number is None else f"has no version {number}"
            raise UsageError(f"the report {self.name!r} at {self.url} {what}")
        return reading(self.shelf.store, from_text(found.schema), found.files, self.name, columns, number=found.number)

    def _found_root(self, store: str | PathLike[str] | None, storage_options: Mapping[str, Any] | None) -> Store:
        if store is not None:
            return Store.named(store, storage_options)
        first = next(iter(self.sources.values()))
        if isinstance(first, Published):
            return first.report.root
        folder = first.folder()
        if folder is None:
            raise UsageError(f"report {self.name!r}: its first source is several datasets, and which of them holds it? Say store=")
        return _below(folder, "reports")

    def _refuse_unmergeable(self) -> None:
        if self.mergeable is None:
            return
        name, first = next(iter(self.sources.items()))
        why = first.why_whole()
        if why:
            raise UsageError(
                f"report {self.name!r} is declared mergeable, and its first source {name!r} cannot be taken in portions: {why}"
            )

    def _refuse_cycle(self) -> None:
        if self.url in {one.url for one in self.upstream()}:
            raise UsageError(
                f"report {self.name!r} is computed from what lies at {self.url}, where it would lie itself: give it another name"
            )


def _below(store: Store, name: str) -> Store:
    return Store(f"{store.url}/{name}", store.protocol, store.storage_options)


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r} cannot be the name of a report: its folder has this name; use letters, digits, '-', '_' and '.'")
    return name


def _checked_keep(keep: Any) -> int:
    if not isinstance(keep, int) or isinstance(keep, bool) or keep < 1:
        raise UsageError(f"keep={keep!r}: a report keeps one version at least")
    return keep


def _checked_function(function: Any, names: Sequence[str] | None) -> Callable[..., Any]:
    if not callable(function):
        raise UsageError(f"function={function!r} cannot be called: give a function of the sources as Dask dataframes")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return cast("Callable[..., Any]", function)  # a builtin does not say what it takes
    try:
        signature.bind(*(() if names else (None,)), **dict.fromkeys(names or ()))
    except TypeError as error:
        how = f"is called with {', '.join(f'{name}=' for name in names)}" if names else "is called with one dataframe"
        raise UsageError(f"the report's function {how}, and does not take that: {error}") from error
    return cast("Callable[..., Any]", function)


def _combining(mergeable: Any, combine: Any) -> Callable[[Any], Any] | None:
    if mergeable is None or mergeable == "partition":
        if combine is not None:
            raise UsageError("combine= brings rows with the same key together: say mergeable= with the columns of the key")
        return None
    keys = [mergeable] if isinstance(mergeable, str) else list(mergeable) if isinstance(mergeable, Iterable) else []
    if not keys or not all(isinstance(key, str) for key in keys):
        raise UsageError(f'mergeable={mergeable!r}: say "partition", or the columns of the key')
    if isinstance(combine, Mapping) and combine:
        return Combine(keys, combine)
    if not callable(combine):
        raise UsageError(f'report mergeable by {", ".join(keys)}: say how rows of one key come together, as combine={{"n": "sum"}}')
    return cast("Callable[[Any], Any]", combine)
