"""The guardian: the small process that is the parent of all children of one Dask worker, and outlives neither.

It starts children, tells how they ended, and kills what is left of a child's tree, processes in sessions of their own too: on Linux it
is a subreaper, so that the orphans of a child that died become its own children. When the worker dies, by whatever signal, the
connection ends: the guardian kills everything below it, removes the scratch folders and exits. When the guardian dies, the children see
the end of a pipe whose other end only it held, and kill their trees and themselves.

It imports the standard library and two modules beside it, without the packages around them, and starts in a twentieth of a second.

==========  ===============================================  ==================================
it is told                                                   it answers
==========  ===============================================  ==================================
spawn       id, argv, env; files: stdout, stderr, control,   ``spawned`` (id, pid) or ``failed``
            and locks to hold
kill        id, grace: seconds it has to exit by itself      ``exited`` when the tree is dead
forget      path: a scratch folder that is gone
keep        path: a scratch folder to remove in the end
==========  ===============================================  ==================================
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import sys
import time
from typing import Any

from dcompute.worker import system
from dcompute.worker.pipes import Channel, Message

#: Run with ``-c``: the modules beside this one without what their packages import.
BOOTSTRAP = """
import sys, types
for name, path in (("dcompute", sys.argv[1]), ("dcompute.worker", sys.argv[2])):
    package = types.ModuleType(name)
    package.__path__ = [path]
    sys.modules[name] = package
from dcompute.worker.guardian import main
main(int(sys.argv[3]), int(sys.argv[4]))
"""

_IGNORED = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTSTP"))
_TICK = 1.0


def main(descriptor: int, worker: int) -> None:
    """Serve one worker process until it is gone."""
    os.set_inheritable(descriptor, False)
    Guardian(Channel(socket.socket(fileno=descriptor)), worker).serve()


class Guardian:
    """The state of the process: which children live, which are to be killed when."""

    def __init__(self, channel: Channel, worker: int) -> None:
        self._channel = channel
        self._worker = worker
        self._pids: dict[int, int] = {}  # pid -> id
        self._deadlines: dict[int, float] = {}  # pid -> when it is killed
        self._locks: dict[int, list[int]] = {}  # pid -> files that are held until its tree is dead
        self._folders: set[str] = set()
        self._null = os.open(os.devnull, os.O_RDONLY)
        # held by this process alone: its end tells the children that the guardian is gone
        self._life, self._held = os.pipe()
        self._wake, wake = os.pipe()
        for end in (self._wake, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        for number in _IGNORED:
            signal.signal(number, _nothing)
        self.is_subreaper = system.become_subreaper()
        system.wake_when_parent_ends()

    def serve(self) -> None:
        """Work until the worker is gone, then leave nothing behind."""
        watched: list[Any] = [self._channel, self._wake]
        process = system.open_process(self._worker)
        if process is not None:
            watched.append(process)
        while not self._channel.closed:
            ready, _, _ = select.select(watched, [], [], self._patience())
            if process in ready or os.getppid() != self._worker:
                break
            if self._wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
            for message in self._channel.receive():
                self._handle(message)
            self._kill_late()
            self._reap()
        self._leave()

    def _patience(self) -> float:
        if not self._deadlines:
            return _TICK
        return min(_TICK, max(0.0, min(self._deadlines.values()) - time.monotonic()))

    def _handle(self, message: Message) -> None:
        operation = message["op"]
        if operation == "spawn":
            self._spawn(message)
        elif operation == "keep":
            self._folders.add(message["path"])
        elif operation == "forget":
            self._folders.discard(message["path"])
        else:
            pid = next((pid for pid, number in self._pids.items() if number == message["id"]), None)
            if pid is not None:
                self._deadlines[pid] = time.monotonic() + message.get("grace", 0.0)

    def _spawn(self, message: Message) -> None:
        # first to numbers that the moves to the low ones do not write over
        streams, locks = message.files[:3], message.files[3:]
        wanted = (self._null, *streams, self._life, *locks)
        files = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 16 + len(wanted)) for one in wanted]
        actions = [(os.POSIX_SPAWN_DUP2, old, new) for new, old in enumerate(files)]
        try:
            pid = os.posix_spawn(
                message["argv"][0], message["argv"], message["env"], file_actions=actions, setsid=True, setsigmask=(), setsigdef=_defaults()
            )
        except OSError as error:
            self._say({"op": "failed", "id": message["id"], "text": str(error)})
            streams += locks
        else:
            self._pids[pid], self._locks[pid] = message["id"], locks
            self._say({"op": "spawned", "id": message["id"], "pid": pid})
        for descriptor in (*files, *streams):
            os.close(descriptor)

    def _kill_late(self) -> None:
        now = time.monotonic()
        for pid, deadline in list(self._deadlines.items()):
            if deadline <= now:
                # again each tick: what it starts between two looks would be left
                self._deadlines[pid] = now + 0.05
                system.kill(pid, group=True)
                system.kill(pid)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self._pids.pop(pid, None)
            self._deadlines.pop(pid, None)
            if number is None:
                continue
            system.kill(pid, group=True)
            swept = system.kill_below(os.getpid(), spare=self._pids)
            for lock in self._locks.pop(pid, ()):
                os.close(lock)
            self._say({"op": "exited", "id": number, "status": status, "peak": usage.ru_maxrss, "swept": swept})

    def _say(self, header: dict[str, Any]) -> None:
        # a worker that is gone is noticed at the end of its connection
        with contextlib.suppress(OSError):
            self._channel.send(header)

    def _leave(self) -> None:
        for pid in self._pids:
            system.kill(pid, group=True)
        system.kill_below(os.getpid())
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


def _defaults() -> list[int]:
    return [signal.SIGPIPE, *(getattr(signal, name) for name in ("SIGXFSZ",) if hasattr(signal, name)), *_IGNORED, signal.SIGCHLD]


def _nothing(_signal: int, _frame: object) -> None:
    """A handler, unlike an ignored signal, is not inherited by children."""


if __name__ == "__main__":
    sys.exit("the guardian is started by dcompute's workers")
