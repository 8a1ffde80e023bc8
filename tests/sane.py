"""Pandera for tests: imported so that times with a zone stay what they are in all other tests of the process."""

from __future__ import annotations

from dcompute import zones

with zones.kept():
    import pandera.pandas as pandera
    from pandera import dtypes
    from pandera.config import config_context

__all__ = ["config_context", "dtypes", "pandera"]
