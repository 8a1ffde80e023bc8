"""A cluster that a function of the user's gives: anything that Dask can connect to."""

from __future__ import annotations

import contextlib
import pkgutil
from typing import Any

from pydantic import Field

from dcompute.clusters.profiles import Opened, Profile
from dcompute.connection import place_of
from dcompute.errors import ClusterError, SettingsError


class Settings(Profile):
    """``kind: call``."""

    call: str  #: ``package.module:function``
    arguments: dict[str, Any] = Field(default_factory=dict, repr=False)  #: keyword arguments of it, which may be secrets


def open_cluster(profile: Settings) -> Opened:
    """What the function gives: a Client, a cluster or an address; the first two are closed in the end.

    Raises
    ------
    SettingsError
        There is no such function.
    ClusterError
        It raised.
    """
    function = _function(profile.call)
    try:
        found = function(**profile.arguments)
    except Exception as error:
        raise ClusterError(f"{profile.call}, which is to give a cluster, raised {type(error).__name__}: {error}") from error
    place = place_of(found)
    return Opened(address=place.address, security=place.security, cluster=place.elastic, close=lambda: _close(found))


def _function(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise SettingsError(f"call: {name!r} names no function: write it as package.module:function")
    try:
        function = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"call: {name!r} cannot be found: {error}. It must be importable here") from error
    if not callable(function):
        raise SettingsError(f"call: {name!r} is {type(function).__name__}, and no function")
    return function


def _close(found: Any) -> None:
    # a cluster that its client knows was made for it
    for one in (found, getattr(found, "cluster", None)):
        close = getattr(one, "close", None)
        if close is not None:
            with contextlib.suppress(Exception):
                close()
