"""A driver whose items produce files, one each: ``map.bin`` in the column ``map``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from dcompute.dataset.meeting import FILE_KINDS
from dcompute.dataset.names import produced_name
from dcompute.dataset.store import Store
from dcompute.worker.collected import set_apart
from tests.component.upkeep.driving import Driving, Rows

COLUMNS = ("map_url", "map_size", "map_checksum")


class Producing(Driving):
    """Each item that has rows has a file with the text of its first row."""

    def table(self, did: Mapping[str, Rows | None], batch: str, execution: str) -> pa.Table | None:
        with_files: dict[str, list[dict[str, Any]]] = {}
        for index, (text, rows) in enumerate(did.items()):
            if rows:
                with_files[text] = [{**row, **self._produced(produced_name(batch, execution, index, "map.bin"), rows[0])} for row in rows]
        found = super().table(with_files, batch, execution)
        if found is None:
            return None
        rest, files = set_apart(found, dict(zip(COLUMNS, FILE_KINDS, strict=True)))
        return pa.table([*rest.columns, *files.columns], schema=pa.schema([*rest.schema, *files.schema]))

    def _produced(self, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        data = content(row)
        self.store.write(name, data)
        return dict(zip(COLUMNS, (name, len(data), f"sha256:{hashlib.sha256(data).hexdigest()}"), strict=True))


def content(row: Mapping[str, Any]) -> bytes:
    """What the file of an item with this row holds."""
    return repr(row["n"]).encode() * 10


def produced(store: Store) -> set[str]:
    """All files of items, whether they count or not."""
    from dcompute.dataset.produced import listed

    return set(listed(store))
