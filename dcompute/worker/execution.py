"""One batch, executed by one child after another until every item has an outcome, then made into Parquet by the last.

A child that dies is judged (``verdict``), its successor reads the journal, records the verdict and goes on with the next item.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dcompute.checks.travel import packed, unjudging
from dcompute.errors import InternalError
from dcompute.records import STREAMS, BatchSpec, Receipt, RunSpec
from dcompute.worker import output, profiles, scratch, system
from dcompute.worker.children import DEATH_TIMEOUT, Child
from dcompute.worker.journal import Header, Journal, JournalView, State
from dcompute.worker.pipes import Message
from dcompute.worker.printed import Printed
from dcompute.worker.verdict import Death, Verdict, judge
from dcompute.worker.work import Execution, SetupFailure, Tick, Work, finish_seconds, size_of_files

logger = logging.getLogger("dcompute.worker")

#: Seconds between two looks at a child at work.
TICK = 0.020
#: Seconds that the item at work has to end when the batch is stopped, by reason.
STOP_GRACE = {"cancelled": 0.1, "closing": 1.0}
_TELL_EVERY = 0.25
_MOST_DEATHS = 3
#: Journals that items may damage before the batch is given up.
_MOST_DAMAGES = 5
#: Seconds without a byte after which a child will not end the answer it began.
_STALLED = 10.0


class Stopped(Exception):  # noqa: N818  the end of a way, no error
    """The worker wants this batch to end now."""


class SetupFailed(Exception):  # noqa: N818
    """A child could not get ready."""

    def __init__(self, failure: SetupFailure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class Full(Exception):  # noqa: N818
    """The disk of the scratch folder is."""


class Spent(Exception):  # noqa: N818
    """The child is in a state that it cannot get out of; no item is at work."""


class Died(Exception):  # noqa: N818
    """The child is dead, with all below it."""


class Executor:
    """The state of one batch at work.

    Parameters
    ----------
    take
        Gives a child of the run, warm or (True) fresh, below the guardian of all or (True) one of its own, which (True) calls user code.
    give
        Takes it back.
    stopped
        ``cancelled``, ``closing`` or None.
    ticked
        Told how far the batch is, a few times a second.
    """

    def __init__(
        self,
        work: Work,
        *,
        take: Callable[[bool, bool, bool], Child],
        give: Callable[[Child], None],
        stopped: Callable[[], str | None],
        ticked: Callable[[Tick], None],
    ) -> None:
        self._work = work
        self._take, self._give = take, give
        self._stopped, self._ticked = stopped, ticked
        self._began = time.monotonic()
        self._folder = work.folder
        self._folder.mkdir(parents=True)
        self._path = str(self._folder / "journal")
        Journal(self._path, create=True).close()
        self._view = JournalView(self._path)
        self._last = self._view.read()
        self._damages = 0
        self._child: Child | None = None
        self._printed = Printed()
        self._verdicts: list[dict[str, Any]] = []
        self._apart = False  # with a guardian of its own: that of all was killed, and nobody knows by whose item
        self._guardian_deaths: Counter[int] = Counter()  # of such guardians, by the item at work
        self._peaks: dict[int, int] = {}
        self._peak = 0
        self._setup_seconds = 0.0
        self._swept = 0
        self._reason: str | None = None
        self._begun = False  # an item was at work when its child died
        self._stop_at: float | None = None
        self._told = 0.0

    # ------------------------------------------------------------------------------------------------------------- the way

    def run(self) -> Execution:
        """Execute and finish."""
        try:
            failure = self._execute()
            if failure is not None:
                self._reason = self._reason or ("full" if failure.stage == "scratch" else "setup")
                if self._view.read().done == 0 and not self._verdicts:
                    shutil.rmtree(self._folder, ignore_errors=True)
                    return Execution(setup_error=failure, cut_short=self._reason, untouched=not self._begun)
            done = self._finish()
            return done if failure is None else dataclasses.replace(done, setup_error=failure)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        finally:
            self._release()
            self._view.close()

    def _execute(self) -> SetupFailure | None:
        """Children one after another; None when the items are done or the batch was stopped."""
        deaths = 0
        while self._reason is None:
            done = self._view.read().done
            try:
                self._prepare()
                self._serve()
            except Stopped:
                self._reason = self._reason or self._stopped()
                return None
            except SetupFailed as failed:
                return failed.failure
            except Spent:
                deaths = 0
                self._release()
            except Full as full:
                self._after_death()
                failure = scratch.full(self._work.scratch, full)
                logger.warning("batch %s is cut short: %s", self._work.batch.id, failure.text, extra={"action": "scratch_full"})
                return failure
            except Died:
                deaths = 0 if self._after_death() or self._view.read().done > done else deaths + 1
                if deaths >= _MOST_DEATHS and self._reason is None:
                    return SetupFailure(text=f"the child died {deaths} times while no item was at work", stage="process")
            else:
                return None
        return None

    def _prepare(self) -> None:
        """A child that is ready; set-up is done in it once."""
        fresh = bool(self._verdicts) or self._work.batch.alone
        child = self._child = self._take(fresh, self._apart, True)
        self._printed.listen(child.token)
        if child.is_ready:
            return
        began = time.monotonic()
        run = dataclasses.replace(self._work.run, storage_options=())
        header = {"op": "setup", "scratch": self._work.scratch, "metrics": run.metrics, "devices": [one.id for one in child.loan.devices]}
        child.send(header, [pickle.dumps(run), *profiles.told()])
        try:
            answer = self._converse(child, deadline=began + run.setup_timeout, limit=self._work.memory_limit)
        except Died:
            if child.killed_for == "stop":
                raise Stopped from None
            raise SetupFailed(self._setup_death(child, run)) from None
        finally:
            self._setup_seconds += time.monotonic() - began
        self._await_ends(child)
        if answer["op"] != "ready":
            child.kill("stop")
            raise SetupFailed(
                SetupFailure(text=answer["text"], traceback=answer["traceback"], log=self._printed.all(), stage=answer["stage"])
            )
        child.is_ready = True
        child.setup_memory = child.memory()

    def _setup_death(self, child: Child, run: RunSpec) -> SetupFailure:
        if child.killed_for == "timeout":
            text = f"the set-up did not end within {run.setup_timeout:g} s"
        elif child.killed_for == "memory":
            text = f"the set-up took more memory than the slot has ({self._work.memory_limit} bytes)"
        else:
            ended = child.exit
            text = "the set-up ended its process: " + (
                f"signal {ended.signal}" if ended and ended.signal else f"exit code {ended and ended.code}"
            )
        return SetupFailure(text=text, log=self._printed.all())

    def _serve(self) -> None:
        """Have the batch executed, or what is left of it."""
        child, work = self._child, self._work
        assert child is not None
        self._printed.listen(child.token)
        header = {"op": "batch", "journal": self._path, "verdicts": self._verdicts, "watched": self._damages > 0}
        child.send(header, [pickle.dumps(work.batch)])
        answer = self._converse(child, limit=work.memory_limit, timeout=work.run.timeout)
        child.calls = int(answer.get("calls", child.calls))
        self._await_ends(child)
        if answer["op"] == "unreadable":
            raise SetupFailed(SetupFailure(text=answer["text"], traceback=answer["traceback"], stage="values"))
        if answer["op"] == "full":
            # where this process may write more, an item forbade it to the child
            is_full = not self._view.grow(int(answer["size"]))
            child.kill("full" if is_full else "forbidden")
            self._bury(child)
            raise Full(answer["text"]) if is_full else Died
        self._swept += int(answer.get("leftovers", 0))
        self._look()
        self._printed.keep()
        if answer.get("spent"):
            self._acquit(answer["again"])
            raise Spent

    def _acquit(self, index: int | None) -> None:
        """Have an item executed again that failed in a process which others had changed for good."""
        if index is not None:
            self._verdicts.append(Verdict(index=index, last=index).to_json())
            logger.warning(
                "batch %s: item %r failed in a process that earlier items had changed for good: executed again, alone",
                self._work.batch.id, self._work.batch.keys[index].text,
            )  # fmt: skip

    # --------------------------------------------------------------------------------------------------------- watching

    def _converse(
        self, child: Child, *, deadline: float | None = None, limit: int | None = None, timeout: float | None = None, stoppable: bool = True
    ) -> Message:
        """The child's answer; while it is awaited, everything that can go wrong is looked for.

        Raises
        ------
        Died
            The child is dead: by itself, or because a limit was passed or the batch stopped.
        """
        look_at = time.monotonic() + TICK
        while True:
            messages = child.wait(TICK, self._printed.captures)
            # a child has nothing to say while it calls user code: that wrote these bytes
            if (messages or child.channel.is_partial) and self._look().at_work and self._last.state != State.FULL:
                child.kill("lost")
                self._bury(child)
                raise Died
            if messages:
                return messages[0]
            now = time.monotonic()
            if child.exit is not None or child.channel.closed:
                if self._stop_at is not None:  # it ended its item's program, and itself
                    child.killed_for = child.killed_for or "stop"
                self._bury(child)
                raise Died
            if now < look_at:
                continue
            look_at = now + TICK
            reason = self._reason_to_kill(child, now, deadline, limit, timeout) or (self._reason_to_stop(now) if stoppable else None)
            if reason is not None:
                child.kill(reason)
                self._bury(child)
                raise Died

    def _reason_to_kill(self, child: Child, now: float, deadline: float | None, limit: int | None, timeout: float | None) -> str | None:
        header = self._look()
        if deadline is not None and now > deadline:
            return "timeout"
        if timeout is not None and header.at_work and now - header.started > timeout + self._work.run.grace:
            return "timeout"
        if child.channel.is_partial and now - child.channel.heard > _STALLED:
            return "lost"
        self._tell(header, now)
        if self._work.run.metrics == "full" or limit is not None:
            held = child.memory(limit)
            self._note_memory(header, held)
            if limit is not None and held > limit:
                return "memory"
        return None

    def _look(self) -> Header:
        """What the child is at; who damaged the journal is as good as dead."""
        try:
            self._last = self._view.read()
        except InternalError:
            raise Died from None
        if self._damages:
            self._view.acknowledge(self._last)
        return self._last

    def _note_memory(self, header: Header, held: int) -> None:
        self._peak = max(self._peak, held)
        if header.at_work:
            self._peaks[header.index] = max(self._peaks.get(header.index, 0), held)

    def _reason_to_stop(self, now: float) -> str | None:
        self._reason = self._reason or self._stopped()
        if self._reason is None:
            return None
        if self._stop_at is None:
            self._view.stop()
            self._stop_at = now + STOP_GRACE.get(self._reason, 0.0) + self._work.run.grace
        return "stop" if now >= self._stop_at else None

    def _tell(self, header: Header, now: float) -> None:
        if now - self._told >= _TELL_EVERY:
            self._told = now
            self._ticked(Tick(header.index if header.at_work else None, header.done, header.fraction, header.text, self._printed.recent))

    def _bury(self, child: Child) -> None:
        """Wait until the child and all below it are gone, and take the last of what they printed."""
        # where its connection ended first it is about to exit, or closed all its files
        if child.exit is None and child.killed_for is None and not child.process.ended.wait(1.0):
            child.kill("lost")
        waited = time.monotonic() + DEATH_TIMEOUT
        while child.exit is None and time.monotonic() < waited:
            child.process.ended.wait(TICK)
            child.drain(self._printed.captures)
        if child.exit is None:
            child.owner.destroy()
            child.process.ended.wait(DEATH_TIMEOUT)
        child.drain(self._printed.captures)

    def _await_ends(self, child: Child) -> None:
        """The child marked the end of its streams before it answered: take what stands before the marks."""
        limit = time.monotonic() + 5.0
        while not all(capture.ended for capture in self._printed.captures) and time.monotonic() < limit and child.exit is None:
            child.listen(TICK, self._printed.captures)

    def _after_death(self) -> bool:
        """Judge, with a new journal where the old one is damaged. True where an item was at work."""
        assert self._child is not None
        try:
            header = self._view.read()
        except InternalError:
            self._damages += 1
            if not self._work.run.idempotent or self._damages > _MOST_DAMAGES:
                raise
            self._child.kill("damage")
            self._bury(self._child)
            self._begun = True
            self._replace_journal()
            # a first time nobody knows how old the last look was
            self._judge(self._last if self._damages > 1 else dataclasses.replace(self._last, sequence=0))
            self._printed.forget()
            return True
        return self._judge(header)

    def _replace_journal(self) -> None:
        """All is executed again, one by one: nobody knows what was in the old one."""
        self._view.close()
        self._path = str(self._folder / f"journal-{self._damages}")
        Journal(self._path, create=True).close()
        self._view = JournalView(self._path)
        convicted = [verdict for verdict in self._verdicts if verdict["failure"] is not None]
        self._verdicts = [{"index": 0, "last": len(self._work.batch) - 1, "failure": None, "figures": None}, *convicted]

    def _judge(self, header: Header) -> bool:
        """Who is to blame."""
        child, work = self._child, self._work
        assert child is not None
        self._begun = self._begun or header.at_work
        self._view.settle()
        ended = child.exit
        guardian_died = bool(ended and ended.guardian_died)
        self._guardian_deaths[header.index] += guardian_died and header.at_work and self._apart
        self._apart = self._apart or guardian_died
        verdict = judge(
            Death(
                header=header, killed_for=child.killed_for, exit_code=ended.code if ended else None, signal=ended.signal if ended else 9,
                guardian_died=guardian_died, guardian_deaths=self._guardian_deaths[header.index],
                oom_killed=system.oom_kills() > child.oom_kills, peak_memory=self._peaks.get(header.index, 0),
                memory_limit=work.memory_limit, timeout=work.run.timeout, at=time.monotonic(), idempotent=work.run.idempotent,
            )
        )  # fmt: skip
        self._printed.flush(header.index if header.at_work else max(header.index, 0))
        self._printed.keep()
        self._release()
        if verdict is None:
            return False
        self._verdicts.append(verdict.to_json())
        logger.warning("batch %s: %s", work.batch.id, _told(work.batch, self._verdicts[-1]))
        return True

    # -------------------------------------------------------------------------------------------------------------- the end

    def _finish(self) -> Execution:
        """Parquet of what the journal holds."""
        self._ticked(Tick(max(self._last.index, 0), self._last.done, None, "", self._printed.rest, is_last=True))
        self._log_output()
        work, problem, is_full, crashed = self._work, "", False, 0
        # checks are user code: where they end the process, the items are written as what they cannot judge
        for _ in range(3 if work.run.checks else 2):
            if self._child is None or self._child.exit is not None:
                self._release()
                self._child = self._take(True, self._apart, False)
            try:
                answer = self._ask_to_finish(self._child, unjudged=problem if crashed == 2 else "")
            except Died:
                crashed += 1
                problem = f"two processes died of it ({self._child.exit})"
                self._release()
                continue
            if answer["op"] in ("finished", "nothing"):
                return self._end(answer)
            problem, is_full = f"{answer['text']}\n{answer['traceback']}", answer["op"] == "full"
            # what user code did to its process may be all that is wrong
            self._release()
        if is_full:
            return Execution(setup_error=scratch.full(work.scratch, answer["text"]), folder=str(self._folder), cut_short="full")
        raise InternalError(f"the rows of batch {work.batch.id} cannot be written: {problem}")

    def _ask_to_finish(self, child: Child, *, unjudged: str = "") -> Message:
        work = self._work
        # a child that executed the batch has both; one that did not is never shown the code, but for what checks import
        modules = work.run.modules if work.run.checks and not (child.is_ready or unjudged) else ()
        checks = packed(unjudging(unjudged)) if unjudged else work.run.checks
        run = dataclasses.replace(work.run, code=b"", modules=modules, checks=checks, storage_options=())
        header = {
            "op": "finish", "journal": self._path, "folder": str(self._folder), "verdicts": self._verdicts, "execution": work.execution,
            "scratch": work.scratch,
            "worker": work.worker, "memory_limit": work.memory_limit, "leftovers": self._swept, "setup_seconds": self._setup_seconds,
            "slot_seconds": time.monotonic() - self._began, "peak": self._peak,
        }  # fmt: skip
        texts, long = self._printed.texts, self._printed.long
        detail = {"stdout": texts[0], "stderr": texts[1], "peaks": self._peaks, "long": long}
        self._printed.listen(child.token)
        child.send(header, [pickle.dumps(run), pickle.dumps(work.batch), json.dumps(detail).encode()])
        nbytes = Path(self._path).stat().st_size + size_of_files(self._folder)
        timeout = work.run.timeout if work.run.checks and not unjudged else None
        allowed = finish_seconds(timeout, len(work.batch.keys), nbytes)
        return self._converse(child, deadline=time.monotonic() + allowed, stoppable=False)

    def _end(self, answer: Message) -> Execution:
        folder = str(self._folder)
        if answer["op"] == "nothing":
            shutil.rmtree(self._folder, ignore_errors=True)
            return Execution(cut_short=self._reason, untouched=not self._begun)
        receipt = Receipt.from_json(answer["receipt"])
        Path(self._path).unlink(missing_ok=True)
        child = self._child
        if child is not None and not child.channel.closed:
            self._child = None
            self._give(child)
        whole = receipt.count >= len(self._work.batch) - len(self._work.batch.exclude)
        return Execution(
            receipt=receipt,
            files=[(path, name) for path, name in answer["files"]],
            folder=folder,
            cut_short=None if whole else self._reason,
        )

    def _log_output(self) -> None:
        keys = self._work.batch.keys
        for stream, texts in zip(STREAMS, self._printed.texts, strict=True):
            if texts:
                shown = output.log_lines((keys[index].text, text) for index, text in sorted(texts.items()))
                logger.info("batch %s, %s:\n%s", self._work.batch.id, stream, shown)

    def _release(self) -> None:
        """Give up a child that is dead, or must not be used again."""
        child, self._child = self._child, None
        if child is not None:
            child.kill("stop")
            child.close()


def _told(batch: BatchSpec, verdict: dict[str, Any]) -> str:
    key = batch.keys[verdict["index"]].text
    if verdict["failure"] is None:
        others = verdict["last"] - verdict["index"]
        return f"the process of item {key!r}{' and those called with it' if others else ''} was ended: executed again, alone"
    return f"item {key!r}: {verdict['failure']['message']}"
