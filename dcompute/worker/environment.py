"""The environment of a child as set-up left it."""

from __future__ import annotations

import os
import time

from dcompute.worker import conditions


class _Noting(dict[bytes, bytes]):
    """Behind ``os.environ``: notes that it was changed, because to compare hundreds of variables after every call is dear."""

    is_changed = False

    def __setitem__(self, name: bytes, value: bytes) -> None:
        self.is_changed = True
        super().__setitem__(name, value)

    def __delitem__(self, name: bytes) -> None:
        self.is_changed = True
        super().__delitem__(name)


class Environment:
    """Knows the variables, and puts them back."""

    def __init__(self) -> None:
        self._text, self._bytes = os.environ, os.environb
        self._kept = dict(self._bytes)
        self._noting = _Noting(self._kept)
        # both are views of one dict
        self._text._data = self._bytes._data = self._noting  # type: ignore[attr-defined]

    def is_changed(self) -> bool:
        """Whether somebody set or removed a variable, to the value that it had perhaps."""
        return self._noting.is_changed or os.environ is not self._text

    def put_back(self, *, imported: bool) -> None:
        """Set and remove until it is as it was; what is new stays where modules were ``imported``."""
        os.environ, os.environb = self._text, self._bytes
        now = dict(self._noting)
        wanted = conditions.variables(self._kept, now, imported=imported)
        for name in now.keys() - wanted.keys():
            del self._bytes[name]
        for name, value in wanted.items():
            if now.get(name) != value:
                self._bytes[name] = value
        if now.get(b"TZ") != wanted.get(b"TZ"):
            time.tzset()
        self._kept, self._noting.is_changed = wanted, False
