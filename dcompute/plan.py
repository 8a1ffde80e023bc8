"""What is left to do: inputs minus what has a final outcome, each key once.

Pure: outcomes are looked up through a function, inputs come in as items. In memory is an index of 16 bytes an outcome (a 64-bit hash of the
key and where the outcome lies); a hash that hits is confirmed against the stored key before an item is called done.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dcompute.errors import ChangedError, DatasetMismatchError, DuplicateKeyError
from dcompute.index import Index, Marks, Places, Words
from dcompute.keys import item_seed
from dcompute.records import SUCCEEDED, Item, ItemKey

_PICKED_AT_ONCE = 4096
#: Keys that are dropped together.
_DROPPED_AT_ONCE = 16_384
#: Keys that are shown of each reason.
EXAMPLES = 5


class Stored(Protocol):
    """What the plan reads of a stored outcome."""

    @property
    def key(self) -> ItemKey: ...  # noqa: D102
    @property
    def outcome(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str | None: ...  # noqa: D102
    @property
    def final(self) -> bool: ...  # noqa: D102
    @property
    def fingerprint(self) -> str | None: ...  # noqa: D102
    @property
    def params_digest(self) -> str | None: ...  # noqa: D102
    @property
    def version(self) -> str | None: ...  # noqa: D102
    @property
    def code_digest(self) -> str | None: ...  # noqa: D102
    @property
    def seed(self) -> int | None: ...  # noqa: D102


class Countable(Protocol):
    """What the plan asks of inputs before a run."""

    @property
    def count(self) -> int | None: ...  # noqa: D102
    @property
    def distinct(self) -> bool: ...  # noqa: D102
    def hashes(self) -> Iterator[Words]: ...  # noqa: D102
    def pick(self, positions: Sequence[int]) -> list[Item]: ...  # noqa: D102


class Prints(Protocol):
    """What some inputs know of their fingerprints that the items do not say."""

    def is_same(self, now: str, before: str) -> bool: ...  # noqa: D102
    def completed(self, items: Sequence[Item]) -> list[Item]: ...  # noqa: D102
    def growing(self, items: Sequence[Item]) -> set[int]: ...  # noqa: D102


#: Gives the stored outcomes at these locations, in their order.
LookUp = Callable[[Words], Sequence[Any]]


# -------------------------------------------------------------------------------------------------------------------------- plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What counts as done, and what as changed."""

    again: frozenset[str] | None = frozenset()  #: kinds of final failures to execute again; None: no failed item at all
    mends: bool = True  #: another form of the function executes them again too
    on_change: str = "rerun"  #: or "keep", "error"
    on_gone: str = "keep"  #: or "drop"
    params_digest: str = ""
    code_digest: str = ""
    version: str | None = None  #: declared, or "code:<digest>"
    seed: int = 0  #: of the run
    nameless: bool = False  #: a lambda that nobody named: another form of it and another workload look the same


@dataclass(slots=True)
class Tally:
    """How many items were met, and what became of them."""

    met: int = 0
    new: int = 0  #: to do, and without an outcome that would count
    redone: int = 0  #: to do again: input, params, seed or version changed
    redone_by: dict[str, int] = field(default_factory=dict)  #: by what changed
    retried: dict[str, int] = field(default_factory=dict)  #: to do again: failures, by kind
    succeeded: int = 0  #: skipped
    failed: dict[str, int] = field(default_factory=dict)  #: skipped: final failures, by kind
    doubled: int = 0  #: skipped: the key and value of an earlier input
    kept_changed: int = 0  #: of the succeeded ones: made by another form of the function
    kept: dict[str, int] = field(default_factory=dict)  #: of the succeeded ones: changed, and ``on_change="keep"``; by what changed
    unsettled: int = 0  #: left for the next run: they changed a moment ago
    found: int = 0  #: keys that have an outcome
    gone: int = 0  #: outcomes of no input; known once the inputs were read to their end

    @property
    def todo(self) -> int:
        """How many items are to be executed."""
        return self.new + self.redone + sum(self.retried.values())


class Plan:
    """Sifts items, in the order in which they are met.

    Parameters
    ----------
    index
        Of the outcomes that count.
    policy
        What counts as done.
    prints
        Of inputs that know more of their fingerprints than the items say.
    told
        Whether to keep some keys of each reason, in :attr:`examples`.
    """

    def __init__(self, index: Index, policy: Policy, prints: Prints | None = None, *, told: bool = False) -> None:
        self.tally = Tally()
        self.examples: dict[str, list[str]] = {}
        self._told = told
        self._index = index
        self.policy = policy
        self._prints = prints
        self._marks = Marks(index.values()) if told or policy.on_gone == "drop" else None
        self._met: Index | None = Index()
        self._doubled = np.empty(0, dtype=np.intp)

    def check_counted(self, inputs: Countable) -> None:
        """Look for keys that come twice, before anything runs, where inputs can be counted; streams are watched while they come.

        Raises
        ------
        DuplicateKeyError
            One key with two values.
        """
        if inputs.count is None:
            return
        self._met = None
        if inputs.distinct or not inputs.count:
            return
        hashes = np.concatenate([*inputs.hashes(), np.empty(0, dtype=np.uint64)])
        order = np.argsort(hashes, kind="stable").astype(np.intp, copy=False)
        same = hashes[order][1:] == hashes[order][:-1]
        if not same.any():
            return
        suspects = order[np.append(same, False) | np.append(False, same)]
        groups = np.flatnonzero(np.diff(hashes[suspects], prepend=hashes[suspects[0]]))
        self._doubled = np.sort(np.array(list(_doubles(inputs, suspects, groups)), dtype=np.intp))

    def sift(self, items: Sequence[Item], look_up: LookUp) -> list[Item]:
        """Those of the items that are to be executed, in their order.

        Parameters
        ----------
        items
            The next ones.
        look_up
            Gives stored outcomes by location.

        Raises
        ------
        DuplicateKeyError
            A key that came before with another value.
        ChangedError
            Something changed, and ``on_change="error"``.
        DatasetMismatchError
            An outcome of another lambda, where the workload is a lambda that nobody named.
        """
        self.tally.met += len(items)
        if len(self._doubled):
            items = self._without_doubled(items)
        outcomes: dict[int, Stored] = {}
        if items and (self._met is not None or len(self._index)):
            hashes = _hashes(items)
            if self._met is not None:
                items, hashes = self._first_met(items, hashes)
            outcomes = self._outcomes(items, hashes, look_up)
        growing = self._growing(items)
        if not outcomes and not growing:
            self.tally.new += len(items)
            self._tell(_NEW, items)
            return list(items)
        items = self._looked_into(items, outcomes)
        judge = self._judged_and_told if self._told else self._judged
        judged = (judge(item, outcomes.get(place)) for place, item in enumerate(items) if place not in growing)
        return [item for item in judged if item is not None]

    def end(self, left: Iterable[Sequence[Item]], look_up: LookUp) -> None:
        """The inputs were read to their end: what has an outcome and was not among them is gone.

        Parameters
        ----------
        left
            Items that are there and left for the next run.
        look_up
            Gives stored outcomes by location.
        """
        for items in left:
            self.tally.unsettled += len(items)
            self._tell(_UNSETTLED, items)
            self._outcomes(items, _hashes(items), look_up)
        self.tally.gone = self._index.distinct - self.tally.found
        if self._told and self.tally.gone:
            self.examples[GONE[self.policy.on_gone]] = [key.text for key in next(self.gone(look_up))[:EXAMPLES]]

    def gone(self, look_up: LookUp) -> Iterator[list[ItemKey]]:
        """Keys with an outcome that were not among the inputs, some at a time; after :meth:`end`, where they are to be dropped or told."""
        assert self._marks is not None
        unmet = self._marks.unmet()
        for start in range(0, len(unmet), _DROPPED_AT_ONCE):
            locations = unmet[start : start + _DROPPED_AT_ONCE]
            keys = [stored.key for stored in look_up(locations)]
            which, others = self._index.find(np.fromiter(map(hash, keys), dtype=np.int64, count=len(keys)).view(np.uint64))
            later = others > locations[which]
            # of a key with several outcomes the newest tells whether it was met
            older = {
                place
                for place, stored in zip(which[later].tolist(), look_up(others[later]) if later.any() else (), strict=True)
                if stored.key == keys[place]
            }
            found = [key for place, key in enumerate(keys) if place not in older]
            if found:
                yield found

    # -- doubles -------------------------------------------------------------------------------------------------------------

    def _without_doubled(self, items: Sequence[Item]) -> list[Item]:
        positions = np.fromiter((item.position for item in items), dtype=np.intp, count=len(items))
        places = np.minimum(np.searchsorted(self._doubled, positions), len(self._doubled) - 1)
        keep = self._doubled[places] != positions
        self.tally.doubled += len(items) - int(keep.sum())
        return [item for item, kept in zip(items, keep.tolist(), strict=True) if kept]

    def _first_met(self, items: Sequence[Item], hashes: Words) -> tuple[Sequence[Item], Words]:
        """The items of a stream whose keys were not met before.

        A stream cannot be read again, and its keys are too many to keep. What is kept of each is 16 bytes: the 64-bit hash, 32 bits of
        another hash of the key, 32 bits of the fingerprint. Two different keys are taken for one with a chance of 2**-96 a pair.
        """
        assert self._met is not None
        traces = np.fromiter(map(_trace, items), dtype=np.uint64, count=len(items))
        which, found = self._met.find(hashes)
        first = np.zeros(len(items), dtype=bool)
        first[np.unique(hashes, return_index=True)[1]] = True
        first[which] = False
        if not first.all():
            self._look_closely(items, hashes, traces, first=first, known=(which, found))
        self._met.put(hashes[first], traces[first])
        self.tally.doubled += len(items) - int(first.sum())
        return [item for item, kept in zip(items, first.tolist(), strict=True) if kept], hashes[first]

    def _look_closely(
        self, items: Sequence[Item], hashes: Words, traces: Words, *, first: npt.NDArray[np.bool_], known: tuple[Places, Words]
    ) -> None:
        """Decide for items whose hash was met before, here or earlier; ``first`` becomes true for those that only share the hash."""
        doubtful = np.isin(hashes, hashes[~first])
        met: dict[int, list[tuple[int, int | None]]] = {}
        for place, trace in zip(known[0].tolist(), known[1].tolist(), strict=True):
            same = met.setdefault(int(hashes[place]), [])
            if (trace, None) not in same:
                same.append((trace, None))
        for place in np.flatnonzero(doubtful).tolist():
            item, trace = items[place], int(traces[place])
            same = met.setdefault(int(hashes[place]), [])
            earlier = next((pair for pair in same if pair[0] >> 32 == trace >> 32), None)
            first[place] = earlier is None
            if earlier is None:
                same.append((trace, item.position))
            elif earlier[0] != trace or not trace & 0xFFFFFFFF:
                raise _conflict(item, earlier[1], told=bool(trace & 0xFFFFFFFF and earlier[0] & 0xFFFFFFFF))

    # -- outcomes ------------------------------------------------------------------------------------------------------------

    def _outcomes(self, items: Sequence[Item], hashes: Words, look_up: LookUp) -> dict[int, Stored]:
        """The newest outcome of each item that has one, by its place; confirmed by the stored key."""
        which, locations = self._index.find(hashes)
        confirmed: dict[int, Stored] = {}
        # the newest is the last of its place; what is not of this key only shares its hash
        while len(which):
            last = np.append(which[1:] != which[:-1], True)
            found = zip(which[last].tolist(), look_up(locations[last]), strict=True)
            confirmed.update((place, stored) for place, stored in found if stored.key == items[place].key)
            if self._marks is not None:
                self._marks.put(locations[last & np.isin(which, np.fromiter(confirmed, dtype=np.intp, count=len(confirmed)))])
            keep = ~last & ~np.isin(which, np.fromiter(confirmed, dtype=np.intp, count=len(confirmed)))
            which, locations = which[keep], locations[keep]
        self.tally.found += len(confirmed)
        return confirmed

    def _growing(self, items: Sequence[Item]) -> set[int]:
        growing = self._prints.growing(items) if self._prints is not None else set()
        self.tally.unsettled += len(growing)
        self._tell(_UNSETTLED, [items[place] for place in sorted(growing)])
        return growing

    def _looked_into(self, items: Sequence[Item], outcomes: Mapping[int, Stored]) -> Sequence[Item]:
        """The items, with full fingerprints where those alone tell whether something changed."""
        if self._prints is None:
            return items
        prints = {place: stored.fingerprint for place, stored in outcomes.items() if stored.fingerprint}
        doubtful = [place for place, before in prints.items() if not self._prints.is_same(items[place].fingerprint, before)]
        found = list(items)
        for place, item in zip(doubtful, self._prints.completed([items[place] for place in doubtful]), strict=True):
            found[place] = item
        return found

    def _judged(self, item: Item, stored: Stored | None) -> Item | None:
        """The item if it is to be executed, with a note if an earlier outcome then ends."""
        if stored is None:
            self.tally.new += 1
            return item
        if self.policy.nameless and self._is_other_code(stored):
            raise _other_lambda(item)
        changed = self._changed(item, stored)
        succeeded = stored.outcome == SUCCEEDED
        if changed and (succeeded or stored.final) and self._is_redone(item, changed):
            self.tally.redone += 1
            _count(self.tally.redone_by, changed)
            return item._replace(replaces=True)
        if succeeded:
            self.tally.succeeded += 1
            if changed:
                _count(self.tally.kept, changed)
            self.tally.kept_changed += not changed and self._is_other_code(stored)
            return None
        kind = stored.kind or ""
        if not self._is_retried(stored, kind):
            _count(self.tally.failed, kind)
            return None
        _count(self.tally.retried, kind)
        return item._replace(replaces=True) if stored.final else item

    def _judged_and_told(self, item: Item, stored: Stored | None) -> Item | None:
        """The same, with the item's key among the examples of what becomes of it."""
        found = self._judged(item, stored)
        self._tell(_NEW if stored is None else self._reason(item, stored, is_executed=found is not None), (item,))
        return found

    def _reason(self, item: Item, stored: Stored, *, is_executed: bool) -> str:
        kind, changed = stored.kind or "", self._changed(item, stored)
        if not is_executed:
            return _DONE if stored.outcome == SUCCEEDED else _failed(kind)
        is_redone = changed and (stored.outcome == SUCCEEDED or stored.final) and self.policy.on_change != "keep"
        return _redone(changed) if is_redone else _retried(kind)

    def _tell(self, reason: str, items: Sequence[Item]) -> None:
        if self._told and items:
            keys = self.examples.setdefault(reason, [])
            keys += [item.key.text for item in items[: EXAMPLES - len(keys)]]

    def _is_redone(self, item: Item, changed: str) -> bool:
        if self.policy.on_change == "error":
            raise ChangedError(
                f'the {changed} of item {item.key.text!r} changed since it was finished, and on_change="error". '
                'Do it again with on_change="rerun", or leave finished items as they are with on_change="keep"'
            )
        return self.policy.on_change != "keep"

    def _is_retried(self, stored: Stored, kind: str) -> bool:
        if self.policy.again is None:
            return False
        if not stored.final or kind in self.policy.again:
            return True
        # a failure stays until its input or the workload changes
        return self.policy.mends and self.policy.on_change != "keep" and self._is_other_code(stored)

    def _changed(self, item: Item, stored: Stored) -> str:
        """What changed since an outcome: ``input``, ``params``, ``version``, ``seed``, or "" for nothing."""
        policy = self.policy
        now, before = item.fingerprint, stored.fingerprint
        if now and before and now != before and not self._is_same_input(now, before):
            return "input"
        if stored.params_digest and stored.params_digest != policy.params_digest:
            return "params"
        if policy.version is not None and not self._is_same_version(stored):
            return "version"
        if stored.seed is not None and stored.seed != item_seed(policy.seed, item.key):
            return "seed"
        return ""

    def _is_same_input(self, now: str, before: str) -> bool:
        return self._prints is not None and self._prints.is_same(now, before)

    def _is_same_version(self, stored: Stored) -> bool:
        # what was made by this very code before version="code" was said, is no older form
        return self.policy.version in (stored.version, f"code:{stored.code_digest}")

    def _is_other_code(self, stored: Stored) -> bool:
        return self.policy.version is None and bool(stored.code_digest) and stored.code_digest != self.policy.code_digest


def _hashes(items: Sequence[Item]) -> Words:
    return np.fromiter((hash(item.key) for item in items), dtype=np.int64, count=len(items)).view(np.uint64)


def _trace(item: Item) -> int:
    """32 bits of the key, 32 of the fingerprint; the latter are 0 where it cannot be told."""
    value = (int(item.fingerprint[:8], 16) or 1) if item.fingerprint else 0
    return zlib.crc32(item.key.text.encode()) << 32 | value


def _doubles(inputs: Countable, suspects: Places, groups: Places) -> Iterator[int]:
    """Positions of inputs to leave out, of those that share a hash.

    Parameters
    ----------
    suspects
        Positions, those with one hash next to each other, ascending.
    groups
        Where another hash begins.
    """
    met: dict[ItemKey, Item] = {}
    begins = set(groups.tolist())
    for start in range(0, len(suspects), _PICKED_AT_ONCE):
        picked = inputs.pick(suspects[start : start + _PICKED_AT_ONCE].tolist())
        for place, item in enumerate(picked, start):
            if place in begins:
                met.clear()
            first = met.setdefault(item.key, item)
            if first is item:
                continue
            if first.fingerprint != item.fingerprint or not (item.fingerprint or item.value is first.value):
                raise _conflict(item, first.position, told=bool(first.fingerprint and item.fingerprint))
            yield item.position


def _conflict(item: Item, earlier: int | None, *, told: bool) -> DuplicateKeyError:
    where = f"inputs {earlier:,} and {item.position:,}" if earlier is not None else f"input {item.position:,} and one before it"
    what = "have different values" if told else "cannot be told to have the same value"
    return DuplicateKeyError(
        f"{where} (from 0) have the key {item.key.text!r} ({item.key.kind}) and {what}: a key stands for one input. "
        "Give each input a key of its own with key=, or leave one out",
        key=item.key.text,
        positions=(earlier, item.position),
    )


def _other_lambda(item: Item) -> DatasetMismatchError:
    return DatasetMismatchError(
        f"item {item.key.text!r} has an outcome of another lambda here, and lambdas have no names that tell whether it is an older form of "
        'this one or another workload. Another workload needs another dataset; for an older form say name="<lambda>" (finished items are '
        "kept), or also version= (they are done again)"
    )


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


# ----------------------------------------------------------------------------------------------------------------------- reasons

_NEW, _DONE, _DOUBLED = "new", "done before", "given twice"
_UNSETTLED = "changed a moment ago, left for the next run"
#: By what becomes of them.
GONE = {"keep": "no longer an input, kept", "drop": "no longer an input, dropped"}


def _redone(what: str) -> str:
    return f"again, {what} changed"


def _retried(kind: str) -> str:
    return f"again, failed before ({kind})"


def _failed(kind: str) -> str:
    return f"failed before, stays ({kind})"


def reasons(tally: Tally, on_gone: str = "keep") -> Mapping[str, int]:
    """A tally as sentences' parts with figures, for showing what would be done."""
    found = {
        _NEW: tally.new,
        **{_redone(what): count for what, count in tally.redone_by.items()},
        **{_retried(kind): count for kind, count in tally.retried.items()},
        _DONE: tally.succeeded,
        **{_failed(kind): count for kind, count in tally.failed.items()},
        _DOUBLED: tally.doubled,
        _UNSETTLED: tally.unsettled,
        GONE[on_gone]: tally.gone,
    }
    return {what: count for what, count in found.items() if count}
