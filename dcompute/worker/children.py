"""The worker's side of the guardian and of each child: start, talk, watch, kill."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcompute.errors import ClusterError
from dcompute.worker import guardian, output, pipes, system
from dcompute.worker.holdings import Cores, Loan
from dcompute.worker.pipes import Channel, Message

#: Seconds that a process may take to start, and a killed one to be gone.
START_TIMEOUT, DEATH_TIMEOUT = 60.0, 30.0
#: Seconds that a guardian without a worker gets to end what is below it, before it is killed: one that was stopped never does.
CLOSE_TIMEOUT = 2.0
#: Seconds that a child without work gets to run its exit handlers.
GRACE = 2.0
#: Children without work that stay when a child of another run is needed.
MOST_IDLE = 16
#: In the environment of every process below a child: what finds them when those who knew the tree are dead.
MARK = "DCOMPUTE_TREE"

_BOOTSTRAP = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from dcompute.worker.child import main; main(*sys.argv[2:])"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended."""

    code: int | None  #: exit code
    signal: int | None  #: the signal that ended it
    guardian_died: bool = False  #: it was killed because the guardian was gone


class Process:
    """A process that the guardian started, seen from the worker."""

    def __init__(self, number: int, gone: Callable[[], None] = lambda: None) -> None:
        self.number = number
        self._gone = gone
        self.pid = 0
        self.problem = ""
        self.exit: Exit | None = None
        self.started = threading.Event()
        self.ended = threading.Event()

    def end(self, exit_: Exit) -> None:
        """It is gone, with its tree."""
        self.exit = self.exit or exit_
        self._gone()
        self.started.set()
        self.ended.set()


class GuardianHandle:
    """A running guardian. When it dies, all its children are killed by this process, and :attr:`is_alive` is False."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(12)
        self.is_alive = True
        self._lock = threading.Lock()
        self._processes: dict[int, Process] = {}
        self._next = 0
        mine, its = pipes.pair()
        here = Path(__file__).resolve().parent
        arguments = [str(here.parent), str(here), str(its.fileno()), str(os.getpid())]
        try:
            self._process = subprocess.Popen(  # noqa: S603  this interpreter, with our own text
                [sys.executable, "-I", "-S", "-c", guardian.BOOTSTRAP, *arguments],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=(its.fileno(),), start_new_session=True, cwd="/",
            )  # fmt: skip
        except OSError as error:
            raise ClusterError(f"no process can be started on this worker: {error}. Look at its limits (ulimit -u, memory).") from error
        finally:
            its.close()
        self._channel = Channel(mine)
        self._reader = threading.Thread(target=self._read, name="dcompute-guardian", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Id of the guardian process."""
        return self._process.pid

    def spawn(
        self, arguments: Sequence[str], environment: Mapping[str, str], files: Sequence[int], *, gone: Callable[[], None] = lambda: None
    ) -> Process:
        """Start a child with these files as its stdout, stderr and control connection, and as locks that it and the guardian hold.

        ``gone`` is called when its tree is dead.

        Raises
        ------
        ClusterError
            It could not be started.
        """
        with self._lock:
            self._next += 1
            process = self._processes[self._next] = Process(self._next, gone)
        self._say({"op": "spawn", "id": process.number, "argv": list(arguments), "env": {**environment, MARK: self.token}}, files)
        if not self.is_alive:
            process.problem = "the guardian was killed"
        elif not process.started.wait(START_TIMEOUT):
            process.problem = f"the guardian did not answer within {START_TIMEOUT:g} s"
            self.destroy()
        if process.problem:
            raise ClusterError(f"no child could be started on this worker: {process.problem}")
        return process

    def kill(self, process: Process, grace: float = 0.0) -> None:
        """Kill a child's tree, after it had so many seconds to exit; returns at once."""
        self._say({"op": "kill", "id": process.number, "grace": grace})

    def keep(self, folder: str) -> None:
        """Have a folder removed when this process is dead."""
        self._say({"op": "keep", "path": folder})

    def close(self) -> None:
        """Kill all children and end the guardian; waits for it, a few seconds where it does not answer."""
        with contextlib.suppress(OSError):
            self._channel.shutdown()
        self._reader.join(DEATH_TIMEOUT)

    def destroy(self) -> None:
        """End a guardian that does not answer; its children are lost with it."""
        self._process.kill()

    def _say(self, header: dict[str, Any], files: Sequence[int] = ()) -> None:
        # a guardian that is gone is noticed by the reader, which ends all its processes
        with self._lock, contextlib.suppress(OSError):
            self._channel.send(header, files=files)

    def _read(self) -> None:
        while (message := self._channel.next()) is not None:
            self._hear(message)
        self._lose()

    def _hear(self, message: Message) -> None:
        with self._lock:
            process = self._processes[message["id"]]
            if message["op"] != "spawned":
                del self._processes[message["id"]]
        if message["op"] == "spawned":
            process.pid = message["pid"]
            process.started.set()
        elif message["op"] == "failed":
            process.problem = message["text"]
            process.started.set()
        else:
            code = os.waitstatus_to_exitcode(message["status"])
            process.end(Exit(code, None) if code >= 0 else Exit(None, -code))

    def _lose(self) -> None:
        self.is_alive = False
        with self._lock:
            lost = list(self._processes.values())
            self._processes.clear()
        for process in lost:
            # below first: orphans of a dead child would be nobody's
            system.kill_below(process.pid)
            system.kill(process.pid, group=True)
        if not (ended := self._has_ended(CLOSE_TIMEOUT)):
            self.destroy()
        if lost or not ended:
            system.kill_marked(f"{MARK}={self.token}".encode())
        for process in lost:
            process.problem = "the guardian was killed"
            process.end(Exit(None, 9, guardian_died=True))
        self._channel.close()
        self._has_ended(DEATH_TIMEOUT)

    def _has_ended(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None


class Child:
    """One child process: its connection, its streams, which run it serves, and what it has of the machine.

    Parameters
    ----------
    owner
        That starts it.
    identity
        Children with the same one are interchangeable.
    environment
        Variables that it has beside the worker's.
    loan
        The devices that it has; given back when its tree is dead, or where it cannot be started.
    """

    def __init__(
        self, owner: GuardianHandle, identity: tuple[str, ...], *, environment: Mapping[str, str] | None = None, loan: Loan | None = None
    ) -> None:
        self.identity = identity
        self.owner = owner
        self.loan = loan = loan or Loan()
        self.cores = Cores()
        self.is_ready = False  # its set-up is done
        self.calls = 0  # calls of user code it has made
        self.setup_memory = 0
        self.idle_since = 0.0
        self.held = 0  # bytes, when it began to wait
        self.killed_for: str | None = None
        self.oom_kills = system.oom_kills()
        self.token = output.new_token()
        mine, its = pipes.pair()
        self._streams = [os.pipe() for _ in range(2)]
        try:
            flags, here = _interpreter_flags(), os.getcwd()  # noqa: PTH109  as text
            arguments = [sys.executable, *flags, "-c", _BOOTSTRAP, json.dumps(sys.path), here, str(len(loan.locks))]
            files = [self._streams[0][1], self._streams[1][1], its.fileno(), *loan.locks]
            self.process = owner.spawn(arguments, {**os.environ, **(environment or {}), **loan.environment}, files, gone=self._gone)
        except BaseException:
            loan.give_back()
            mine.close()
            for end, _ in self._streams:
                os.close(end)
            raise
        finally:
            its.close()
            for _, end in self._streams:
                os.close(end)
        # Python's own timeout would make reads wait as well
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(START_TIMEOUT), 0))
        self.channel = Channel(mine)
        self.stdout, self.stderr = (end for end, _ in self._streams)
        self._open = {self.stdout, self.stderr}
        self._talks = True
        self._poll = select.poll()
        self._poll.register(self.channel.fileno(), select.POLLIN)
        for end in self._open:
            os.set_blocking(end, False)
            self._poll.register(end, select.POLLIN)

    def _gone(self) -> None:
        self.loan.give_back()
        self.cores.give_back()

    def bind(self, cores: Cores) -> None:
        """Let it use these cores only; they are given back with the batch, or when it is gone."""
        self.cores.give_back()
        self.cores = cores
        if self.exit is not None:
            cores.give_back()
        elif cores.numbers:
            system.bind(self.pid, cores.numbers)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it lives."""
        return self.process.exit

    def send(self, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Tell it something; a child that is gone is noticed when the answer is awaited."""
        with contextlib.suppress(OSError):
            self.channel.send({**header, "token": self.token.decode("latin-1")}, blobs)

    def wait(self, seconds: float, captures: Sequence[output.Capture | None]) -> list[Message]:
        """What it says within so many seconds, or as soon as it says something; its streams are drained meanwhile."""
        self.listen(seconds, captures)
        messages = self.channel.receive()
        if self.channel.closed and self._talks:
            self._talks = False
            self._poll.unregister(self.channel.fileno())
        return messages

    def listen(self, seconds: float, captures: Sequence[output.Capture | None]) -> None:
        """Wait until it says, prints or is something else, at most so many seconds, and take what it printed."""
        if self._talks or self._open:
            self._poll.poll(seconds * 1000)
        else:
            self.process.ended.wait(seconds)
        self.drain(captures)

    def drain(self, captures: Sequence[output.Capture | None]) -> None:
        """Take what it printed."""
        for descriptor, capture in zip((self.stdout, self.stderr), captures, strict=True):
            if descriptor in self._open and not output.drain(descriptor, capture):
                self._open.discard(descriptor)
                self._poll.unregister(descriptor)

    def memory(self, limit: int | None = None) -> int:
        """Bytes that its tree holds; exact where a sum of processes that share pages would be over the limit."""
        tree = [self.pid, *system.descendants(self.pid)]
        held = system.memory(tree)
        if limit is not None and held > limit and len(tree) > 1:
            return system.shared_memory(tree)
        return held

    def kill(self, reason: str) -> None:
        """Kill its tree and wait until it is gone."""
        self.killed_for = self.killed_for or reason
        if self.exit is None:
            self.owner.kill(self.process)

    def retire(self) -> None:
        """Let it exit by itself within a moment, else be killed; returns at once."""
        self.close()
        if self.exit is None:
            self.owner.kill(self.process, GRACE)

    def close(self) -> None:
        """Give up its connection and streams."""
        self.channel.close()
        for end in (self.stdout, self.stderr):
            with contextlib.suppress(OSError):
                os.close(end)


class Idle:
    """Children without work, those of several runs while they take little; safe for threads.

    Parameters
    ----------
    most_memory
        Bytes that they may hold together, and still stay when a child of another run is needed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, most_memory: int = 0) -> None:
        self._children: list[Child] = []
        self._most_memory = most_memory
        self._lock = threading.Lock()
        self._clock = clock

    def take(self, identity: tuple[str, ...], *, ends_another: bool = True) -> Child | None:
        """A warm child of this run; where there is none, those of other runs end that are too many."""
        with self._lock:
            matching = [child for child in self._children if child.identity == identity and child.exit is None]
            chosen = matching[-1] if matching else None
            ending = [] if chosen or not ends_another else self._surplus()
            self._children = [child for child in self._children if child is not chosen and child not in ending]
        for child in ending:
            child.retire()
        return chosen

    def _surplus(self) -> list[Child]:
        """Those that waited longest, until what is left is not too many and holds not too much."""
        kept: list[Child] = []
        for child in reversed(self._children):
            if len(kept) >= MOST_IDLE or sum(one.held for one in kept) + child.held > self._most_memory:
                break
            kept.append(child)
        return self._children[: len(self._children) - len(kept)]

    def put(self, child: Child, held: int = 0) -> None:
        """Keep a child for the next batch of its run; ``held``: bytes that it holds."""
        child.idle_since, child.held = self._clock(), held
        with self._lock:
            self._children.append(child)

    def end_one_with_devices(self) -> bool:
        """End the one of those that have devices which waits longest; False where there is none."""
        with self._lock:
            ending = [child for child in self._children if child.loan.devices][:1]
            self._children = [child for child in self._children if child not in ending]
        for child in ending:
            child.retire()
        return bool(ending)

    def retire(self, older_than: float = 0.0) -> None:
        """End those that had no work for so many seconds."""
        limit = self._clock() - older_than
        with self._lock:
            ending = [child for child in self._children if child.idle_since <= limit or child.exit is not None]
            self._children = [child for child in self._children if child not in ending]
        for child in ending:
            child.retire()

    def end(self, run: str) -> None:
        """End those of one run."""
        with self._lock:
            ending = [child for child in self._children if child.identity[0] == run]
            self._children = [child for child in self._children if child not in ending]
        for child in ending:
            child.retire()

    def __len__(self) -> int:
        return len(self._children)


def _interpreter_flags() -> list[str]:
    """Flags with which this interpreter was started, as ``multiprocessing`` hands them on."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags
