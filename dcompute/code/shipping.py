"""Local packages and modules as archives, known by what is in them."""

from __future__ import annotations

import io
import types
import zipfile
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from dcompute.errors import WorkloadError

#: A module that is sent to the workers may have so many bytes.
LARGEST_MODULE = 64 << 20

_DIGEST_BYTES = 16
# the first time that a zip archive can say
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_LEFT_OUT = ("__pycache__", ".git", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache")


class ShippedModule(NamedTuple):
    """A package or module to be put on a child's path."""

    name: str
    digest: str
    archive: bytes  #: a zip that holds it under its name


def zip_module(module: str | types.ModuleType) -> ShippedModule:
    """A local package or module as an archive whose bytes depend on its files only.

    Raises
    ------
    WorkloadError
        There is no such module, or it cannot be sent.
    """
    name = module if isinstance(module, str) else module.__name__
    files = dict(_files_of(name))
    size = sum(path.stat().st_size for path in files.values())
    if size > LARGEST_MODULE:
        raise WorkloadError(f"module {name!r} has {size / 2**20:.0f} MiB, more than can be sent: install it on the workers")
    digest, buffer = blake2b(digest_size=_DIGEST_BYTES), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for inner in sorted(files):
            data = files[inner].read_bytes()
            digest.update(f"{len(inner.encode())}:{len(data)}:".encode() + inner.encode() + data)
            entry = zipfile.ZipInfo(inner, _ZIP_TIME)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return ShippedModule(name, digest.hexdigest(), buffer.getvalue())


def _files_of(name: str) -> Iterator[tuple[str, Path]]:
    """Names in the archive, and where the files are."""
    spec = _spec_of(name)
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not folders:
        path = Path(spec.origin or "")
        if not path.is_file() or path.suffix != ".py":
            raise WorkloadError(f"module {name!r} is not made of Python files and cannot be sent: install it on the workers")
        yield path.name, path
        return
    for folder in reversed(folders):  # of a package in several places the first one counts
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder)
            if path.is_file() and path.suffix != ".pyc" and not any(part in _LEFT_OUT for part in inner.parts):
                yield f"{name}/{inner.as_posix()}", path


def _spec_of(name: str) -> Any:
    import importlib.util

    if "." in name:
        top = name.partition(".")[0]
        raise WorkloadError(f"modules={[name]!r}: a part of a package cannot be sent alone; send {top!r}")
    if name == "__main__":
        raise WorkloadError("modules: what stands in the script itself travels anyway; name the packages that it imports")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise WorkloadError(f"modules={[name]!r}: there is no module {name!r} here: {error}") from error
    if spec is None:
        raise WorkloadError(f"modules={[name]!r}: there is no module {name!r} here; name it as in an import statement, not as a path")
    return spec
