"""Who printed what, in bounded memory, however the stream is cut."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from dcompute.worker.output import END, Bounded, Capture, drain, log_lines, mark, new_token


@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(1, 50))
def test_cut_anywhere_gives_the_same(printed, step):
    """Marks are found however the stream is cut into reads."""
    token = b"\0dcompute:1234:"
    stream = b"".join(data + mark(token, index) for index, data in enumerate(printed)) + b"nobody's" + mark(token, END)
    capture = Capture(token)
    for start in range(0, len(stream), step):
        capture.add(stream[start : start + step])
    assert capture.ended
    expected = {index: data.decode("utf-8", "backslashreplace") for index, data in enumerate(printed) if data}
    assert capture.take() == expected


def test_head_and_tail_are_kept():
    """Of a long stream the beginning and the end are kept, with a line that says how much is missing."""
    bounded = Bounded(head=4, tail=4)
    for start in range(0, 1000, 7):
        bounded.add(b"".join(b"%04d" % number for number in range(start, min(1000, start + 7))))
    assert bounded.text() == "0000\n... 3992 bytes left out ...\n0999"
    assert len(bounded._tail) <= 32


def test_nothing_is_left_out_of_what_fits():
    """Head and tail together are the whole text where it fits both."""
    bounded = Bounded(head=4, tail=4)
    bounded.add(b"abcdefgh")
    assert bounded.text() == "abcdefgh"


def test_broken_stream_belongs_to_the_item_at_work():
    """What a crashed item printed last is its own, also where it looks like the start of a mark."""
    token = new_token()
    capture = Capture(token)
    capture.add(b"first" + mark(token, 0) + b"second" + token[:5])
    capture.flush(1)
    assert capture.take() == {0: "first", 1: "second" + token[:5].decode()}


def test_batch_has_an_allowance():
    """When a batch printed more than is kept, later items' text is replaced by a line."""
    token = new_token()
    capture = Capture(token, allowance=10)
    capture.add(b"12345678" + mark(token, 0) + b"12345678" + mark(token, 1) + b"12" + mark(token, 2))
    texts = capture.take()
    assert texts[0] == "12345678"
    assert texts[1].startswith("... 8 bytes left out")
    assert texts[2] == "12"


def test_drain_never_blocks():
    """Reading ends where nothing is there, and says when the stream ended."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    capture = Capture(b"token")
    assert drain(reading, capture)
    os.write(writing, b"text")
    assert drain(reading, capture)
    os.close(writing)
    assert not drain(reading, capture)
    os.close(reading)
    capture.flush(0)
    assert capture.take() == {0: "text"}


def test_log_is_bounded():
    """The worker's log gets so many characters of a batch at most."""
    shown = log_lines(((str(number), "z" * 400) for number in range(1000)), limit=1000)
    assert len(shown) < 2000
    assert shown.startswith("[0] zzz")
