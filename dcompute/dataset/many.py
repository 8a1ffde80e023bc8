"""Several datasets that read as one, as clients that work apart need; of a key found twice the first dataset counts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, reduce
from typing import Any

import pyarrow as pa

from dcompute.dataset import duck
from dcompute.dataset.doubles import Doubles, doubles_of
from dcompute.dataset.files import Files
from dcompute.dataset.filters import Filter, check_columns
from dcompute.dataset.frames import Reading, bare
from dcompute.dataset.inputs import with_inputs
from dcompute.dataset.pieces import Piece
from dcompute.dataset.readable import Readable
from dcompute.dataset.reading import Reader
from dcompute.dataset.schema import cast, join_schemas
from dcompute.dataset.status import Dataset, Status
from dcompute.errors import SchemaError, UsageError

#: The column that says which dataset a row is of.
COLUMN = "dataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOfMany:
    """How far several datasets are together; of a key found twice the first dataset counts. ``str()`` of it is for people."""

    each: tuple[Status, ...]  #: in their order
    doubles: int  #: outcomes of keys that an earlier dataset has
    succeeded: int  #: items
    failed: int  #: items whose newest attempt failed, final or not
    failed_by_kind: Mapping[str, int] = field(default_factory=dict)

    @property
    def stored_rows(self) -> int:
        """In the results parts that count: rows that count no more, and doubles, are among them."""
        return sum(one.stored_rows for one in self.each)

    @property
    def bytes(self) -> int:
        """Of the results parts that count."""
        return sum(one.bytes for one in self.each)

    @property
    def attempts(self) -> int:
        """That count, history and doubles too."""
        return sum(one.attempts for one in self.each)

    def figures(self) -> dict[str, Any]:
        """All of it by name, for programs."""
        return asdict(self) | {"stored_rows": self.stored_rows, "bytes": self.bytes, "attempts": self.attempts}

    def __str__(self) -> str:
        width = max(len(one.url) for one in self.each)
        lines = [f"{one.url:<{width}}  {one.state}, {one.succeeded:,} succeeded, {one.failed:,} failed" for one in self.each]
        doubles = f" ({self.doubles:,} outcomes of keys that an earlier one has are left out)" if self.doubles else ""
        return "\n".join([*lines, f"{'together':<{width}}  {self.succeeded:,} succeeded, {self.failed:,} failed{doubles}"])


class Datasets(Readable):
    """Several datasets to read as one.

    They show what there was when they were first used; :meth:`refresh` reads what was committed since.

    Parameters
    ----------
    datasets
        In the order in which they count for a key that several have.
    """

    def __init__(self, datasets: Sequence[Dataset], *, column: bool = False) -> None:
        self._datasets = tuple(datasets)
        self._column = column

    @property
    def urls(self) -> tuple[str, ...]:
        """Where they are."""
        return tuple(one.url for one in self._datasets)

    def __iter__(self) -> Iterator[Dataset]:
        return iter(self._datasets)

    def __len__(self) -> int:
        return len(self._datasets)

    def __repr__(self) -> str:
        return f"<Datasets {', '.join(self.urls)}>"

    def _repr_html_(self) -> str:
        return "<hr>".join(one._repr_html_() for one in self._datasets)

    def labelled(self) -> Datasets:
        """The same, with a last column ``dataset`` in all that is read: the URL of the dataset that a row is of."""
        return Datasets(self._datasets, column=True)

    def refresh(self) -> Datasets:
        """These datasets as they are now."""
        for one in self._datasets:
            one.refresh()
        self.__dict__.pop("_doubles", None)
        return self

    def status(self) -> StatusOfMany:
        """How far they are, as of now; reads the keys of all outcomes."""
        each = tuple(one.status() for one in self.refresh())
        found = [kind for one in self._doubles for kind in one.kinds]
        kinds = {kind: 0 for one in each for kind in one.failed_by_kind}
        for name in kinds:
            kinds[name] = sum(one.failed_by_kind.get(name, 0) for one in each) - found.count(name)
        return StatusOfMany(
            each=each,
            doubles=len(found),
            succeeded=sum(one.succeeded for one in each) - found.count(None),
            failed=sum(kinds.values()),
            failed_by_kind={name: count for name, count in sorted(kinds.items(), key=lambda one: -one[1]) if count},
        )

    def files(self) -> Files:
        """The results parts of all of them that count, and whether they alone are the truth; reads the keys of all outcomes."""
        each = [one.files() for one in self._datasets]
        reasons = [f"{one.url}: {reason}" for one, found in zip(self._datasets, each, strict=True) for reason in found.reasons]
        own, doubles = len(reasons), sum(len(one.kinds) for one in self._doubles)
        if doubles:
            reasons.append(f"{doubles:,} outcomes are of keys that an earlier dataset has: no tool but dcompute leaves them out")
        if len({str(_types(one._results(None, None, False).schema)) for one in self._datasets}) > 1:
            reasons.append("the datasets have different columns or types")
        return Files(
            urls=tuple(url for found in each for url in found),
            reasons=tuple(reasons),
            # no command brings different datasets together
            folders=() if len(reasons) > own else tuple(url for found in each for url in found.folders),
            strangers=sum(found.strangers for found in each),
        )

    @cached_property
    def _doubles(self) -> tuple[Doubles, ...]:
        return doubles_of([(one._store, one.state) for one in self._datasets])

    def _results(self, columns: Sequence[str] | None, filters: Any, inputs: bool) -> Reading:
        each = [one._results(None, None, False) for one in self._datasets]
        if inputs:
            return with_inputs(self._joined(each, None, None), columns, filters)
        return self._joined(each, columns, filters)

    def _attempts(self, columns: Sequence[str] | None, filters: Any) -> Reading:
        return self._joined([one._attempts(None, None) for one in self._datasets], columns, filters)

    def _failures(self, columns: Sequence[str] | None, filters: Any) -> Reading:
        return self._joined([one._failures(None, None) for one in self._datasets], columns, filters)

    def _quarantine(self, columns: Sequence[str] | None, filters: Any) -> Reading:
        return self._joined([one._quarantine(None, None) for one in self._datasets], columns, filters)

    def _relation(self, connection: Any) -> Any:
        reading = self._results(None, None, False)
        types = duck.types_of(connection, reading.schema)
        if self._column or any(len(one.kinds) for one in self._doubles):
            return duck.in_memory(connection, reading.to_arrow())
        found = [duck.relation(connection, one._store, one.state) for one in self._datasets]
        return reduce(lambda a, b: a.union(b), [duck.cast(one, types) for one in found])

    def _joined(self, each: Sequence[Reading], columns: Sequence[str] | None, filters: Any) -> Reading:
        if columns is not None and not isinstance(columns, str):
            columns = list(columns)
        schemas = [one.schema for one in each]
        schema = self._schema(schemas, _needless(columns, filters, schemas))
        where = Filter.of(filters, schema)
        readers = []
        for one, doubles in zip(each, self._doubles, strict=True):
            assert isinstance(one.rows, Reader)
            pushed = where if where is not None and _can_push(where, schema, one.schema) else None
            readers.append(replace(one.rows, where=pushed, doubles=doubles if len(doubles.kinds) else None))
        pieces = [replace(piece, source=source) for source, one in enumerate(each) for piece in one.pieces]
        names = tuple(self.urls) if self._column else None
        return Reading(Several(tuple(readers), schema, names, where), pieces, check_columns(columns, schema), each[0].label)

    def _schema(self, schemas: Sequence[pa.Schema], needless: Collection[str]) -> pa.Schema:
        joined: pa.Schema | None = None
        for one, schema in zip(self._datasets, schemas, strict=True):
            if self._column and COLUMN in schema.names:
                raise UsageError(f"the results of {one.url} have a column {COLUMN!r} of their own: open the datasets without labelled()")
            wanted = pa.schema([field for field in schema if field.name not in needless])
            try:
                joined = join_schemas(joined, wanted)
            except SchemaError as error:
                raise self._unmet(one, error) from error
        assert joined is not None
        return joined.append(pa.field(COLUMN, pa.string())) if self._column else joined

    def _unmet(self, one: Dataset, error: SchemaError) -> SchemaError:
        workloads = ", ".join(sorted({str(each.state.workload) for each in self._datasets}))
        return SchemaError(
            f"column {error.column!r} is {error.types[1]} in {one.url} and {error.types[0]} in those before it: these two cannot meet "
            f"(workloads: {workloads}). Open the datasets apart, or ask for other columns only, with columns=",
            column=error.column,
            types=error.types,
        )


@dataclass(frozen=True)
class Several:
    """The rows of several datasets in the columns of all."""

    readers: tuple[Reader, ...]
    schema: pa.Schema
    names: tuple[str, ...] | None  #: of the datasets, where their column is asked for
    where: Filter | None

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return ("Several", self.readers, str(self.schema), self.names, None if self.where is None else str(self.where.expression))

    def table(self, piece: Piece, names: Sequence[str]) -> pa.Table:
        """The rows of a piece that are wanted, in some of the columns."""
        reader = self.readers[piece.source]
        where = self.where if reader.where is None else None
        wanted = pa.schema([self.schema.field(name) for name in dict.fromkeys([*names, *(where.names if where else ())])])
        found = reader.table(piece, [name for name in wanted.names if name in reader.schema.names])
        table = cast(found, wanted) if len(wanted) else found
        if self.names is not None and COLUMN in wanted.names:
            url = pa.repeat(pa.scalar(self.names[piece.source], pa.string()), found.num_rows)
            table = table.set_column(wanted.get_field_index(COLUMN), COLUMN, url)
        if where is not None:
            table = where.apply(table)
        return table.select(list(names)) if names else bare(table.num_rows)


def _needless(columns: Sequence[str] | None, filters: Any, schemas: Sequence[pa.Schema]) -> Collection[str]:
    """Columns that nobody asks for: they need not meet."""
    if columns is None:
        return ()
    first = {field.name: field for schema in reversed(schemas) for field in schema}
    try:
        where = Filter.of(filters, pa.schema(list(first.values())))
    except UsageError:  # which is said of the columns as they meet
        return ()
    return first.keys() - {*columns, *(where.names if where is not None else ())}


def _can_push(where: Filter, schema: pa.Schema, own: pa.Schema) -> bool:
    return all(name in own.names and own.field(name).type == schema.field(name).type for name in where.names)


def _types(schema: pa.Schema) -> dict[str, str]:
    return {name: str(schema.field(name).type) for name in schema.names}
