"""What a process that ends, or is told to, does about runs under way: it waits for them, says what became of them, and how to go on."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import io
import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dcompute.assignment import Assignment
    from dcompute.driver import Driver

#: The exit code of a script of which a run failed that it did not wait for: that of a script which ends with an error.
_FAILED = 1
#: What ended runs early and nobody has been told of, by run.
_untold: dict[str, str] = {}
#: Runs of which somebody did not want to wait for the last commit.
_left: set[str] = set()


def await_at_exit(driver: Driver) -> None:
    """Have the interpreter wait for a run before it ends, as it does for executors."""
    # executors forbid new work when the interpreter begins to end, in the reverse order of these registrations: the run ends first
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        with contextlib.suppress(RuntimeError):
            register(functools.partial(_end, os.getpid(), driver.run_id, weakref.ref(driver)))


def failed(run: str, text: str) -> None:
    """A run ended early: said at exit, where nobody is told before."""
    _untold[run] = text


def told(run: str) -> None:
    """Somebody was told how a run ended."""
    _untold.pop(run, None)


def interrupt(driver: Driver) -> None:
    """End a run as Ctrl-C does: what is finished is committed, then a person reads how to go on.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C again: this has said what that means, and waits no more.
    """
    try:
        _say("Interrupted: what is finished is being committed. Ctrl-C again leaves without waiting for it")
        driver.cancel("interrupted")
        driver.ended.wait()
    except KeyboardInterrupt:
        _left.add(driver.run_id)
        _say(_unfinished(driver.assignment))
        raise
    _say(f"{driver.summary()}\nTo go on, {driver.assignment.again}")


def _unfinished(assignment: Assignment) -> str:
    """What a person reads who does not wait for the last commit."""
    once = "is done again" if assignment.workload.idempotent else "counts as lost, as idempotent=False wants it"
    return (
        f"Left before the last commit to {assignment.store.url}. What was committed stays, and what workers wrote is found when "
        f"the run goes on; what was at work {once}. To go on, {assignment.again}"
    )


def leave(code: int) -> None:
    """End the process with this exit code, where somebody did not want to wait for a run and its last commit still goes on."""
    if _left:
        _leave(lambda: os._exit(code))


def _end(process: int, run: str, found: weakref.ReferenceType[Driver]) -> None:
    if os.getpid() != process:
        return  # forked from it, without the threads that carry the run out
    driver = found()
    if driver is not None and not driver.ended.is_set():
        _await(driver)
    _left.discard(run)
    text = _untold.pop(run, None)
    if text is not None:
        _say(f"run {run}, which nobody waited for, ended early: {text}")
        atexit.register(_end_as_failed)


def _await(driver: Driver) -> None:
    """Wait for a run; Ctrl-C ends it as in ``wait()``."""
    if driver.run_id in _left:
        _leave(_end_as_interrupted)
    try:
        _wait(driver)
    except KeyboardInterrupt:
        try:
            interrupt(driver)
        except KeyboardInterrupt:
            _leave(_end_as_interrupted)
        atexit.register(_end_as_interrupted)


def _wait(driver: Driver) -> None:
    if _was_interrupted():
        raise KeyboardInterrupt
    # a join that was interrupted takes its thread for ended: this waits for the event
    driver.ended.wait()


def _was_interrupted() -> bool:
    """Whether Ctrl-C ended the script; at a prompt and in a notebook it ended some line, maybe long ago."""
    prompt = hasattr(sys, "ps1") or "IPython" in sys.modules
    return not prompt and getattr(sys, "last_type", None) is KeyboardInterrupt


def _leave(end: Callable[[], None]) -> None:
    """End the process while a driver still works; one more Ctrl-C kills it."""
    # workers of this very process see their children end: what they say of it would be the last thing that a person reads
    logging.getLogger("dcompute").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _finish_exit()
    end()


def _end_as_interrupted() -> None:
    """Do what else is left to do at exit, then end as Ctrl-C does: Python has settled on its exit code by now."""
    atexit.unregister(_end_as_interrupted)
    atexit.unregister(_end_as_failed)
    _finish_exit()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    os._exit(128 + signal.SIGINT)  # the first process of a container is not killed so


def _end_as_failed() -> None:
    """As above, with the exit code of a script that ends with an error."""
    atexit.unregister(_end_as_failed)
    _finish_exit()
    os._exit(_FAILED)


def _finish_exit() -> None:
    """What Python would still do: functions that are registered, and writing out what files hold back that nobody closed."""
    atexit._run_exitfuncs()
    for thing in [*gc.get_objects(), sys.stdout, sys.stderr]:
        if issubclass(type(thing), io.IOBase):
            with contextlib.suppress(Exception):
                thing.flush()


def _say(text: str) -> None:
    # stderr may be closed, or a pipe that nobody reads any more
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201  a person looks at the terminal
