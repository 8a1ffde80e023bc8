"""A cluster that is there already, at an address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dcompute.clusters.addresses import ENCRYPTED, parsed
from dcompute.clusters.profiles import Opened, Profile
from dcompute.clusters.tls import in_folder
from dcompute.errors import SettingsError

if TYPE_CHECKING:
    from dcompute.clusters.tls import Credentials


class Settings(Profile):
    """``kind: address``."""

    address: str  #: tls://head:8786, or head:8786


def open_cluster(profile: Settings) -> Opened:
    """Where it is; nobody is asked yet."""
    credentials = in_folder(profile.tls) if profile.tls is not None else None
    if profile.address.startswith("inproc://"):
        return Opened(address=profile.address)
    address = parsed(profile.address, encrypted=credentials is not None, plain=profile.plain)
    return Opened(address=str(address), security=_security(credentials) if address.protocol in ENCRYPTED else None)


def _security(credentials: Credentials | None) -> Any:
    """What to show there: of the folder that was named, else of Dask's configuration.

    Raises
    ------
    SettingsError
        There is nothing to show.
    """
    if credentials is not None:
        return credentials.security()
    import dask

    if dask.config.get("distributed.comm.tls.ca-file", None) is None or dask.config.get("distributed.comm.tls.client.cert", None) is None:
        raise SettingsError(
            "a tls:// address needs certificates, and neither tls: FOLDER (tls= in dc.cluster) nor Dask's configuration "
            "(distributed.comm.tls.ca-file, distributed.comm.tls.client) names any. `dcompute certs FOLDER` makes them; of a cluster "
            "that is there already, ask its owner for them"
        )
    return None
