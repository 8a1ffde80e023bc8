"""Text as it may be shown: without passwords and tokens of URLs and command lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HIDDEN = "***"

_LOGIN = re.compile(r"(?<=://)[^/@\s'\"]+@")
_QUERY = re.compile(r"(\w+://[^\s'\"?]*)\?[^\s'\"]+")
#: Storage options that say where something is, and not who may see it.
_PLAIN = frozenset({"endpoint_url", "account_name", "project", "region_name", "default_location", "location_mode", "access", "token_uri"})
#: Shorter texts are no secrets, and hiding them would hide words.
_SHORTEST = 6
_LONGEST = 200
_NAME = re.compile(r"(?i)(pass|secret|token|credential|auth|api[-_]?key|access[-_]?key|sas|signature)")


def shown(text: object) -> str:
    """Text in which what logs in to a URL, and what follows its ``?``, is hidden."""
    return _QUERY.sub(rf"\1?{HIDDEN}", _LOGIN.sub(f"{HIDDEN}@", str(text)))


def shown_value(name: str, value: object) -> str:
    """A value of a column, or of whatever has a name, for a message: short, and not at all where its name speaks of a secret."""
    if _NAME.search(name):
        return HIDDEN
    text = shown(repr(_masked(value)))
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _masked(value: object) -> object:
    """A value in which what mappings have under names that speak of secrets is hidden."""
    if isinstance(value, Mapping):
        return {name: HIDDEN if _NAME.search(str(name)) else _masked(inner) for name, inner in value.items()}
    return [_masked(inner) for inner in value] if type(value) is list else value


def secrets_in(options: Mapping[str, Any]) -> frozenset[str]:
    """The texts in storage options that no message may repeat: all but those whose names say that they are harmless."""
    return frozenset(_secrets(options))


def hidden(text: str, secrets: Iterable[str]) -> str:
    """Text in which these secrets, logins and queries of URLs are hidden."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return shown(text)


def _secrets(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _secrets(value)
        elif isinstance(value, str) and name not in _PLAIN and len(value) >= _SHORTEST:
            yield value
            # a connection string is many options in one: the key in it is told alone too
            for part in value.split(";"):
                label, equals, inner = part.partition("=")
                if equals and label.lower() in ("accountkey", "sharedaccesssignature") and len(inner) >= _SHORTEST:
                    yield inner


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
