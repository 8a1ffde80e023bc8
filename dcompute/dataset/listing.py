"""Files as their storage lists them, with sizes and the times of their last change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dcompute.dataset.names import REPORTS
from dcompute.dataset.store import Store
from dcompute.errors import StoreError

# what file systems call the time of a file's last change
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True, slots=True)
class File:
    """A file as its storage lists it."""

    size: int
    changed: float  #: seconds since 1970, on the storage's clock


def within(store: Store, folder: str) -> dict[str, File]:
    """The files in a folder of which the storage tells when they changed, those that are being written too, by name from the dataset on."""
    infos: list[Mapping[str, Any]] = _asked(store, folder, lambda: store.fs.ls(store.path(folder), detail=True)) or []
    return {
        f"{folder}/{base}" if folder else base: file
        for info in infos
        if (file := _file(info)) is not None
        for base in [info["name"].rstrip("/").rpartition("/")[2]]
    }


def below(store: Store, folder: str) -> dict[str, File]:
    """:func:`within`, with the files in folders of that folder, at any depth."""
    root = store.path(folder)
    infos: Mapping[str, Mapping[str, Any]] = _asked(store, folder, lambda: store.fs.find(root, detail=True), deep=True) or {}
    # some storages begin a path with a slash, and answer without
    cut = len(root.strip("/")) + 1
    found = {f"{folder}/{path.lstrip('/')[cut:]}": _file(info) for path, info in infos.items()}
    return {name: file for name, file in found.items() if file is not None}


def names_of_reports(store: Store) -> tuple[str, ...]:
    """Of the reports that were published in a dataset; sorted."""
    places = (name.split("/") for name in below(store, REPORTS))
    return tuple(sorted({place[1] for place in places if place[2:3] == ["versions"]}))


def _asked(store: Store, folder: str, act: Callable[[], Any], *, deep: bool = False) -> Any:
    try:
        store.fs.invalidate_cache()
        return store.listed(act, deep=deep)
    except FileNotFoundError:
        return None
    except StoreError:
        raise
    except Exception as error:  # storage clients raise what they like
        raise StoreError(f"could not list {store.url}/{folder}: {type(error).__name__}: {error}") from error


def _file(info: Mapping[str, Any]) -> File | None:
    changed = changed_at(info)
    return File(int(info["size"] or 0), changed) if info["type"] == "file" and changed is not None else None


def changed_at(info: Mapping[str, Any]) -> float | None:
    """When a file changed last, as its file system tells it."""
    for name in _TIMES:
        value = info.get(name)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None
