"""Profiles: what ``dcompute.clusters`` in the settings says of a cluster, by its kind, checked when it is used."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from dcompute.config import Seconds, settings
from dcompute.errors import SettingsError
from dcompute.secrecy import HIDDEN, shown_value

#: Kind -> the module that knows it: its ``Settings``, and ``open_cluster(settings)``. A new kind is a line here.
KINDS = {
    "local": "dcompute.clusters.local",
    "address": "dcompute.clusters.address",
    "ssh": "dcompute.clusters.ssh",
    "call": "dcompute.clusters.call",
    "slurm": "dcompute.clusters.slurm",
}


class Profile(BaseModel):
    """What profiles of all kinds have; a name is written with ``-`` in YAML, with ``_`` in Python."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        populate_by_name=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )

    kind: str
    tls: str | None = None  #: folder of certificates, as ``dcompute certs`` makes it
    plain: bool = Field(default=False, validation_alias=AliasChoices("plain", "allow-plain", "allow_plain"))
    timeout: Seconds = 60.0  #: to start or reach it


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A cluster that is there."""

    address: str
    security: Any = None  #: as Dask takes it; None: what its configuration says
    cluster: Any = None  #: Dask's cluster, where there is one: it may be adaptive
    close: Callable[[], None] = lambda: None  #: ends what was started


class Kind(Protocol):
    """A module of :data:`KINDS`."""

    Settings: type[Profile]

    def open_cluster(self, profile: Any) -> Opened:
        """Start it, or find it."""


def names() -> list[str]:
    """The names of the profiles that the settings have."""
    return sorted(settings().clusters)


def named(name: str, overrides: Mapping[str, Any]) -> Profile:
    """The profile of a name, with some of its settings replaced.

    Raises
    ------
    SettingsError
        There is none of that name, or it is wrong.
    """
    profiles = settings().clusters
    if name not in profiles:
        close = difflib.get_close_matches(name, profiles, n=1)
        these = f"; is {close[0]!r} meant?" if close else f"; there are {', '.join(sorted(profiles)) or 'none'}"
        raise SettingsError(
            f"dcompute.clusters has no profile {name!r}{these}. Add it to Dask's configuration, or name an address such as tls://head:8786"
        )
    return checked({**_with_hyphens(profiles[name]), **_with_hyphens(overrides)}, f"dcompute.clusters.{name}")


def checked(given: Mapping[str, Any], place: str) -> Profile:
    """What was given, as settings of its kind.

    Parameters
    ----------
    given
        The settings.
    place
        Where they stand, for messages.

    Raises
    ------
    SettingsError
        A name or value is wrong.
    """
    kind = given.get("kind")
    if kind not in KINDS:
        close = difflib.get_close_matches(str(kind), KINDS, n=1)
        said = "has no kind" if kind is None else f"has kind {kind!r}"
        raise SettingsError(f"{place} {said}: {f'is {close[0]!r} meant? ' if close else ''}it is one of {', '.join(KINDS)}")
    model = module_of(kind).Settings
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise SettingsError("\n".join(_complaint(detail, model, place) for detail in error.errors())) from error


def module_of(kind: str) -> Kind:
    """What knows a kind of cluster; loaded when it is used."""
    return cast(Kind, importlib.import_module(KINDS[kind]))


def _with_hyphens(given: Mapping[str, Any]) -> dict[str, Any]:
    found = {str(name).replace("_", "-"): value for name, value in given.items()}
    if "allow-plain" in found:
        found["plain"] = found.pop("allow-plain")
    return found


def _complaint(detail: Any, model: type[Profile], place: str) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in model.model_fields.items()]
        close = difflib.get_close_matches(path, known, n=1)
        return f"{place}.{path} is not a setting of this kind. {f'Is {close[0]!r} meant?' if close else 'These are: ' + ', '.join(known)}"
    if detail["type"] == "missing":
        return f"{place} has no {path}, which this kind needs"
    if not path:
        return f"{place}: {_reason(detail)}"
    return f"{place}.{path} is {_shown(path, detail['input'], model)}, but {_reason(detail)}"


def _shown(path: str, value: Any, model: type[Profile]) -> str:
    """A value for a message; what a repr leaves out may be a secret, whatever its name is."""
    top = path.partition(".")[0]
    hides = any(top in (name, field.alias) and not field.repr for name, field in model.model_fields.items())
    return HIDDEN if hides else shown_value(path, value)


def _reason(detail: Any) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return str(detail["msg"]).replace("Input should", "must").replace("String should", "must")
