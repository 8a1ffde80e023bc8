"""Which outcomes there are, by a hash of their keys: 16 bytes each; and which of them were met.

Pure. A hash is never more than a hint: whoever finds one confirms it against the stored key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Places = npt.NDArray[np.intp]

_PARTITION_BITS = 6


class Index:
    """Pairs of 64-bit words, found by the first one: 16 bytes each, and little more while it grows.

    They lie in partitions by the first bits, each a few sorted runs that are merged when they come to be of one size, so that only
    a partition is ever there twice.
    """

    def __init__(self) -> None:
        self._partitions: list[list[tuple[Words, Words]]] = [[] for _ in range(1 << _PARTITION_BITS)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, texts: Iterable[str], kinds: Iterable[str], locations: Words) -> None:
        """Take outcomes: their keys as two columns, and where they lie; later ones are newer."""
        # an ItemKey has the hash of the pair
        self.put(np.fromiter(map(hash, zip(texts, kinds, strict=True)), dtype=np.int64).view(np.uint64), locations)

    def put(self, hashes: Words, values: Words) -> None:
        """Take pairs; of equal hashes the later ones come later out of :meth:`find` too."""
        self._count += len(hashes)
        for number, start, stop, order, ordered in _split(hashes):
            runs = self._partitions[number]
            runs.append((ordered[start:stop].copy(), values[order[start:stop]]))
            while len(runs) > 1 and len(runs[-2][0]) < 2 * len(runs[-1][0]):
                runs[-2:] = [_merged(runs[-2:])]

    @property
    def distinct(self) -> int:
        """How many different hashes there are, once it is closed."""
        return sum(1 + int(np.count_nonzero(run[1:] != run[:-1])) for runs in self._partitions for run, _ in runs if len(run))

    def values(self) -> Words:
        """The second words, in no order."""
        return np.concatenate([np.empty(0, dtype=np.uint64), *(words for runs in self._partitions for _, words in runs)])

    def close(self) -> None:
        """Make finding as quick as it gets: nothing more will come."""
        for number, runs in enumerate(self._partitions):
            if len(runs) > 1:
                self._partitions[number] = [_merged(runs)]

    def find(self, hashes: Words) -> tuple[Places, Words]:
        """All pairs with one of these hashes: the place of the hash among ``hashes``, ascending, and the second word."""
        which: list[Places] = []
        values: list[Words] = []
        for number, start, stop, order, ordered in _split(hashes) if self._count else ():
            wanted = ordered[start:stop]
            for run, words in self._partitions[number]:
                left = run.searchsorted(wanted)
                hits = np.flatnonzero(run[np.minimum(left, len(run) - 1)] == wanted)
                if not len(hits):
                    continue
                counts = run.searchsorted(wanted[hits], side="right") - left[hits]
                within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
                which.append(np.repeat(order[start:stop][hits], counts))
                values.append(words[np.repeat(left[hits], counts) + within])
        if not which:
            return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.uint64)
        places = np.concatenate(which)
        arranged = np.argsort(places, kind="stable")
        return places[arranged], np.concatenate(values)[arranged]


def _split(hashes: Words) -> Iterator[tuple[int, int, int, Places, Words]]:
    """Number of each partition concerned, its range in the sorted hashes, their order, and they themselves."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    numbers = (ordered >> np.uint64(64 - _PARTITION_BITS)).astype(np.intp)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(numbers)], strict=True) if len(numbers) else ():
        yield int(numbers[start]), start, stop, order, ordered


def _merged(runs: Sequence[tuple[Words, Words]]) -> tuple[Words, Words]:
    hashes = np.concatenate([run for run, _ in runs])
    order = np.argsort(hashes, kind="stable")
    return hashes[order], np.concatenate([values for _, values in runs])[order]


class Marks:
    """Which of some words were met: 9 bytes each."""

    def __init__(self, words: Words) -> None:
        self._words = np.sort(words)
        self._met = np.zeros(len(words), dtype=bool)

    def put(self, words: Words) -> None:
        """Mark some of them."""
        self._met[np.searchsorted(self._words, words)] = True

    def unmet(self) -> Words:
        """Those that were not marked, ascending."""
        return self._words[~self._met]
