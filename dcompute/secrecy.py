"""Text as it may be shown: without passwords and tokens of URLs and command lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

HIDDEN = "***"

_LOGIN = re.compile(r"(?<=://)[^/@\s'\"]+@")
_QUERY = re.compile(r"(\w+://[^\s'\"?]*)\?[^\s'\"]+")
_NAME = re.compile(r"(?i)(pass|secret|token|credential|auth|api[-_]?key|access[-_]?key|sas|signature)")


def shown(text: object) -> str:
    """Text in which what logs in to a URL, and what follows its ``?``, is hidden."""
    return _QUERY.sub(rf"\1?{HIDDEN}", _LOGIN.sub(f"{HIDDEN}@", str(text)))


def shown_words(words: Iterable[str]) -> Iterator[str]:
    """A command line's words, without the values of options and settings whose names speak of secrets."""
    is_next_hidden = False
    for word in words:
        name, equals, value = word.partition("=")
        speaks = bool(_NAME.search(name))
        if is_next_hidden and not word.startswith("-"):
            yield HIDDEN if not equals or not speaks else f"{name}={HIDDEN}"
        elif equals and speaks:
            yield f"{name}={HIDDEN}"
        else:
            yield shown(word) if not value or speaks else f"{name}={shown(value)}"
        is_next_hidden = speaks and word.startswith("-") and not equals
