"""Certificates with which the members of a cluster and its users know each other: an authority of its own, nodes, clients."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dcompute.errors import MissingExtraError, SettingsError, UsageError

if TYPE_CHECKING:
    from distributed.security import Security

#: Files of a folder of certificates.
CA, CA_KEY = "ca.pem", "ca-key.pem"
NODE, NODE_KEY = "node.pem", "node-key.pem"
CLIENT, CLIENT_KEY = "client.pem", "client-key.pem"
CONFIGURATION = "dask.yaml"
_FILES = (CA, CA_KEY, NODE, NODE_KEY, CLIENT, CLIENT_KEY, CONFIGURATION)
_KEYS = frozenset({CA_KEY, NODE_KEY, CLIENT_KEY})
#: Days for which certificates are good.
DAYS = 825
#: Certificates begin to be good this long before they are made: clocks of other machines may be behind.
_BEFORE = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What one side shows, and by what it knows the other one; PEM texts or paths."""

    ca: str
    node: tuple[str, str] | None = None  #: certificate and key of scheduler and workers
    client: tuple[str, str] | None = None  #: and of clients

    def __repr__(self) -> str:  # keys are in no log
        return "Credentials(...)"

    def security(self) -> Security:
        """As Dask takes it: mutual, and nothing without encryption."""
        from distributed.security import Security

        # what is missing is None and not what Dask's configuration has: two authorities would be mixed
        node, client = self.node or (None, None), self.client or self.node or (None, None)
        return Security(
            require_encryption=True,
            tls_ca_file=self.ca,
            tls_client_cert=client[0],
            tls_client_key=client[1],
            tls_scheduler_cert=node[0],
            tls_scheduler_key=node[1],
            tls_worker_cert=node[0],
            tls_worker_key=node[1],
        )


def made(hosts: Sequence[str] = (), *, days: int = DAYS) -> dict[str, bytes]:
    """New files by name: an authority, a certificate for scheduler and workers, one for clients, each with its key.

    A client's certificate does not pass for a scheduler's: who has only that one cannot take its place.

    Raises
    ------
    MissingExtraError
        The library that makes them is not installed.
    """
    x509, hashes, ec = _library()
    from cryptography.x509.oid import ExtendedKeyUsageOID as Use

    now = datetime.datetime.now(datetime.UTC)
    span = (now - _BEFORE, now + datetime.timedelta(days=days))
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name(x509, "dcompute cluster authority")
    ca = (
        _builder(x509, ca_name, ca_name, ca_key, span)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(x509, signs=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )

    def issued(name: str, uses: list[Any], names: Sequence[str]) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(x509, _name(x509, name), ca_name, key, span)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(x509, signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_host(x509, one) for one in names]), critical=False)
        return _pem(builder.sign(ca_key, hashes.SHA256())), _pem_key(key)

    node, node_key = issued("dcompute node", [Use.SERVER_AUTH, Use.CLIENT_AUTH], list(dict.fromkeys([*hosts, "localhost", "127.0.0.1"])))
    client, client_key = issued("dcompute client", [Use.CLIENT_AUTH], [])
    return {CA: _pem(ca), CA_KEY: _pem_key(ca_key), NODE: node, NODE_KEY: node_key, CLIENT: client, CLIENT_KEY: client_key}


def temporary(hosts: Sequence[str] = ()) -> Credentials:
    """Credentials of a cluster that lives no longer than this process: they are in no file."""
    files = {name: data.decode() for name, data in made(hosts, days=30).items()}
    return Credentials(ca=files[CA], node=(files[NODE], files[NODE_KEY]), client=(files[CLIENT], files[CLIENT_KEY]))


def write(folder: Path, hosts: Sequence[str] = (), *, force: bool = False, days: int = DAYS) -> list[Path]:
    """Make certificates and put them into a folder, each file whole; keys are for their owner's eyes only.

    Raises
    ------
    UsageError
        Some are there already, and ``force`` is not given.
    """
    folder = folder.expanduser().absolute()
    there = [name for name in _FILES if (folder / name).exists()]
    if there and not force:
        raise UsageError(
            f"{folder} has {', '.join(there)}: members with these certificates would not know those with new ones. Name another folder, "
            "or replace them with --force and hand them out again"
        )
    files = made([*hosts, socket.gethostname()], days=days)
    files[CONFIGURATION] = configuration(folder).encode()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _FILES:
        _put(folder / name, files[name], secret=name in _KEYS)
    return [folder / name for name in _FILES]


def _put(path: Path, data: bytes, *, secret: bool) -> None:
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.unlink(missing_ok=True)
    # nobody else may open a key, not even before its rights are set
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if not secret:
        half.chmod(0o644)
    half.rename(path)


def configuration(folder: Path) -> str:
    """Dask's configuration for whoever has the files of a folder, as YAML."""
    import yaml

    def pair(cert: str, key: str) -> dict[str, str]:
        return {"cert": str(folder / cert), "key": str(folder / key)}

    node = pair(NODE, NODE_KEY)
    tls = {"ca-file": str(folder / CA), "scheduler": node, "worker": dict(node), "client": pair(CLIENT, CLIENT_KEY)}
    tree = {"distributed": {"comm": {"default-scheme": "tls", "require-encryption": True, "tls": tls}}}
    return (
        "# Dask's configuration with these certificates: copy it to ~/.config/dask/ of each host, with the paths that the files have\n"
        f"# there. Hosts of scheduler and workers need {CA}, {NODE} and {NODE_KEY}; users need {CA}, {CLIENT} and {CLIENT_KEY}.\n"
        f"# {CA_KEY} stays here.\n"
        f"{yaml.safe_dump(tree, sort_keys=False)}"
    )


def in_folder(folder: str | os.PathLike[str]) -> Credentials:
    """The credentials whose files are in a folder; a client's host need not have those of nodes.

    Raises
    ------
    SettingsError
        There are none, or one that is there may not be read.
    """
    place = Path(folder).expanduser().absolute()
    ca, node, client = place / CA, _pair(place, NODE, NODE_KEY), _pair(place, CLIENT, CLIENT_KEY)
    missing = [name for name, found in ((CA, ca.is_file()), (f"{CLIENT} and {CLIENT_KEY}", node or client)) if not found]
    if missing:
        raise SettingsError(
            f"{place} has no {' and no '.join(missing)}: name the folder that `dcompute certs FOLDER` made, or a copy of it"
        )
    for path in (str(ca), *(node or ()), *(client or ())):
        if not os.access(path, os.R_OK):
            raise SettingsError(f"{path} may not be read by you: it belongs to whoever made it; ask for a copy of your own")
    return Credentials(ca=str(ca), node=node, client=client)


def of_nodes(folder: str | os.PathLike[str]) -> Credentials:
    """As :func:`in_folder`, for who starts schedulers or workers.

    Raises
    ------
    SettingsError
        There are none for nodes.
    """
    found = in_folder(folder)
    if found.node is None:
        raise SettingsError(f"{folder} has no {NODE} and {NODE_KEY}: only with these can a scheduler or a worker be started")
    return found


def as_text(credentials: Credentials) -> Credentials:
    """The same with the contents of files in place of their paths, for a member on another machine."""

    def text(value: str) -> str:
        return value if "\n" in value else Path(value).read_text(encoding="ascii")

    def both(pair: tuple[str, str] | None) -> tuple[str, str] | None:
        return None if pair is None else (text(pair[0]), text(pair[1]))

    return Credentials(ca=text(credentials.ca), node=both(credentials.node), client=both(credentials.client))


def _pair(place: Path, cert: str, key: str) -> tuple[str, str] | None:
    found = place / cert, place / key
    return (str(found[0]), str(found[1])) if all(path.is_file() for path in found) else None


def _library() -> tuple[Any, Any, Any]:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise MissingExtraError("certificates are made with the package cryptography: pip install 'dcompute[tls]'") from error
    return x509, hashes, ec


def _name(x509: Any, text: str) -> Any:
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])


def _builder(x509: Any, subject: Any, issuer: Any, key: Any, span: tuple[datetime.datetime, datetime.datetime]) -> Any:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(span[0])
        .not_valid_after(span[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(x509: Any, *, signs: bool) -> Any:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        key_cert_sign=signs, crl_sign=signs, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _host(x509: Any, text: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return bytes(certificate.public_bytes(Encoding.PEM))


def _pem_key(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
