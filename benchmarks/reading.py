"""Reading 10,000 small parts: a group-by through ``results()`` and bare ``dd.read_parquet``, DuckDB and ``to_duckdb``; ratios of one run.

python benchmarks/reading.py [PARTS]
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import duckdb
import numpy as np
import pyarrow as pa

import dcompute as dc
from dcompute.dataset import Store, Writer
from dcompute.dataset.entries import Add, AddBatch, SetSchema
from dcompute.dataset.parts import results_name, write_results
from dcompute.dataset.schema import marked, to_text
from dcompute.records import PartRef, batch_id

PARTS, ROWS, TOGETHER = 10_000, 100, 500
QUERY = 'SELECT "group", avg(x) FROM {} GROUP BY 1'


def write(root: Path, parts: int) -> None:
    """A dataset as a run of many small batches leaves it; results parts only, for nothing else is read."""
    store, random = Store.at(root), np.random.default_rng(0)
    writer = Writer.acquire(store, workload="w", run="run")
    (root / "results").mkdir(exist_ok=True)
    batches: list[AddBatch] = []
    for number in range(1, parts + 1):
        batch = batch_id("run", 1, number)
        table = _table(number, random)
        buffer = io.BytesIO()
        write_results(buffer, table)
        ref = PartRef(name=results_name(batch, "e", 0), size=len(buffer.getvalue()), rows=ROWS)
        (root / ref.name).write_bytes(buffer.getvalue())
        batches.append(AddBatch(id=batch, holds=((0, ROWS),), results=(ref,), succeeded=ROWS, rows=ROWS))
        if len(batches) == TOGETHER or number == parts:
            writer.commit([SetSchema(schema=to_text(table.schema)), Add(batches=tuple(batches))])
            batches = []
    writer.close()


def _table(number: int, random: np.random.Generator) -> pa.Table:
    keys = [f"{number}-{index}" for index in range(ROWS)]
    names = [f"name {index % 7}" for index in range(ROWS)]
    columns = {"group": random.integers(0, 10, ROWS), "x": random.random(ROWS), "y": random.random(ROWS), "name": names}
    return marked(pa.table({"item_key": keys, "key_kind": ["str"] * ROWS, **columns}))


def seconds(act: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """The shortest of some times, and the result."""
    spent, found = [], None
    for _ in range(times):
        began = time.perf_counter()
        found = act()
        spent.append(time.perf_counter() - began)
    return min(spent), found


def through_dask(frame: Any) -> dict[int, float]:
    """The group-by on a Dask dataframe."""
    means = frame.groupby("group")["x"].mean().compute()
    return {int(group): round(float(mean), 9) for group, mean in means.items()}


def through_duckdb(source: Callable[[Any], str]) -> dict[int, float]:
    """The group-by in DuckDB, on a connection that knows nothing yet."""
    with duckdb.connect() as connection:
        return {group: round(mean, 9) for group, mean in connection.sql(QUERY.format(source(connection))).fetchall()}


def relation(opened: dc.Dataset) -> dict[int, float]:
    """The group-by on :meth:`Dataset.to_duckdb`."""
    with duckdb.connect() as connection:
        found = opened.to_duckdb(connection).aggregate('"group", avg(x)').fetchall()
        return {group: round(mean, 9) for group, mean in found}


def main() -> None:
    """Print the figures; fails where one misses its mark."""
    parts = int(sys.argv[1]) if len(sys.argv) > 1 else PARTS
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="threads"):
        root = Path(folder) / "dataset"
        write(root, parts)
        bare = f"read_parquet('{root}/results/*.parquet')"
        ours, means = seconds(lambda: through_dask(dc.open(root).results()))
        theirs, expected = seconds(lambda: through_dask(dd.read_parquet(root / "results")), 1)
        duck, in_duck = seconds(lambda: through_duckdb(lambda _: bare))
        opened = dc.open(root)
        through, of_relation = seconds(lambda: relation(opened))
        opened.compact(all=True)
        large, after = seconds(lambda: through_dask(opened.results()))
        files = list(opened.files())
        duck_large, _ = seconds(lambda: through_duckdb(lambda _: f"read_parquet({files!r})"))
    assert means == expected == in_duck == of_relation == after
    report = [
        ("seconds of dd.read_parquet", theirs, ""),
        ("seconds of results()", ours, ""),
        ("... times as quick, 8 at least", theirs / ours, "slow" if theirs / ours < 8 else ""),
        ("seconds of DuckDB on the bare files", duck, ""),
        ("seconds of to_duckdb()", through, ""),
        ("... times DuckDB's, 2 at most", through / duck, "slow" if through / duck > 2 else ""),
        ("after compaction, seconds of DuckDB", duck_large, ""),
        ("after compaction, seconds of results()", large, ""),
        ("... times DuckDB's, 6 at most", large / duck_large, "slow" if large / duck_large > 6 else ""),
    ]
    for name, figure, verdict in report:
        print(f"{name:<40} {figure:8.3f} {verdict}".rstrip())
    if any(verdict for _, _, verdict in report):
        sys.exit("a figure misses its mark")


if __name__ == "__main__":
    main()
