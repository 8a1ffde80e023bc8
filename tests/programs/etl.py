"""Three stages over raw records of which 3 % are corrupt in eight ways: what the tests, the kills and the benchmark of reports run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

import dcompute as dc
from dcompute.dataset.store import Store
from tests.component.reading.conftest import Did, Scene

STATIONS = ("amsterdam", "boulder", "cabauw", "darwin")

#: How a record is corrupt: the stage that finds it, and the line.
FAULTS = {
    "empty": ("parsed", ""),
    "too few cells": ("parsed", "cabauw;2024-01-01T00:00:00"),
    "too many cells": ("parsed", "cabauw;2024-01-01T00:00:00;5;6"),
    "no time": ("parsed", "cabauw;yesterday;5"),
    "no number": ("parsed", "cabauw;2024-01-01T00:00:00;five"),
    "no flux": ("clean", "cabauw;2024-01-01T00:00:00;"),
    "out of range": ("clean", "cabauw;2024-01-01T00:00:00;-99999"),
    "unknown station": ("clean", "atlantis;2024-01-01T00:00:00;5"),
}

META = pd.DataFrame(
    {
        "station": pd.Series([], dtype="string[pyarrow]"),
        "time": pd.Series([], dtype=pd.ArrowDtype(pa.timestamp("s"))),
        "flux": pd.Series([], dtype="double[pyarrow]"),
        "fault": pd.Series([], dtype="string[pyarrow]"),
    }
)


def line(number: int) -> tuple[str, str]:
    """A raw record, and how it is corrupt; "" where it is not."""
    if number % 100 < 3:
        fault = list(FAULTS)[(number // 100 + number % 100) % len(FAULTS)]
        return FAULTS[fault][1], fault
    return f"{STATIONS[number % 4]};2024-01-{number // 50 % 28 + 1:02d}T{number % 24:02d}:00:00;{number % 1000}", ""


def expected(stage: str, records: int) -> dict[str, int]:
    """Rows that a stage drops of so many records, by reason."""
    faults = [line(number)[1] for number in range(records)]
    return {fault: faults.count(fault) for fault, (where, _) in FAULTS.items() if where == stage}


def write_raw(url: str, records: int, parts: int) -> Scene:
    """A dataset whose results are raw records."""
    scene = Scene(Store.at(url)).open()
    add_raw(scene, 0, records, parts)
    return scene.publish()


def add_raw(scene: Scene, first: int, records: int, parts: int) -> None:
    """More of them."""
    size = -(-records // parts)
    for start in range(first, first + records, size):
        numbers = range(start, min(start + size, first + records))
        scene.add(Did(f"file {start}", rows=[{"line": line(number)[0]} for number in numbers]))


def split(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells of the lines of a partition, and what is wrong with each line."""
    lines = frame["line"].astype(object)
    cells = lines.str.split(";")
    count, texts = cells.str.len(), cells.str[2].fillna("")
    time = pd.to_datetime(cells.str[1], format="%Y-%m-%dT%H:%M:%S", errors="coerce")
    flux = pd.to_numeric(texts.where(texts != "", None), errors="coerce")
    faults = [lines == "", count < 3, count > 3, time.isna(), flux.isna() & (texts != "")]
    names = [name for name, (stage, _) in FAULTS.items() if stage == "parsed"]
    found = pd.DataFrame({"station": cells.str[0], "time": time.dt.as_unit("s"), "flux": flux, "fault": np.select(faults, names, "")})
    return found.astype(META.dtypes.to_dict())


def parse(raw: Any) -> Any:
    """Lines become columns; what is no record is dropped."""
    frame = raw.map_partitions(split, meta=META)
    for name, (stage, _) in FAULTS.items():
        if stage == "parsed":
            frame = dc.drop(frame, frame.fault == name, name)
    return frame[["station", "time", "flux"]]


def clean(parsed: Any) -> Any:
    """Values that cannot be are dropped."""
    parsed = dc.drop(parsed, parsed.flux.isna(), "no flux")
    parsed = dc.drop(parsed, (parsed.flux < 0) | (parsed.flux > 2000), "out of range")
    return dc.drop(parsed, ~parsed.station.isin(list(STATIONS)), "unknown station")


def daily(clean: Any) -> Any:
    """Records and their sum, by station and day."""
    days = clean.assign(day=clean.time.dt.day, n=1)
    return days.groupby(["station", "day"]).agg({"n": "sum", "flux": "sum"}).reset_index()


def stages(raw: str) -> tuple[dc.Report, dc.Report, dc.Report]:
    """The reports over a dataset of raw records."""
    parsed = dc.Report("parsed", {"raw": raw}, parse, mergeable="partition", balanced=True)
    cleaned = dc.Report(
        "clean", {"parsed": parsed}, clean, mergeable="partition", balanced=True, checks={"possible": pc.field("flux") <= 2000}
    )
    key = ["station", "day"]
    metrics = dc.Report("metrics", {"clean": cleaned}, daily, mergeable=key, combine={"n": "sum", "flux": "sum"})
    return parsed, cleaned, metrics


def rows_of(report: dc.Report) -> pa.Table:
    """All rows in an order of their own."""
    table = report.to_arrow()
    return table.sort_by([(name, "ascending") for name in table.column_names])
