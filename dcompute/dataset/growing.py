"""Sets and mappings of a state that only grow; what comes from a checkpoint stays columns until somebody asks for one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from dcompute.records import ItemKey

if TYPE_CHECKING:
    import pyarrow as pa


class Names:
    """A set of names that only grows."""

    def __init__(self, stored: pa.ChunkedArray | None = None) -> None:
        self._stored = stored
        self._opened: set[str] = set()  # what is stored is among them only when that is None

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and self._all() == other._all()

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> Names:
        copied = Names(self._stored)
        copied._opened = set(self._opened)
        return copied

    def update(self, names: Iterable[str]) -> None:
        """Add some."""
        self._opened.update(names)

    def array(self) -> pa.ChunkedArray:
        """All of them; some may be there twice."""
        import pyarrow as pa

        stored = [] if self._stored is None else self._stored.chunks
        return pa.chunked_array([*stored, pa.array(list(self._opened), pa.string())], pa.string())

    def _all(self) -> set[str]:
        if self._stored is not None:
            self._opened.update(self._stored.to_pylist())
            self._stored = None
        return self._opened


class Positions:
    """Keys with a position in the log each; a later one takes the place of an earlier one."""

    def __init__(self, stored: pa.Table | None = None) -> None:
        self._stored = stored
        self._opened: dict[ItemKey, int] = {}

    def __bool__(self) -> bool:
        return bool(self._opened) or (self._stored is not None and self._stored.num_rows > 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Positions) and self.mapping() == other.mapping()

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> Positions:
        copied = Positions(self._stored)
        copied._opened = dict(self._opened)
        return copied

    def update(self, positions: Mapping[ItemKey, int]) -> None:
        """Set some."""
        self._opened.update(positions)

    def mapping(self) -> dict[ItemKey, int]:
        """All of them; it follows what is set later."""
        if self._stored is not None:
            stored, self._stored = self._stored, None
            texts, kinds, positions = (column.to_pylist() for column in stored.columns)
            later = dict(self._opened)
            # the same mapping as before: who holds it sees all
            self._opened.clear()
            self._opened.update(zip(map(ItemKey, texts, kinds), positions, strict=True))
            self._opened.update(later)
        return self._opened

    def table(self) -> pa.Table:
        """All of them as ``columns.POSITIONS_SCHEMA``."""
        if self._stored is not None and not self._opened:
            return self._stored
        from dcompute.dataset.columns import position_columns

        return position_columns(self.mapping())
