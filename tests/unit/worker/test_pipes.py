"""Messages arrive whole, in their order, with their blobs and files, however the stream is cut."""

from __future__ import annotations

import os

import pytest

from dcompute.worker.pipes import Channel, pair


@pytest.fixture
def ends():
    first, second = pair()
    channels = Channel(first), Channel(second)
    yield channels
    for channel in channels:
        channel.close()


def test_message_with_blobs(ends):
    """A header and its blobs come as they went, text that is no Unicode too."""
    here, there = ends
    here.send({"op": "a", "text": "ü\udcff"}, [b"", b"x" * 1000])
    here.send({"op": "b"})
    first, second = there.receive()
    assert (first, first.blobs) == ({"op": "a", "text": "ü\udcff"}, [b"", b"x" * 1000])
    assert second["op"] == "b"


def test_half_a_message_is_none(ends):
    """What is not complete waits, and blocks nobody."""
    here, there = ends
    here.send({"op": "a"}, [b"12345"])
    whole = there._socket.recv(1000)
    there._buffer += whole[:-1]
    assert there.receive() == []
    there._buffer += whole[-1:]
    assert there.receive()[0].blobs == [b"12345"]


@pytest.mark.parametrize(
    "data",
    [b"\x00\x00\x00\x05hello", b"\x00\x00\x00\x03[1]", b"\x00\x00\x00\x02{}", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x04" + b"\xff" * 4],
)
def test_what_is_no_message_ends_the_stream(ends, data):
    """Bytes that are no message end the connection for whoever reads them, and raise nothing."""
    here, there = ends
    here._socket.sendall(data)
    assert there.receive() == []
    assert there.closed
    assert there.next() is None


def test_files_travel_with_their_message(ends):
    """An open file arrives with the message that announced it, closed on exec."""
    here, there = ends
    reading, writing = os.pipe()
    here.send({"op": "none"})
    here.send({"op": "file"}, files=[writing])
    os.close(writing)
    first, second = there.receive()
    assert first.files == []
    (arrived,) = second.files
    assert not os.get_inheritable(arrived)
    os.write(arrived, b"through")
    os.close(arrived)
    assert os.read(reading, 100) == b"through"
    os.close(reading)


def test_end_of_the_stream(ends):
    """The other end's death ends the waiting, after what it said before."""
    here, there = ends
    here.send({"op": "last"})
    here.close()
    assert there.next() == {"op": "last"}
    assert there.next() is None
    assert there.closed
