"""The figures of a status as people read them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


def told(name: str, value: Any) -> str:
    """A field of the status as people read it; "" for one that says nothing."""
    if value is None or value in ("", {}):
        return ""
    if name == "sources":
        return ", ".join(f"{url} at entry {number:,}" for url, number in value.items())
    if isinstance(value, Mapping):
        return ", ".join(f"{count:,} {kind}" for kind, count in value.items())
    if name in ("last_commit", "driver_since"):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if name == "bytes":
        return _size(value)
    return str(value) if name == "driver_pid" or not isinstance(value, int) else f"{value:,}"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
