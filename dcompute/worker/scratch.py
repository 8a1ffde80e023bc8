"""The folder in which a worker keeps journals and parts until they are in the dataset, and what is said where it is full."""

from __future__ import annotations

import errno

from dcompute.worker.work import SetupFailure

_NUMBERS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(error: BaseException) -> bool:
    """Whether it says that a disk, a quota or a limit on files is reached."""
    return isinstance(error, OSError) and error.errno in _NUMBERS


def full(folder: str, why: object) -> SetupFailure:
    """No item is to blame: what this worker could not note goes out again, as after a set-up that failed."""
    return SetupFailure(
        text=f"the scratch folder of this worker, {folder}, is full ({why}): free space there, or name a folder on a larger disk in the "
        f"setting worker.scratch",
        stage="scratch",
    )
