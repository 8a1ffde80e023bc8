"""Opening what is to be read: one dataset, or several as one."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike, fspath
from typing import Any, overload

from dcompute.dataset import status
from dcompute.dataset.many import Datasets
from dcompute.dataset.status import At, Dataset
from dcompute.dataset.store import Store
from dcompute.errors import DatasetNotFoundError, UsageError


@overload
def open(url: str | PathLike[str], storage_options: Mapping[str, Any] | None = ..., *, at: At = ...) -> Dataset: ...


@overload
def open(url: Iterable[Any], storage_options: Mapping[str, Any] | None = ..., *, at: At = ...) -> Datasets: ...


def open(url: Any, storage_options: Mapping[str, Any] | None = None, *, at: At = None) -> Any:
    """The reading side of a dataset, or of several as one; needs no cluster.

    Parameters
    ----------
    url
        A local path or an fsspec URL. A pattern (``root/*``), or a list of URLs, patterns and datasets, opens several as one, as
        :class:`~dcompute.dataset.many.Datasets`: of a key found twice the first of them counts; those of a pattern come by name.
    storage_options
        For fsspec: credentials, endpoint.
    at
        Read it as it was: the number of an entry of its log (see :meth:`Dataset.history`), or a time, as ``datetime`` or in ISO 8601,
        local where it names no zone. Several datasets take a time.

    Raises
    ------
    DatasetNotFoundError
        There is none.
    UsageError
        The URL names no place, or the list is empty.
    """
    if _is_several(url, storage_options):
        return _several(url, storage_options, at)
    return status.open(url, storage_options, at=at)


def _is_several(url: Any, storage_options: Mapping[str, Any] | None) -> bool:
    if isinstance(url, (str, PathLike)):
        # a folder may be called so
        return glob.has_magic(fspath(url)) and not Store.named(url, storage_options).exists("dataset.json")
    return isinstance(url, Iterable)


def _several(urls: Any, storage_options: Mapping[str, Any] | None, at: At) -> Datasets:
    if isinstance(at, int) or (isinstance(at, str) and at.strip().isdecimal()):
        raise UsageError(f"at={at}: entries of several logs have numbers of their own; say a time")
    found: dict[str, Dataset] = {}
    for url in [urls] if isinstance(urls, (str, PathLike)) else urls:
        for one in [url] if isinstance(url, Dataset) else _opened(url, storage_options, at):
            found.setdefault(one.url, one)
    if not found:
        raise UsageError("an empty list names no dataset: give at least one URL")
    return Datasets(tuple(found.values()))


def _opened(url: Any, storage_options: Mapping[str, Any] | None, at: At) -> Iterator[Dataset]:
    is_pattern = isinstance(url, (str, PathLike)) and _is_several(url, storage_options)
    yield from (status.open(one, storage_options, at=at) for one in (_matching(url, storage_options) if is_pattern else [url]))


def _matching(pattern: Any, storage_options: Mapping[str, Any] | None) -> list[str]:
    store = Store.named(pattern, storage_options)
    if store.is_local:
        found = glob.glob(f"{store.url}/dataset.json", recursive=True)  # noqa: PTH207  pathlib's has no absolute patterns
    else:
        found = [f"{store.protocol}://{path.lstrip('/')}" for path in store.fs.glob(f"{store.root}/dataset.json")]
    if not found:
        raise DatasetNotFoundError(f"no dataset matches {store.url}: a dataset is a folder with a dataset.json in it")
    return sorted(path.rpartition("/")[0] for path in found)
