"""What became of a results part that is not there any more: compaction and vacuum leave their traces in the log."""

from __future__ import annotations

from datetime import datetime

from dcompute.dataset.entries import Entry, Replace, Vacuum
from dcompute.dataset.log import Log
from dcompute.errors import DatasetError


def removed(log: Log, name: str) -> DatasetError | None:
    """The error of a results part that vacuum removed; None where the log knows of no vacuum that may have."""
    replaced: Entry | None = None
    for entry in log.read_all():
        for action in entry.actions:
            if isinstance(action, Replace) and name in action.parts and replaced is None:
                replaced = entry
            if isinstance(action, Vacuum) and replaced is not None and action.until >= replaced.number:
                return DatasetError(
                    f"{name} is gone from {log.store.url} since {readable(entry.at)}: vacuum removed it (entry {entry.number} of the log), "
                    f"as compaction had replaced it (entry {replaced.number}). What the dataset was before that cannot be read any more: "
                    f"open it as it is now, or at={replaced.number} or later"
                )
    return None


def readable(seconds: float) -> str:
    """A time as people read it, with its zone."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
