"""What a Python process can say of itself; sent as text to workers, which may lack dcompute, so the standard library has to do.

It says what it finds as an event on the worker's own connection: whoever asks may not be able to reach the worker.
"""

from __future__ import annotations

import os
import platform
import sys
import time

#: Packages whose versions are told.
PACKAGES = ("dask", "distributed", "dcompute", "cloudpickle", "msgpack", "pyarrow", "pandas", "numpy", "fsspec", "s3fs", "adlfs", "gcsfs")


def versions() -> dict[str, str]:
    """Version of Python and of each package that is there; of dcompute that of the code, which an editable install does not say."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def problem_of_import() -> str | None:
    """Why what executes batches cannot be imported; None where it can."""
    try:
        import dcompute
        import dcompute.worker.batch  # noqa: F401
    except BaseException as error:  # noqa: BLE001  whatever it is, it is told
        return f"{type(error).__name__}: {error}"
    return None


def about() -> dict[str, object]:
    """All that is told of a process."""
    found = versions()
    problem = problem_of_import()
    if problem is None:
        import dcompute

        found["dcompute"] = dcompute.__version__
    else:
        found.pop("dcompute", None)
    return {"host": platform.node(), "pid": os.getpid(), "executable": sys.executable, "versions": found, "import_problem": problem}


def answer(topic: str, what: str) -> None:
    """Say it on a topic, with the time."""
    from distributed import get_worker

    worker = get_worker()
    message = about() if what == "facts" else {}
    message.update(event=what, task=str(worker.get_current_task()), time=time.time())
    worker.log_event(topic, message)
