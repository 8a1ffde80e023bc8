"""How far a program is, by what it prints."""

from __future__ import annotations

import pytest

from dcompute.worker.advance import Advance, Reader, reader_of

BLOCK = b"frame=25\nfps=0.0\nout_time_us=2500000\nout_time_ms=2500000\nout_time=00:00:02.500000\nspeed=13.5x\nprogress=continue\n"


def reader(progress: object) -> Reader:
    found = reader_of(progress)
    assert found is not None
    return found


def test_nobody_reads_where_nobody_asks() -> None:
    """Without progress= there is no reader."""
    assert reader_of(None) is None


def test_ffmpeg_is_measured_against_the_duration_it_says() -> None:
    """A block's out_time_us by the duration on stderr; blocks are not shown, other lines of stdout are."""
    watched = reader("ffmpeg")
    assert watched.take(2, b"  Duration: 00:00:10.00, start: 0.000000\n") == (b"  Duration: 00:00:10.00, start: 0.000000\n", None)
    shown, advance = watched.take(1, b"hello\n" + BLOCK)
    assert shown == b"hello\n"
    assert advance == Advance(0.25, "2.5 s of 10.0 s, 13.5x")
    assert watched.take(1, BLOCK.replace(b"continue", b"end"))[1] == Advance(1.0, "2.5 s of 10.0 s, 13.5x")


def test_ffmpeg_without_a_duration_says_where_it_is() -> None:
    """With no duration, as with -v error, there is the time in words."""
    assert reader("ffmpeg").take(1, BLOCK)[1] == Advance(0.0, "2.5 s, 13.5x")


def test_blocks_may_come_in_pieces() -> None:
    """A line is read when it is whole, whatever pieces the pipe gives, and the last one at the end."""
    watched, found = reader("ffmpeg"), []
    watched.take(2, b"Duration: 00:00:05.00,")
    watched.take(2, b"")
    for place in range(len(BLOCK)):
        shown, advance = watched.take(1, BLOCK[place : place + 1])
        assert shown == b""
        found += [advance] if advance else []
    assert found == [Advance(0.5, "2.5 s of 5.0 s, 13.5x")]


@pytest.mark.parametrize(
    ("pattern", "line", "fraction"),
    [
        (r"(?P<percent>[\d.]+)%", b"at 42.5%\n", 0.425),
        (r"(?P<percent>[\d.]+)%", b"at 250%\r", 1.0),
        (r"f=(?P<fraction>\S+)", b"f=0.25\n", 0.25),
        (r"(?P<done>\d+) of (?P<total>\d+)", b"3 of 4\n", 0.75),
    ],
)
def test_a_pattern_names_what_is_done(pattern: str, line: bytes, fraction: float) -> None:
    """Percent, fraction, or done and total; carriage returns end a line too, and the line is shown all the same."""
    shown, advance = reader(pattern).take(1, line)
    assert shown == line
    assert advance is not None
    assert advance.fraction == pytest.approx(fraction)


@pytest.mark.parametrize("line", [b"3 of 0\n", b"nothing\n", b"f=much\n", b"f=nan\n"])
def test_what_is_no_number_says_nothing(line: bytes) -> None:
    """A division by zero or a word fails no item."""
    pattern = r"(?P<done>\d+) of (?P<total>\d+)|f=(?P<fraction>\S+)"
    assert reader(pattern).take(1, line)[1] is None


def test_a_function_of_a_line_may_give_a_text() -> None:
    """A fraction, or a fraction with a text; None says nothing."""
    answers = {"a": 0.5, "b": (0.75, "most"), "c": None}
    watched = reader(answers.get)
    assert [watched.take(2, line)[1] for line in (b"a\n", b"b\n", b"c\n")] == [Advance(0.5, "a"), Advance(0.75, "most"), None]


def test_a_line_without_end_is_let_go() -> None:
    """What prints no line ends keeps no memory."""
    watched = reader("(?P<percent>x)")
    shown = sum(len(watched.take(1, b"y" * 10_000)[0]) for _ in range(10))
    assert shown >= 80_000
