"""What a worker answered to its probe: whether it can do this work, and why not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dcompute.errors import ClusterError, DcomputeError, StoreError, WorkloadError
from dcompute.worker.probe import versions

if TYPE_CHECKING:
    from dcompute.dataset.store import Store

#: What to do where workers and driver do not see the same storage.
COMMON = "Use a folder that all machines share, or a URL (s3://...)."


#: What workers said of themselves, by the key of the probe's task.
Answers = dict[str, dict[str, Any]]


def answer_of(future: Any, answers: Answers) -> dict[str, Any] | None:
    """The answer to a probe whose task has ended, which came before that; None where somebody cancelled it."""
    if future.status == "cancelled":
        return None
    if future.status != "finished":
        return {"ok": False, "fault": "cluster", "problem": _problem(future.exception())}
    missing = {"ok": False, "fault": "cluster", "problem": "its answer did not arrive: is dcompute of another version there?"}
    return answers.pop(future.key, missing)


def _problem(error: BaseException) -> str:
    """Why there is no answer: what a probe meets it answers, so this came before it began."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "dcompute":
        return f"it cannot import dcompute ({error}): install it there, in the same version"
    return f"dcompute could not begin there ({type(error).__name__}: {error})"


def check_answer(address: str, answer: Mapping[str, Any], store: Store) -> None:
    """Refuse a worker that cannot do this work; the file that it wrote into the dataset is removed.

    Raises
    ------
    ClusterError
        A worker of another version.
    StoreError
        A worker that does not see the dataset as the driver does.
    WorkloadError
        A workload that the worker cannot import.
    """
    if not answer.get("ok"):
        raise _refusal(address, answer)
    _check_versions(address, answer)
    _check_place(address, answer, store)


def _check_versions(address: str, answer: Mapping[str, Any]) -> None:
    """Code and records cross between driver and workers: what they are pickled with must be the same on both."""
    here, there = versions(), answer.get("versions") or {}
    differ = [f"{name} {there.get(name)} (here {known})" for name, known in here.items() if there.get(name) != known]
    if differ:
        raise ClusterError(
            f"worker {address} on {answer.get('host')} has {', '.join(differ)}: install the same versions on workers and driver "
            f"({answer.get('executable')} there)"
        )


def _check_place(address: str, answer: Mapping[str, Any], store: Store) -> None:
    if store.is_memory and (answer.get("host"), answer.get("pid")) != (os.uname().nodename, os.getpid()):
        raise StoreError(f"{store.url} lies in the memory of this process, and worker {address} is another: use a path or URL both see")
    name = answer.get("file")
    if name is None:
        return
    if not store.exists(str(name)):
        raise StoreError(
            f"worker {address} on {answer.get('host')} wrote a probe into {store.url}, and the driver does not find it: they see "
            f"different storage. {COMMON}"
        )
    store.remove([str(name)])


def _refusal(address: str, answer: Mapping[str, Any]) -> DcomputeError:
    error = {"workload": WorkloadError, "store": StoreError}.get(str(answer.get("fault")), ClusterError)
    host = f" on {answer['host']}" if "host" in answer else ""
    return error(f"worker {address}{host} cannot do this work: {answer.get('problem')}")
