"""Clusters by name: what a profile in the settings says is found or started, and a client is connected to it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dcompute.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from distributed import Client

    from dcompute.clusters.profiles import Profile

log = logging.getLogger("dcompute.clusters")


def cluster(name_or_address: str | os.PathLike[str] | None = None, /, **overrides: Any) -> Cluster:
    """A cluster to work on, with a client connected to it; close it, or use it in a ``with`` block.

    Parameters
    ----------
    name_or_address
        A profile of the settings (``dcompute.clusters``), the address of a scheduler, or the file that it wrote
        (``dask scheduler --scheduler-file``). Without it the profile ``default`` where there is one, else what ``kind=`` says, else
        worker processes on this machine.
    **overrides
        Settings of the profile that count before what it says, such as ``workers=8``, ``tls="certs"`` or ``plain=True``.

    Raises
    ------
    SettingsError
        The profile is wrong, or there is none.
    UsageError
        The address leads to another machine without encryption, and ``plain=True`` was not given.
    ClusterError
        It cannot be started, or nobody answers there.
    """
    return Cluster(profile_of(name_or_address, overrides))


def profile_of(name_or_address: str | os.PathLike[str] | None, overrides: dict[str, Any]) -> Profile:
    """The settings of what :func:`cluster` takes."""
    from dcompute.clusters.addresses import looks_like_address
    from dcompute.clusters.profiles import checked, named, names

    if name_or_address is None:
        if "kind" not in overrides and "default" in names():
            return named("default", overrides)
        return checked({"kind": "local", **overrides}, "dc.cluster(...)")
    if not isinstance(name_or_address, str | os.PathLike):
        raise UsageError(f"dc.cluster({name_or_address!r}): say the name of a profile, or an address such as tls://head:8786")
    text = os.fspath(name_or_address)
    if text in names():
        return named(text, overrides)
    file = Path(text).expanduser()
    if looks_like_address(text):
        found = text
    elif file.is_file():
        found = address_in(file)
    else:
        return named(text, overrides)
    return checked({"kind": "address", "address": found, **overrides}, f"dc.cluster({text!r})")


def address_in(file: Path) -> str:
    """The address in a scheduler's file.

    Raises
    ------
    UsageError
        It is none.
    """
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
        return str(json.loads(file.read_text(encoding="utf-8"))["address"])
    raise UsageError(f"{file} is no scheduler file")


class Cluster:
    """A cluster that is there, and a client, which Dask takes for the current one too.

    ``dc.map(..., client=cluster)`` takes it; a run without ``client=`` takes the current one.
    """

    def __init__(self, profile: Profile) -> None:
        from dcompute.clusters.profiles import module_of

        self.profile = profile
        self._opened = module_of(profile.kind).open_cluster(profile)
        try:
            self.client = self._connect()  #: a ``distributed.Client``
        except BaseException:
            self._opened.close()
            raise

    @property
    def scheduler_address(self) -> str:
        """The scheduler's address."""
        return self._opened.address

    @property
    def security(self) -> Any:
        """What a client shows there, as Dask takes it."""
        return self._opened.security

    @property
    def cluster(self) -> Any:
        """Dask's own cluster, where one was started: ``scale`` and ``adapt`` are its."""
        return self._opened.cluster

    @property
    def dashboard_link(self) -> str:
        """Where Dask's dashboard is."""
        return str(self.client.dashboard_link)

    def close(self) -> None:
        """Close the client, and end what was started for it."""
        with contextlib.suppress(Exception):
            self.client.close(timeout=3)
        self._opened.close()

    def _connect(self) -> Client:
        from distributed import Client

        try:
            return Client(self._opened.address, security=self._opened.security, timeout=self.profile.timeout, name="dcompute-user")
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            raise ClusterError(_why_not(self._opened.address, error)) from error

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Cluster {self.profile.kind} at {self.scheduler_address}>"


def _why_not(address: str, error: Exception) -> str:
    chain = list(_causes(error))
    text = "; ".join(dict.fromkeys(str(one) or type(one).__name__ for one in chain))
    hint = "It may not have been started, or a firewall is between."
    if address.startswith("tls") or any("ssl" in type(one).__name__.lower() or "SSL" in str(one) for one in chain):
        hint = "Is it there, does it speak TLS, and are your certificates of its authority?"
    return f"no scheduler answers at {address} ({text}). {hint}"


def _causes(error: BaseException | None) -> Any:
    while error is not None:
        yield error
        error = error.__cause__


__all__ = ["Cluster", "address_in", "cluster", "profile_of"]
