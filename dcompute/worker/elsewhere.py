"""Files of a program on other storage than the dataset's: inputs are brought here first, outputs appear there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dcompute.config import storage_options
from dcompute.dataset.names import TEMPORARY, new_id
from dcompute.program import is_url

#: Protocols whose storage shows an object when its upload is complete, and never before.
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory"})
_LOCAL = frozenset({"file", "local"})


def fetched(url: str, folder: Path) -> Path:
    """A local path of a file on a storage; what is local already is used in place.

    Parameters
    ----------
    url
        Whole URL.
    folder
        Where it is brought to; one URL twice is brought once.
    """
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(url, **storage_options(url))
    if _protocol(fs) in _LOCAL:
        return Path(path)
    target = folder / blake2b(url.encode(), digest_size=8).hexdigest() / (posixpath.basename(path.rstrip("/")) or "input")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{TEMPORARY}{target.name}")
        fs.get_file(path, str(part))
        part.rename(target)
    return target


def placed(path: Path, url: str) -> None:
    """Copy a file to a URL or an absolute path, where it appears whole; what was there is replaced in one step.

    On object stores an upload is that one step. Elsewhere it is a file beside, which then takes the name.
    """
    if not is_url(url):
        _place_locally(path, Path(url).expanduser())
        return
    from fsspec.core import url_to_fs

    fs, target = url_to_fs(url, **storage_options(url))
    if _protocol(fs) in _LOCAL:
        _place_locally(path, Path(target))
    elif _protocol(fs) in _WHOLE:
        fs.put_file(str(path), target)
    else:
        _place_beside(fs, path, target)


def _place_locally(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{TEMPORARY}{new_id()}")
    try:
        shutil.copyfile(path, part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _place_beside(fs: Any, path: Path, target: str) -> None:
    folder = posixpath.dirname(target)
    part = posixpath.join(folder, f"{TEMPORARY}{new_id()}")
    fs.makedirs(folder, exist_ok=True)
    try:
        fs.put_file(str(path), part)
        fs.mv(part, target)
    except BaseException:
        with contextlib.suppress(Exception):
            fs.rm_file(part)
        raise


def _protocol(fs: Any) -> str:
    return str(fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0])
