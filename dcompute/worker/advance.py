"""How far a program is, as far as what it prints tells. Pure: lines in, fractions out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

#: Bytes of one line that are looked at.
LONGEST_LINE = 16 << 10

_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
_PAIR = re.compile(r"([a-z][a-z0-9_]*)=\s*(\S*)")


class Advance(NamedTuple):
    """How far it is."""

    fraction: float  #: from 0 to 1
    text: str = ""


Told = Callable[[str], "Advance | None"]


def reader_of(progress: Any) -> Reader | None:
    """What reads the lines of a program; None where nobody wants to know.

    Parameters
    ----------
    progress
        ``"ffmpeg"``, a regular expression with named groups, or a function of a line.
    """
    if progress is None:
        return None
    if progress == "ffmpeg":
        told = Ffmpeg()
        return Reader(told, told.is_its)
    return Reader(_by_function(progress) if callable(progress) else _by_pattern(re.compile(progress)), None)


class Reader:
    """Cuts what a program prints into lines and asks of each how far it is.

    Parameters
    ----------
    told
        How far the program is, of a line.
    is_its
        Whether a line was printed for the progress alone, so that nobody need see it.
    """

    def __init__(self, told: Told, is_its: Callable[[str], bool] | None) -> None:
        self._told = told
        self._is_its = is_its
        self._pending = {1: b"", 2: b""}

    def take(self, stream: int, data: bytes) -> tuple[bytes, Advance | None]:
        """What is left of some output for people to see, and how far the program is by it; ``b""`` ends the stream."""
        waiting = self._pending[stream] + data
        end = max(waiting.rfind(b"\n"), waiting.rfind(b"\r")) + 1 if data else len(waiting)
        if not end and len(waiting) > LONGEST_LINE:
            end = len(waiting)
        self._pending[stream] = waiting[end:]
        shown, latest = [], None
        for line in re.split(rb"(?<=[\r\n])", waiting[:end]):
            text = line[:LONGEST_LINE].decode("utf-8", "replace").strip()
            latest = (self._told(text) if text else None) or latest
            if stream != 1 or self._is_its is None or not self._is_its(text):
                shown.append(line)
        return b"".join(shown), latest


class Ffmpeg:
    """Reads ``-progress pipe:1`` and the duration that ffmpeg says of its (longest) input."""

    KEYS = frozenset(
        {
            "frame",
            "fps",
            "bitrate",
            "total_size",
            "out_time_us",
            "out_time_ms",
            "out_time",
            "dup_frames",
            "drop_frames",
            "speed",
            "progress",
        }
    )

    def __init__(self) -> None:
        self._seconds = 0.0
        self._at = 0.0
        self._speed = ""

    def is_its(self, line: str) -> bool:
        """Whether a line is of a progress block."""
        found = _PAIR.fullmatch(line)
        return found is not None and (found[1] in self.KEYS or found[1].startswith("stream_"))

    def __call__(self, line: str) -> Advance | None:
        """How far it is at the end of a block."""
        if found := _DURATION.search(line):
            hours, minutes, seconds = found.groups()
            self._seconds = max(self._seconds, 3600 * int(hours) + 60 * int(minutes) + float(seconds))
            return None
        found = _PAIR.fullmatch(line)
        if found is None:
            return None
        name, value = found.groups()
        if name == "out_time_us" and value.isdigit():
            self._at = int(value) / 1e6
        elif name == "speed":
            self._speed = value
        elif name == "progress":
            return self._advance(is_end=value == "end")
        return None

    def _advance(self, *, is_end: bool) -> Advance:
        text = f"{self._at:.1f} s" + (f" of {self._seconds:.1f} s" if self._seconds else "") + (f", {self._speed}" if self._speed else "")
        fraction = 1.0 if is_end else min(1.0, self._at / self._seconds) if self._seconds else 0.0
        return Advance(fraction, text)


def _by_pattern(pattern: re.Pattern[str]) -> Told:
    def told(line: str) -> Advance | None:
        found = pattern.search(line)
        if found is None:
            return None
        groups = found.groupdict()
        try:
            return Advance(_bounded(_share(groups)), line[:200])
        except (TypeError, ValueError, ZeroDivisionError):  # a group that did not match, or no number
            return None

    return told


def _share(groups: dict[str, Any]) -> float:
    if groups.get("fraction") is not None:
        return float(groups["fraction"])
    if groups.get("percent") is not None:
        return float(groups["percent"]) / 100
    return float(groups["done"]) / float(groups["total"])


def _by_function(function: Callable[[str], Any]) -> Told:
    def told(line: str) -> Advance | None:
        found = function(line)
        if found is None:
            return None
        fraction, text = found if isinstance(found, tuple) else (found, line[:200])
        return Advance(_bounded(float(fraction)), str(text))

    return told


def _bounded(fraction: float) -> float:
    if fraction != fraction:  # not a number
        raise ValueError(fraction)
    return min(1.0, max(0.0, fraction))
