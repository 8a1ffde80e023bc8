"""What is handed to Dask for a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd

from dcompute.dataset.store import Store
from dcompute.report.computing import Job, Target, carry_out
from dcompute.report.writing import SAID


def test_two_runs_on_one_scheduler_share_nothing_that_they_write(tmp_path: Path) -> None:
    """The tasks that write have names of their own each time: the files of a run that loses are removed, and must not be the winner's."""
    frame = dd.from_pandas(pd.DataFrame({"x": [1]}), npartitions=1)
    handed: list[str] = []

    def compute(*things: Any) -> tuple[Any, ...]:
        handed.extend(str(key) for thing in things for key in thing.__dask_keys__())
        return (pd.DataFrame({SAID: []}),)

    for _ in range(2):
        carry_out([Job(lambda raw: raw, (frame,))], Target("r", Store.at(tmp_path), "1"), compute)
    assert len(set(handed)) == 2
    assert all("dcompute-report" in name for name in handed)
