"""The child: a warm process that executes batches of one run, one after another.

It is started with its worker's ``sys.path``, environment and working directory, in a session of its own. File 3 is its connection to the
worker, file 4 ends when the guardian does; then it kills all below it and itself. Files from 5 on are locks that it holds as long as it is
there: claims of its devices. All move to numbers that no user code meets by accident.

========  ================================================  ==========================================================
is told   with                                              answers
========  ================================================  ==========================================================
setup     the run, settings of storages, its devices        ``ready`` or ``failed`` (stage, text, traceback)
batch     the batch, journal, verdicts                      ``executed``, ``unreadable`` (the values) or ``full`` (the disk)
finish    the run without its code, the batch, the journal  ``finished`` (receipt, files), ``nothing``, ``full`` or ``failed``
========  ================================================  ==========================================================
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import json
import os
import pickle
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from dcompute.records import BatchSpec, RunSpec
from dcompute.worker import attempt, profiles, scratch, system
from dcompute.worker.caretaker import Caretaker
from dcompute.worker.finish import Finisher, Surroundings
from dcompute.worker.journal import Figures, Journal, State
from dcompute.worker.loop import Loop, Process, convict, open_checks
from dcompute.worker.pipes import Channel, Message
from dcompute.worker.streams import Streams
from dcompute.worker.work import files_folder

CONTROL, LIFE, LOCKS = 3, 4, 5


def main(folder: str, locks: str = "0") -> None:
    """Serve the worker until it closes the connection."""
    control, life = _move_away(CONTROL), _move_away(LIFE)
    for number in range(int(locks)):
        _move_away(LOCKS + number)
    system.become_subreaper()
    system.offer_to_oom_killer()
    threading.Thread(target=_die_with_guardian, args=(life,), name="dcompute-guardian", daemon=True).start()
    with contextlib.suppress(OSError):
        os.chdir(folder)
    sys.argv = ["dcompute-child"]
    streams = Streams()
    faulthandler.enable(file=sys.stderr)
    Child(Channel(socket.socket(fileno=control)), streams).serve()


def _move_away(descriptor: int) -> int:
    """The same open file under a high number, with nothing behind the low one."""
    try:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, system.OUT_OF_REACH)
    except OSError:  # this process may open only a few files
        os.set_inheritable(descriptor, False)
        return descriptor
    nothing = os.open(os.devnull, os.O_RDWR)
    # the number stays taken: the next file that is opened, ours perhaps, would get it
    os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)
    return moved


def _die_with_guardian(life: int) -> None:
    with contextlib.suppress(OSError):
        os.read(life, 1)
    system.kill_below(os.getpid())
    os._exit(1)


class Child:
    """What the process was told so far."""

    def __init__(self, channel: Channel, streams: Streams) -> None:
        self._channel = channel
        self._streams = streams
        self._process: Process | None = None
        self._shared = Figures()
        self._batch_at_hand: BatchSpec | None = None  # the one that was executed last, its columns opened

    def serve(self) -> None:
        """Answer messages until there are no more."""
        while (message := self._channel.next()) is not None:
            self._streams.token = message["token"].encode("latin-1")
            answer = getattr(self, f"_{message['op']}")(message)
            self._channel.send(answer)

    def _setup(self, message: Message) -> dict[str, Any]:
        stage = "code"
        try:
            run: RunSpec = pickle.loads(message.blobs[0])  # noqa: S301  from the worker, which had it from the driver of this run
            profiles.take(message.blobs[1:])
            _unpack_modules(run, message["scratch"])
            from dcompute.code import load

            loaded = load(run.code)
            open_checks(run)
            stage = "setup"
            function = loaded.start()
            items, devices = str(Path(message["scratch"]) / "items"), tuple(message["devices"])
            self._process = Process(run, function, loaded.params, items, Caretaker(self._streams), devices=devices)
        except BaseException as error:  # noqa: BLE001  SystemExit in user code too
            if stage == "code" and scratch.is_full(error):  # no room for the packages that are unpacked there
                full = scratch.full(message["scratch"], error)
                return {"op": "failed", "stage": full.stage, "text": full.text, "traceback": ""}
            return {"op": "failed", "stage": stage, **_described(error)}
        finally:
            self._streams.item_ended(0)
            self._streams.batch_ended()
        return {"op": "ready"}

    def _batch(self, message: Message) -> dict[str, Any]:
        process = self._process
        assert process is not None
        batch: BatchSpec = pickle.loads(message.blobs[0])  # noqa: S301  as above; its values are opened below
        journal = Journal(message["journal"])
        folder = files_folder(Path(message["journal"]).parent)
        loop = Loop(process, batch, journal, self._streams, str(folder))
        loop.is_watched = message["watched"]
        try:
            loop.load()
        except BaseException as error:  # noqa: BLE001
            self._streams.batch_ended()
            return {"op": "unreadable", **_described(error)}
        try:
            loop.execute(message["verdicts"])
        except OSError as error:
            return {"op": "full", "text": str(error), "size": journal.wanted}
        finally:
            journal.close()
        self._shared, self._batch_at_hand = process.meter.batch(), batch
        return {
            "op": "executed", "calls": process.calls, "leftovers": loop.leftovers, "spent": loop.is_spent,
            "again": loop.last if loop.is_again else None,
        }  # fmt: skip

    def _finish(self, message: Message) -> dict[str, Any]:
        run: RunSpec = pickle.loads(message.blobs[0])  # noqa: S301
        if run.modules:
            _unpack_modules(run, message["scratch"])
        batch: BatchSpec = pickle.loads(message.blobs[1])  # noqa: S301
        own, self._batch_at_hand = self._batch_at_hand, None
        mine = own is not None and own.id == batch.id
        if own is not None and mine:
            batch = own
        detail = json.loads(message.blobs[2])
        journal = Journal(message["journal"])
        try:
            journal.set_state(State.FINISHING)
            if message["verdicts"]:
                convict(journal, batch, message["verdicts"])
            around = Surroundings(
                worker=message["worker"], memory_limit=message["memory_limit"], pid=os.getpid(),
                stdout=_by_index(detail["stdout"]), stderr=_by_index(detail["stderr"]), peaks=_by_index(detail["peaks"]),
                long=[_by_index(texts) for texts in detail["long"]],
                shared=self._shared if mine else Figures(),
            )  # fmt: skip
            times = {name: message[name] for name in ("slot_seconds", "setup_seconds", "leftovers")}
            made = Finisher(message["folder"], run, batch, around).finish(journal, message["execution"], times)
        except Exception as error:  # noqa: BLE001  told to the worker, which raises it
            return {"op": "full" if scratch.is_full(error) else "failed", **_described(error)}
        finally:
            journal.close()
        if made is None:
            return {"op": "nothing"}
        receipt, files = made
        return {"op": "finished", "receipt": receipt.to_json(), "files": files}


def _described(error: BaseException) -> dict[str, Any]:
    failure = attempt.describe(error)
    return {"text": f"{failure['error']}: {failure['message']}", "traceback": failure["traceback"]}


def _by_index(texts: dict[str, Any]) -> dict[int, Any]:
    return {int(index): text for index, text in texts.items()}


def _unpack_modules(run: RunSpec, scratch: str) -> None:
    """Put shipped packages where they are found first; unpacked once a worker, each under its digest."""
    import io
    import zipfile

    for name, digest, archive in run.modules:
        folder = Path(scratch) / "modules" / f"{name}-{digest}"
        if not folder.exists():
            mine = folder.with_name(f"{folder.name}.{os.getpid()}")
            zipfile.ZipFile(io.BytesIO(archive)).extractall(mine)
            with contextlib.suppress(OSError):  # another child was first
                mine.rename(folder)
        sys.path.insert(0, str(folder))
