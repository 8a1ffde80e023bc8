"""The journal: what a child has finished and what it is at, in a mapped file that outlives it and costs no system call an item.

The child writes, records first and then their end; its successor reads the records and goes on after them; the worker process reads the
header only. Each record carries a checksum, because the memory it lies in is that of a process which may have lost its senses.

Layout: a header of 4096 bytes (fixed structs, native byte order: no other machine reads it), then records, each a fixed part, an
extended part where the item was measured on its own, a JSON object of metrics where there is one, and a payload: encoded rows, or a failure
as JSON.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

from dcompute.errors import InternalError

HEADER = 4096
_MAGIC = b"dcjrnl01"
_FIRST_SIZE, _LARGEST_STEP = 1 << 18, 1 << 26
# room that only verdicts take: the one that a full disk leads to must find some
_RESERVE = 1 << 14
_NO_FRACTION = -1.0

_START = struct.Struct("@8s")
_ENDED = struct.Struct("@QQQ")  # at 8: committed bytes, done items, sequence
_AT_WORK = struct.Struct("@QqqQd")  # at 24: sequence, first and last index, calls of this process before, started (monotonic)
_STATE = struct.Struct("@Q")  # at 64
_PROGRESS = struct.Struct("@dQ")  # at 72: fraction, length of the text
_SEQUENCE = struct.Struct("@Q")  # at 24
_STOP = struct.Struct("@Q")  # at 88, written by the worker
_SEEN = struct.Struct("@Q")  # at 608, written by the worker: one more than the index that it saw at work
_ALL = struct.Struct("@8sQQQqqQdQdQQ")
_TEXT_AT, _LONGEST_TEXT, _SEEN_AT = 96, 512, 608

_RECORD = struct.Struct("@IIIBBHdddd")  # checksum, payload, index, outcome, measured, parts, started, duration, cpu user, cpu system
_KNOWN, _TIMES = struct.Struct("@IIIBBH"), struct.Struct("@dddd")  # the two halves of a record's fixed part
_EXTENDED = struct.Struct("@qqqdqH")  # peak memory, bytes read, bytes written, I/O wait, leftovers, how memory was measured
_SIZE = struct.Struct("@I")
_UNKNOWN = -1
_MOST_LOOKS = 1000


class State(IntEnum):
    """What the child is doing."""

    IDLE = 0
    EXECUTING = 1
    FINISHING = 2  #: making Parquet of the records
    FULL = 3  #: nothing: it cannot write the outcome of the item at work


class Measured(IntEnum):
    """Whose figures a row has."""

    ITEM = 0
    BATCH = 1
    GROUP = 2
    NOTHING = 3


class MemoryMeasured(IntEnum):
    """How the peak memory of an item was measured."""

    UNKNOWN = 0
    RESIDENT = 1  #: largest resident size of the child during the attempt
    BATCH = 2  #: the same during the batch
    PROCESS = 4  #: of the whole worker process, where items execute in its threads
    TREE = 3  #: anonymous and shared memory of the child and all processes below it, looked at every 20 ms


# what follows the fixed part of a record; plain numbers, because operations on enums are dear
_HAS_EXTENDED, _HAS_METRICS = 1, 2


class Figures(NamedTuple):
    """What one attempt took; None where the system does not tell. Seconds and bytes."""

    duration: float = 0.0
    cpu_user: float = 0.0
    cpu_system: float = 0.0
    measured: int = Measured.BATCH
    peak_memory: int | None = None
    bytes_read: int | None = None
    bytes_written: int | None = None
    io_wait: float | None = None
    leftovers: int = 0
    memory_measured: int = MemoryMeasured.UNKNOWN


_SHORT: tuple[Any, ...] = Figures()[4:]


class Record(NamedTuple):
    """One outcome as it lies in the journal."""

    item: int  #: its index in the batch
    succeeded: bool
    started: float  #: unix time
    figures: Figures
    metrics: bytes  #: JSON, empty for none
    payload: bytes  #: encoded rows, or a failure as JSON


#: Where a record lies, item, whether it succeeded, whose figures it has, extended part and metrics where it has some, payload.
Found: TypeAlias = tuple[int, int, bool, int, Sequence[Any] | None, bytes]


@dataclass(frozen=True, slots=True)
class Header:
    """What the child is at, as the worker sees it."""

    committed: int
    done: int  #: items with a record
    sequence: int  #: odd while items are at work
    index: int  #: first item at work
    last: int  #: last item at work; a group's are all between that had no outcome
    calls: int  #: that this process made before this one
    started: float  #: ``time.monotonic()``
    state: int
    fraction: float | None
    text: str

    @property
    def at_work(self) -> bool:
        """Whether a call of user code has begun and not ended."""
        return bool(self.sequence & 1)


class Journal:
    """A journal that this process writes."""

    def __init__(self, path: str, *, create: bool = False) -> None:
        self._file = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)
        size = os.fstat(self._file).st_size
        if create:
            os.posix_fallocate(self._file, 0, HEADER + _FIRST_SIZE)
            size = HEADER + _FIRST_SIZE
        self._map = mmap.mmap(self._file, size)
        self._size, self._limit = size, size - _RESERVE
        self.wanted = 0  #: bytes that the file could not be given
        self._reported = False
        if create:
            _ALL.pack_into(self._map, 0, _MAGIC, 0, 0, 0, -1, -1, 0, 0.0, State.IDLE, _NO_FRACTION, 0, 0)
        magic, self._end, self._done, self._sequence, *_ = _ALL.unpack_from(self._map)
        if magic != _MAGIC:
            raise InternalError(f"{path} is no journal: the scratch folder was changed from outside, or the child wrote over its memory")

    @property
    def done(self) -> int:
        """How many items have a record."""
        return int(self._done)

    def close(self) -> None:
        """Give the file back."""
        self._map.close()
        os.close(self._file)

    def begin(self, index: int, last: int, calls: int, started: float) -> None:
        """Say which items are at work from now (``time.monotonic()``) on."""
        if self._reported:
            self._reported = False
            _PROGRESS.pack_into(self._map, 72, _NO_FRACTION, 0)
        self._sequence |= 1
        _AT_WORK.pack_into(self._map, 24, self._sequence, index, last, calls, started)

    def await_seen(self, index: int, limit: float = 10.0) -> None:
        """Wait until the worker has seen that this item is at work.

        Raises
        ------
        OSError
            It did not look for so many seconds.
        """
        until = time.monotonic() + limit
        while _SEEN.unpack_from(self._map, _SEEN_AT)[0] != index + 1:
            if time.monotonic() > until:
                raise TimeoutError("the worker does not look at the journal")
            time.sleep(0.002)

    def end(self) -> None:
        """No item is at work any more; its outcome, if it has one, is written."""
        self._sequence = (self._sequence | 1) + 1
        _ENDED.pack_into(self._map, 8, self._end, self._done, self._sequence)

    def set_state(self, state: State) -> None:
        """Say what the child is doing."""
        _STATE.pack_into(self._map, 64, state)

    def report(self, fraction: float, text: str) -> None:
        """How far the item at work is."""
        data = text.encode("utf-8", "replace")[:_LONGEST_TEXT]
        self._reported = True
        self._map[_TEXT_AT : _TEXT_AT + len(data)] = data
        _PROGRESS.pack_into(self._map, 72, fraction, len(data))

    @property
    def is_stopped(self) -> bool:
        """Whether the worker asked to begin no more items."""
        return self._map[88] != 0

    def write(self, index: int, succeeded: bool, started: float, figures: Figures, metrics: bytes, payload: bytes) -> None:
        """Append one outcome; it counts from the next :meth:`end` on.

        Raises
        ------
        OSError
            The disk of the scratch folder is full.
        """
        extra, parts = b"", 0
        if figures[4:] != _SHORT:
            parts, extra = _HAS_EXTENDED, _pack_extended(figures)
        if metrics:
            parts |= _HAS_METRICS
            extra += _SIZE.pack(len(metrics)) + metrics
        body = _RECORD.pack(0, len(payload), index, succeeded, figures[3], parts, started, figures[0], figures[1], figures[2])[4:] + extra
        at = HEADER + self._end
        middle = at + 4 + len(body)
        stop = middle + len(payload)
        if stop > self._limit:
            self._grow(stop)
        target = self._map
        target[at:middle] = _SIZE.pack(zlib.crc32(payload, zlib.crc32(body))) + body
        target[middle:stop] = payload
        self._end += stop - at
        self._done += 1

    def convict(self, index: int, started: float, figures: Figures, payload: bytes) -> None:
        """Append a verdict; for it there is some room on a full disk too."""
        self._limit = self._size
        try:
            self.write(index, False, started, figures, b"", payload)
            self.end()
        finally:
            self._limit = self._size - _RESERVE

    def _grow(self, needed: int) -> None:
        size = self.wanted = max(needed + _RESERVE, self._size + min(self._size, _LARGEST_STEP))
        # a hole would be a SIGBUS on a full disk, in the middle of somebody's item
        os.posix_fallocate(self._file, self._size, size - self._size)
        self._map.resize(size)
        self._size, self._limit = size, size - _RESERVE

    def scan(self) -> Iterator[Found]:
        """What is committed, oldest first, without the times of the attempts.

        Raises
        ------
        InternalError
            A checksum is wrong: user code wrote over the child's memory.
        """
        source, at, end = self._map, HEADER, HEADER + self._end
        unpack, checksum_of, fixed = _KNOWN.unpack_from, zlib.crc32, _RECORD.size
        while at < end:
            checksum, size, index, succeeded, measured, parts = unpack(source, at)
            body, extra = at + fixed, None
            if parts:
                *extra, body = _unpack_more(source, body, parts)
            stop = body + size
            whole = source[at + 4 : stop]
            if checksum_of(whole) != checksum:
                raise InternalError(f"the journal is damaged at byte {at}: the workload wrote over the memory of its process")
            yield at, index, succeeded != 0, measured, extra, whole[body - at - 4 :]
            at = stop

    def times(self, places: Sequence[int]) -> Any:
        """Started, duration, CPU user and system of the records at these bytes: a NumPy array of four columns, seconds."""
        import numpy as np

        view = np.frombuffer(self._map, np.uint8)
        wanted = np.asarray(places, np.int64)[:, np.newaxis] + np.arange(_KNOWN.size, _RECORD.size)
        return view[wanted].view(np.float64)  # copied: the map is not held by it

    def records(self) -> Iterator[Record]:
        """What is committed, oldest first.

        Raises
        ------
        InternalError
            As of :meth:`scan`.
        """
        for at, index, succeeded, measured, extra, payload in self.scan():
            started, *taken = _TIMES.unpack_from(self._map, at + _KNOWN.size)
            extended, metrics = extra or (_SHORT, b"")
            yield Record(index, succeeded, started, Figures._make((*taken, measured, *extended)), metrics, payload)


def read_index(journal: Journal) -> list[int]:
    """Which items have a record, in the order in which they got it."""
    return [index for _, index, *_ in journal.scan()]


def _pack_extended(figures: Figures) -> bytes:
    known = [_UNKNOWN if value is None else value for value in figures[4:]]
    return _EXTENDED.pack(*known)


def _unpack_more(source: mmap.mmap, at: int, parts: int) -> tuple[tuple[Any, ...], bytes, int]:
    """The extended part, the metrics, and where the payload begins."""
    extended: tuple[Any, ...] = _SHORT
    metrics = b""
    if parts & _HAS_EXTENDED:
        *values, leftovers, how = _EXTENDED.unpack_from(source, at)
        extended = (*(None if value == _UNKNOWN else value for value in values), leftovers, how)
        at += _EXTENDED.size
    if parts & _HAS_METRICS:
        (length,) = _SIZE.unpack_from(source, at)
        metrics = source[at + _SIZE.size : at + _SIZE.size + length]
        at += _SIZE.size + length
    return extended, metrics, at


class JournalView:
    """The header of a journal, read by the worker while the child writes; not mapped: who truncates a file kills all that map it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def read(self) -> Header:
        """What the child is at; consistent, because the sequence is the same before and after.

        Raises
        ------
        InternalError
            The file was truncated or written over.
        """
        for _ in range(_MOST_LOOKS):
            data = os.pread(self._file, _TEXT_AT + _LONGEST_TEXT, 0)
            again = os.pread(self._file, _SEQUENCE.size, 24)
            if len(data) < _TEXT_AT + _LONGEST_TEXT or len(again) < _SEQUENCE.size or not data.startswith(_MAGIC):
                raise self._damage()
            _, committed, done, sequence, index, last, calls, started, state, fraction, size, _ = _ALL.unpack_from(data)
            text = data[_TEXT_AT : _TEXT_AT + min(size, _LONGEST_TEXT)]
            if _SEQUENCE.unpack(again)[0] == sequence:
                break
        if os.fstat(self._file).st_size < HEADER + committed:
            raise self._damage()
        return Header(
            committed, done, sequence, index, last, calls, started, state,
            None if fraction < 0 else fraction, text.decode("utf-8", "replace"),
        )  # fmt: skip

    def _damage(self) -> InternalError:
        return InternalError(f"{self._path} is no journal any more: the workload truncated it or wrote over it")

    def acknowledge(self, header: Header) -> None:
        """Tell the child which item was seen at work, see :meth:`Journal.await_seen`."""
        os.pwrite(self._file, _SEEN.pack(header.index + 1 if header.at_work else 0), _SEEN_AT)

    def grow(self, size: int) -> bool:
        """Make the file so large; False where this process cannot either, so that the disk is to blame and no child."""
        try:
            os.posix_fallocate(self._file, 0, size)
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Ask the child to begin no more items."""
        os.pwrite(self._file, _STOP.pack(1), 88)

    def settle(self) -> None:
        """Note that no item is at work; for the time between the death of a child and its successor's first item."""
        sequence = self.read().sequence
        os.pwrite(self._file, _SEQUENCE.pack(sequence + (sequence & 1)), 24)
