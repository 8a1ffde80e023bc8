"""What can be read of one dataset or of several: results, attempts and failures, as whatever the reader works with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from dcompute.dataset.frames import Reading, to_pandas
from dcompute.dataset.reading import columns_of, grouped
from dcompute.errors import MissingExtraError

if TYPE_CHECKING:
    import duckdb
    import polars as pl
    import pyarrow as pa

    from dcompute.dataset.files import Files

By = Literal["kind", "error", "host"]


class Readable(ABC):
    """Rows that count, of one dataset or of several."""

    def results(self, columns: Sequence[str] | None = None, filters: Any = None, *, inputs: bool = False) -> Any:
        """The results as a Dask dataframe: ``item_key``, ``key_kind`` and the columns that the workload returned.

        What the dataframe's user does not ask for (``df[["x"]]``) is not read, from storage neither.

        Parameters
        ----------
        columns
            These only, in this order.
        filters
            Which rows: ``[("x", ">", 1), ("host", "==", "n7")]`` where all must hold, a list of such lists where one must, or an expression
            of pyarrow. What holds no such row by the statistics of its file is not read.
        inputs
            With the inputs' columns too, where the keys hold them: those of grids, and of tables without a named index. One that the
            results have already is called ``..._input``.
        """
        return self._results(columns, filters, inputs).to_dask()

    def attempts(self, columns: Sequence[str] | None = None, filters: Any = None) -> Any:
        """The attempts as a Dask dataframe, one row an attempt: outcome, error, host, cpu, memory, io, bottleneck.

        Parameters
        ----------
        columns, filters
            As in :meth:`results`.
        """
        return self._attempts(columns, filters).to_dask()

    def failures(self, by: By | None = None, *, columns: Sequence[str] | None = None, filters: Any = None) -> Any:
        """What failed at last: a Dask dataframe with one row a failed item, its newest attempt.

        Parameters
        ----------
        by
            Group by this; then a pandas dataframe with the number of items and an example.
        columns, filters
            As in :meth:`results`.
        """
        if by is None:
            return self._failures(columns, filters).to_dask()
        return grouped(self._failures(columns_of(by), filters).to_arrow(), by)

    def quarantine(self, columns: Sequence[str] | None = None, filters: Any = None) -> Any:
        """What did not pass a check, as a Dask dataframe with one row a record: a row of a result, or an input.

        Columns: ``item_key``, ``key_kind``, ``attempt``, ``source`` (``result`` or ``input``), ``check`` (names), ``reason``, ``record``
        (JSON), ``time``, ``run``, ``batch``, ``fingerprint``. What was released or dropped is there no more, nor what was done again since.

        Parameters
        ----------
        columns, filters
            As in :meth:`results`.
        """
        return self._quarantine(columns, filters).to_dask()

    def to_arrow(self, columns: Sequence[str] | None = None, filters: Any = None, *, inputs: bool = False) -> pa.Table:
        """The results in memory, as an Arrow table; see :meth:`results`."""
        return self._results(columns, filters, inputs).to_arrow()

    def to_pandas(self, columns: Sequence[str] | None = None, filters: Any = None, *, inputs: bool = False) -> Any:
        """The results in memory, as a pandas dataframe with Arrow's types; see :meth:`results`."""
        return to_pandas(self._results(columns, filters, inputs).to_arrow())

    def to_polars(self, columns: Sequence[str] | None = None, filters: Any = None, *, inputs: bool = False) -> pl.DataFrame:
        """The results in memory, as a Polars dataframe; see :meth:`results`.

        Raises
        ------
        MissingExtraError
            Polars is not installed.
        UsageError
            A column has a type that Polars has no form for.
        """
        try:
            import polars
        except ImportError as error:
            raise MissingExtraError('to_polars() needs Polars: pip install "dcompute[polars]"') from error
        from dcompute.dataset.foreign import refuse_wide_decimals

        reading = self._results(columns, filters, inputs)
        refuse_wide_decimals(reading.schema, "Polars")
        table = reading.to_arrow()
        # from Arrow it takes some names for others
        found = polars.from_arrow(table.rename_columns([str(place) for place in range(table.num_columns)]))
        assert isinstance(found, polars.DataFrame)
        found.columns = table.column_names
        return found

    def to_duckdb(self, connection: Any = None) -> duckdb.DuckDBPyRelation:
        """The results as a relation of DuckDB, which reads the files that count when it is asked.

        Parameters
        ----------
        connection
            Of DuckDB; None: its default one, which ``duckdb.sql`` uses too.

        Examples
        --------
        >>> results = dc.open("lab/flux").to_duckdb()                     # doctest: +SKIP
        >>> duckdb.sql("select host, avg(x) from results group by host")  # doctest: +SKIP

        Raises
        ------
        MissingExtraError
            DuckDB is not installed.
        UsageError
            A column has a type that DuckDB has no form for, or a name that it would change.
        """
        try:
            import duckdb
        except ImportError as error:
            raise MissingExtraError('to_duckdb() needs DuckDB: pip install "dcompute[duckdb]"') from error
        return self._relation(connection if connection is not None else duckdb.default_connection())

    def report(self, name: str, *, run: str | None = None, **options: Any) -> Any:
        """A built-in report on the attempts, as a small pandas dataframe.

        Every row is read once, on the cluster of the ``Client`` that exists, else in threads here; memory does not grow with their number.

        Parameters
        ----------
        name
            ``"summary"``, ``"throughput"``, ``"failures"``, ``"resources"``, ``"scaling"``, ``"history"`` or ``"cost"``.
        run
            Id of a run, ``"last"`` or ``"all"``; None: the last one for the summary, else all.
        options
            Of that report, such as ``price=0.8`` of ``"cost"``.

        Examples
        --------
        >>> dc.open("lab/flux").report("scaling", by="workers")  # doctest: +SKIP

        Raises
        ------
        UsageError
            There is no such report, run or option.
        """
        from dcompute.report.builtin import report

        return report(self, name, run=run, **options)

    @abstractmethod
    def files(self) -> Files:
        """The results parts that count, for any other tool, and whether they alone are the truth."""

    @abstractmethod
    def _results(self, columns: Sequence[str] | None, filters: Any, inputs: bool) -> Reading: ...

    @abstractmethod
    def _attempts(self, columns: Sequence[str] | None, filters: Any) -> Reading: ...

    @abstractmethod
    def _failures(self, columns: Sequence[str] | None, filters: Any) -> Reading: ...

    @abstractmethod
    def _quarantine(self, columns: Sequence[str] | None, filters: Any) -> Reading: ...

    @abstractmethod
    def _relation(self, connection: Any) -> duckdb.DuckDBPyRelation: ...
