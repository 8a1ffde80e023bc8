"""Framed messages between two processes over a socket: JSON, blobs of bytes and open files.

A frame is its header's length, the header as JSON, and the blobs it announces. Standard library only: the guardian imports this too.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

_LENGTH = struct.Struct("!I")
_MOST_FILES = 128
_CHUNK = 1 << 18
_MOST_CHUNKS = 256
#: Bytes of a header; a longer one is none.
_LONGEST = 1 << 30


class Message(dict[str, Any]):
    """A header as it came, with what travelled beside it."""

    def __init__(self, header: dict[str, Any], blobs: list[bytes], files: list[int]) -> None:
        super().__init__(header)
        self.blobs = blobs
        self.files = files


class Channel:
    """One end of a connection; :meth:`receive` never blocks, :meth:`next` does."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = bytearray()
        self._files: list[int] = []
        self.closed = False
        self.heard = time.monotonic()  # when bytes came last

    def fileno(self) -> int:
        """For ``select``."""
        return self._socket.fileno()

    @property
    def is_partial(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer)

    def close(self) -> None:
        """Close this end; the other one sees the end of the stream."""
        self.closed = True
        self._socket.close()

    def shutdown(self) -> None:
        """End the stream in both directions, from any thread; whoever waits in :meth:`next` sees its end."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, header: dict[str, Any], blobs: Sequence[bytes] = (), files: Sequence[int] = ()) -> None:
        """Send one message; blocks until the other end took it.

        Raises
        ------
        OSError
            The other end is gone.
        """
        text = json.dumps({**header, "_blobs": [len(blob) for blob in blobs], "_files": len(files)}).encode()
        head = _LENGTH.pack(len(text)) + text
        if files:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
            head = head[self._socket.sendmsg([head], rights) :]
        self._socket.sendall(head)
        for blob in blobs:
            self._socket.sendall(blob)

    def receive(self) -> list[Message]:
        """The messages that are complete by now; :attr:`closed` turns true at the end of the stream, or where it is no message."""
        for _ in range(_MOST_CHUNKS):  # one who never stops writing is not listened to for ever
            if self.closed or not self._read(socket.MSG_DONTWAIT):
                break
        messages = []
        while (message := self._cut()) is not None:
            messages.append(message)
        return messages

    def next(self) -> Message | None:
        """The next message, waiting for it; None at the end of the stream."""
        while (message := self._cut()) is None:
            if self.closed or not self._read(0):
                return None
        return message

    def _read(self, flags: int) -> bool:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_CHUNK, socket.CMSG_SPACE(4 * _MOST_FILES), flags)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data, ancillary = b"", []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                files = array.array("i", content[: len(content) - len(content) % 4]).tolist()
                for file in files:
                    os.set_inheritable(file, False)
                self._files += files
        self.closed = self.closed or not data
        self._buffer += data
        self.heard = time.monotonic()
        return bool(data)

    def _cut(self) -> Message | None:
        try:
            return self._cut_whole()
        except (ValueError, TypeError, LookupError, RecursionError):  # nobody can say where the next message would begin
            self._buffer.clear()
            self.closed = True
            return None

    def _cut_whole(self) -> Message | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > _LONGEST:
            raise ValueError(f"a header of {length} bytes")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        header = json.loads(self._buffer[_LENGTH.size : end])
        sizes, count = [int(size) for size in header["_blobs"]], int(header["_files"])
        if min(sizes, default=0) < 0 or count < 0 or not isinstance(header["op"], str):
            raise ValueError("no message")
        del header["_blobs"], header["_files"]
        if len(self._buffer) < end + sum(sizes):
            return None
        blobs = []
        for size in sizes:
            blobs.append(bytes(self._buffer[end : end + size]))
            end += size
        del self._buffer[:end]
        files, self._files = self._files[:count], self._files[count:]
        return Message(header, blobs, files)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; neither outlives an ``exec`` unless it is handed on."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
