"""Items that wait to be put together to batches: in one line, or where rules tell them apart in one for each of their values."""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

from dcompute.garbage import uncollected
from dcompute.records import Item, Request
from dcompute.window.instructions import Try
from dcompute.window.places import Groups, Places

#: Lines that are looked at for one batch at most: what is kept apart from all of them waits for the next time.
_LOOKED_AT = 1000


class Line:
    """Further attempts, then fresh items."""

    __slots__ = ("again", "fresh", "fresh_bytes", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.again: deque[Try] = deque()
        self.fresh: deque[Item] = deque()
        self.fresh_bytes = 0

    def __len__(self) -> int:
        return len(self.again) + len(self.fresh)

    def offer(self, items: Sequence[Item]) -> None:
        """Take items from the plan."""
        self.fresh.extend(items)
        self.fresh_bytes += sum(item.size for item in items)

    def pack(self, count: int, max_bytes: int, *, must: bool = True) -> list[Try]:
        """Take at most so many items, together at most so many bytes; with ``must`` at least one."""
        tries: list[Try] = []
        room = max_bytes
        again = self.again
        while again and len(tries) < count:
            room -= again[0].item.size
            if room < 0 and (tries or not must):
                return tries
            tries.append(again.popleft())
        tries += self._pack_fresh(count - len(tries), room, must=must and not tries)
        return tries

    def _pack_fresh(self, count: int, room: int, must: bool) -> list[Try]:
        # Millions of items come this way: no work in a loop of its own that a built-in can do.
        items = list(itertools.islice(self.fresh, count))
        total = sum([item.size for item in items])
        if total > room:
            ends = list(itertools.accumulate(item.size for item in items))
            fit = max(bisect.bisect_right(ends, room), 1 if must else 0)
            items, total = items[:fit], ends[fit - 1] if fit else 0
        self.fresh_bytes -= total
        pop, request = self.fresh.popleft, self.request
        for _ in items:
            pop()
        with uncollected():
            return [Try(item, 1, request) for item in items]

    def clear(self) -> None:
        """Forget all that waits."""
        self.again.clear()
        self.fresh.clear()
        self.fresh_bytes = 0


class Lines:
    """The lines of one class, by the values that its rules tell apart, and found by the host that they belong to."""

    def __init__(self, request: Request, places: Places) -> None:
        self._request = request
        self._places = places
        self._serving: set[str] = set()
        self._lines: dict[Groups, Line] = {}
        self._there: dict[str | None, dict[Groups, None]] = {}  #: by host; None: it may be any
        self._home: dict[Groups, str | None] = {}
        self._kin: dict[Hashable, dict[Groups, None]] = {}  #: lines that belong together
        self.again = self.fresh = self.fresh_bytes = 0
        self.closed: set[str] = set()  #: hosts for which there was none, and where nothing has changed since

    def offer(self, items: Iterable[Item]) -> None:
        """Take items from the plan."""
        for groups, some in itertools.groupby(items, key=lambda item: item.groups):
            together = list(some)
            line = self._of(groups)
            before = line.fresh_bytes
            line.offer(together)
            self.fresh += len(together)
            self.fresh_bytes += line.fresh_bytes - before

    def back(self, tried: Try) -> None:
        """Put an item in line again."""
        self._of(tried.item.groups).again.append(tried)
        self.again += 1

    def serve(self, hosts: set[str]) -> None:
        """Workers of these hosts can execute the class; what belongs to another host may go anywhere."""
        if hosts == self._serving:
            return
        self._serving = hosts
        self.closed.clear()
        for groups in list(self._lines):
            self._settle(groups)

    def moved(self, values: Iterable[Hashable]) -> None:
        """What belongs to these values has another host now."""
        for value in values:
            for groups in list(self._kin.get(value, ())):
                self._settle(groups)

    def home(self, groups: Groups) -> str | None:
        """The one host where items must or should go; None: any."""
        last = self._places.last(groups)
        return last if last in self._serving else None

    def permitted(self, groups: Groups, host: str, busy: set[Any]) -> bool:
        """Whether hard rules let items go to a host on which these values are at work."""
        places = self._places
        if places.hard_together and self.home(groups) not in (None, host):
            return False
        return not places.hard_apart or places.keeps_apart(groups, busy)

    def pack(self, host: str, busy: set[Any], count: int, max_bytes: int) -> list[Try]:
        """Take items for a host: of one value where a rule is hard; none where all must go elsewhere, or wait."""
        tries: list[Try] = []
        while len(tries) < count and (groups := self._choose(host, busy)) is not None:
            line = self._lines[groups]
            again, fresh, size = len(line.again), len(line.fresh), line.fresh_bytes
            found = line.pack(count - len(tries), max_bytes - sum(tried.item.size for tried in tries), must=not tries)
            self.again += len(line.again) - again
            self.fresh += len(line.fresh) - fresh
            self.fresh_bytes += line.fresh_bytes - size
            self._rotate(groups, line)
            tries += found
            if self._places.hard or not found:
                break
        if not tries and count:
            self.closed.add(host)
        return tries

    def clear(self) -> None:
        """Forget all that waits."""
        for index in (self._lines, self._there, self._home, self._kin):
            index.clear()
        self.again = self.fresh = self.fresh_bytes = 0

    def _of(self, groups: Groups) -> Line:
        line = self._lines.get(groups)
        if line is None:
            line = self._lines[groups] = Line(self._request)
            self._kin.setdefault(self._places.belongs(groups), {})[groups] = None
            self._settle(groups)
        return line

    def _settle(self, groups: Groups) -> None:
        """Put a line where its home is now."""
        self.closed.clear()
        home = self.home(groups)
        before = self._home.get(groups)
        if groups in self._home and before != home:
            self._leave(groups, before)
        self._home[groups] = home
        self._there.setdefault(home, {}).setdefault(groups)

    def _leave(self, groups: Groups, host: str | None) -> None:
        there = self._there[host]
        del there[groups]
        if not there:
            del self._there[host]

    def _rotate(self, groups: Groups, line: Line) -> None:
        """A line that was served goes behind the others; an empty one ends."""
        home = self._home[groups]
        self._leave(groups, home)
        if line:
            self._there.setdefault(home, {})[groups] = None
            return
        del self._home[groups], self._lines[groups]
        value = self._places.belongs(groups)
        del self._kin[value][groups]
        if not self._kin[value]:
            del self._kin[value]

    def _choose(self, host: str, busy: set[Any]) -> Groups | None:
        """The next line for a host: those that belong there, those that may go anywhere, and where that is not hard all others."""
        second: Groups | None = None
        for groups in itertools.islice(self._candidates(host), _LOOKED_AT):
            if self._places.keeps_apart(groups, busy):
                return groups
            second = second or groups
        return None if self._places.hard_apart else second

    def _candidates(self, host: str) -> Iterator[Groups]:
        yield from self._there.get(host, ())
        yield from self._there.get(None, ())
        if not self._places.hard_together:
            for other, there in self._there.items():
                if other not in (None, host):
                    yield from there
