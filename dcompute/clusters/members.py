"""Processes of a cluster, here or on other hosts, that end when the program does that started them."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO, Any

from dcompute.errors import ClusterError

log = logging.getLogger("dcompute.clusters")

#: Lines of what a member said that an error shows.
_LINES = 15
#: Seconds after which a member that was told to end is killed.
_END_SECONDS = 15.0


class Member:
    """One process that is a scheduler or some workers; see ``member.py``.

    Parameters
    ----------
    where
        The host, for messages.
    command
        What starts it.
    order
        What it is to be.
    """

    def __init__(self, where: str, command: Sequence[str], order: Mapping[str, Any]) -> None:
        self.where = where
        self._said: deque[str] = deque(maxlen=_LINES)
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        try:
            # a session of its own: Ctrl-C is for the program, which commits what is done while its workers are still there
            self._process = subprocess.Popen(  # noqa: S603  the command is ours
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise ClusterError(f"{command[0]} cannot be started: {error}") from error
        self._readers = [
            threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._note, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        with contextlib.suppress(OSError):  # one that ended at once has said why
            self._input.write(json.dumps(order).encode() + b"\n")
            self._input.flush()

    def answer(self, until: float) -> dict[str, Any]:
        """What it says of itself when it is ready.

        Raises
        ------
        ClusterError
            It ended, or is not ready at that time (monotonic).
        """
        while True:
            try:
                line = self._answers.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise ClusterError(f"{self.where}: nothing was ready in time. {self._words()}") from None
            answer = _answer_in(line)
            if answer is not None:
                break
            if not line:
                answer = {"error": f"it ended with code {self._code()}"}
                break
            self._said.append(line.rstrip())  # what a login on that host says to everybody
        if "error" in answer:
            raise ClusterError(f"{self.where}: {answer['error']}. {self._words()}")
        return answer

    def end(self) -> None:
        """Have it end, and not wait for that."""
        with contextlib.suppress(OSError, ValueError):
            self._input.close()

    def close(self) -> None:
        """Have it end, by force where need be."""
        self.end()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(1)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _listen(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in stream:
                self._answers.put(line.decode(errors="replace"))
        self._answers.put("")

    def _note(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in stream:
                text = line.decode(errors="replace").rstrip()
                self._said.append(text)
                log.debug("%s: %s", self.where, text)

    def _code(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(1)
        return None

    def _words(self) -> str:
        self._readers[1].join(0.5)
        return "It said:\n" + "\n".join(self._said) if self._said else "It said nothing"


def _answer_in(line: str) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict) and "dcompute" in found:
            return found
    return None


class Members:
    """All members of one cluster: they end together."""

    def __init__(self) -> None:
        self._all: list[Member] = []

    def add(self, where: str, command: Sequence[str], order: Mapping[str, Any]) -> Member:
        """Start one more."""
        member = Member(where, command, order)
        self._all.append(member)
        return member

    def close(self) -> None:
        """End all of them, workers first: they write what is finished, and their scheduler still hears of it."""
        scheduler, workers = self._all[:1], self._all[1:]
        for together in (workers, scheduler):
            for member in together:
                member.end()
            for member in together:
                member.close()
        self._all.clear()


def started(members: Members, scheduler: tuple[str, Sequence[str], dict[str, Any]], workers: Any, *, timeout: float) -> str:
    """Start a scheduler, then workers that know its address; its address.

    Parameters
    ----------
    members
        Where they are added; all are ended where one does not start.
    scheduler
        Host, command and order.
    workers
        The same of each host of workers.
    timeout
        Seconds that all of it may take.

    Raises
    ------
    ClusterError
        One of them did not start; says where and why.
    """
    until = time.monotonic() + timeout
    try:
        address = str(members.add(*scheduler).answer(until)["address"])
        others = [members.add(where, command, {**order, "scheduler": address}) for where, command, order in workers]
        for other in others:
            other.answer(until)
    except BaseException:
        members.close()
        raise
    return address
