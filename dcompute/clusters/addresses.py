"""Addresses of schedulers, as people write them: what is meant, and whether anybody on the way could read along."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from dcompute.errors import UsageError

#: Where a scheduler listens when nobody says otherwise.
PORT = 8786
#: Protocols of Dask that encrypt, and say who is there.
ENCRYPTED = frozenset({"tls", "wss"})
#: Protocols that never leave the process.
INSIDE = frozenset({"inproc"})
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


@dataclass(frozen=True, slots=True)
class Address:
    """Protocol, host and port of a scheduler."""

    protocol: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}://{host}:{self.port}"

    @property
    def is_plain(self) -> bool:
        """Whether others on the way can read and change what passes, and anybody who gets there may execute code."""
        return self.protocol not in ENCRYPTED and not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and cannot be reached from another one; names are not looked up."""
    if host.lower() in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def looks_like_address(text: str) -> bool:
    """Whether a text names a scheduler and not a profile or a file: it has a protocol or a port."""
    protocol, separator, _ = text.partition("://")
    if separator:
        return protocol.isalnum()
    host, colon, port = text.rpartition(":")
    return bool(host and colon and port.isdigit())


def parsed(text: str, *, encrypted: bool = False, plain: bool = False) -> Address:
    """What an address means.

    Parameters
    ----------
    text
        ``tls://head:8786``, ``head:8786`` or ``head``.
    encrypted
        Whether there are certificates: they are used on loopback too, where no protocol is named.
    plain
        Whether to go without encryption to other machines.

    Raises
    ------
    UsageError
        It is none, or leads to another machine without encryption and nobody asked for that.
    """
    protocol, separator, rest = text.strip().partition("://")
    host, port = _host_and_port(rest if separator else protocol, text)
    if not separator:
        protocol = "tls" if encrypted or not (plain or is_loopback(host)) else "tcp"
    address = Address(protocol, host, port)
    if address.is_plain and not plain:
        raise UsageError(why_not_plain(str(address)))
    return address


def why_not_plain(address: str) -> str:
    """Why a scheduler is not spoken to without encryption, and what to do."""
    return (
        f"{address} would be spoken to without encryption: whoever reaches that port, or sits on the way, can read what passes and have "
        "any code executed by its workers and by you. Make certificates with `dcompute certs FOLDER`, have scheduler and workers use "
        "them, and name that folder (tls: FOLDER in the profile, tls= in dc.cluster, --tls) with a tls:// address. Where the network "
        "itself is trusted, say so: plain=True, allow-plain: true in the profile, or --plain"
    )


def _host_and_port(rest: str, text: str) -> tuple[str, int]:
    rest = rest.rstrip("/")
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        port = tail.removeprefix(":")
    elif rest.count(":") > 1:  # an IPv6 address alone
        host, port = rest, ""
    else:
        host, _, port = rest.partition(":")
    if (
        not host
        or any(letter.isspace() or letter in "/@?" for letter in host)
        or not (port == "" or (port.isdigit() and int(port) < 65536))
    ):
        raise UsageError(f"{text!r} is no address of a scheduler: write it as tls://head:8786")
    return host, int(port or PORT)
