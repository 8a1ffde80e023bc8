"""One array on disk that all items write to, each its own region, and a dataset that says who wrote what.

Such a store is the items' own affair: dcompute neither moves it nor takes back what was written. So say with ``idempotent=`` whether a
region may be written twice. It may happen: a worker is lost after it wrote and before its row counted, or a slow item gets a twin.
"""

from pathlib import Path

import numpy as np

import dcompute as dc

ROWS, COLUMNS, BAND = 64, 1000, 8
STORE = Path("field.npy").absolute()


@dc.workload(idempotent=True)  # the default: the same values at the same place, however often
def fill(first: int, path: str) -> dict:
    """A band of the field, drawn with the item's own seed, which is the same on every attempt."""
    band = np.random.default_rng(dc.current().seed).normal(size=(BAND, COLUMNS))
    field = np.load(path, mmap_mode="r+")
    field[first : first + BAND] = band  # no other item writes here
    field.flush()  # before the item succeeds: a row that counts has its region
    return {"first": first, "mean": float(band.mean())}


@dc.workload(idempotent=False)  # reads what it changes: a second time would warm the band twice
def warm(first: int, path: str) -> dict:
    """The band, 1 degree warmer."""
    field = np.load(path, mmap_mode="r+")
    field[first : first + BAND] += 1.0
    field.flush()
    return {"first": first, "mean": float(field[first : first + BAND].mean())}


if not STORE.exists():  # laid out once, before the first item; each region is then somebody's
    np.lib.format.open_memmap(STORE, mode="w+", dtype="float64", shape=(ROWS, COLUMNS)).flush()

bands = range(0, ROWS, BAND)
for workload, dataset in ((fill, "filled"), (warm, "warmed")):
    run = dc.map(workload, bands, dataset, params={"path": str(STORE)})
    run.wait()
    print(run.summary())
    if not run.summary().all_succeeded:  # with idempotent=False nothing is tried again: look first, then retry_failed=
        raise SystemExit(f"some bands are not {dataset}: see dcompute failures {dataset}")

field = np.load(STORE, mmap_mode="r")
for row in dc.open("warmed").to_arrow().to_pylist():
    assert np.isclose(field[row["first"] : row["first"] + BAND].mean(), row["mean"])
print(f"{STORE.name}: {ROWS} x {COLUMNS}, mean {field.mean():.3f}")
