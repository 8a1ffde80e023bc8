"""What an address of a scheduler means, and that nobody speaks to another machine without encryption by accident."""

from __future__ import annotations

import pytest

from dcompute.clusters.addresses import is_loopback, looks_like_address, parsed
from dcompute.errors import UsageError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("tls://head:8786", "tls://head:8786"),
        ("head:9000", "tls://head:9000"),
        ("head", "tls://head:8786"),
        ("127.0.0.1:8786", "tcp://127.0.0.1:8786"),
        ("localhost", "tcp://localhost:8786"),
        ("[::1]:8786", "tcp://[::1]:8786"),
        ("tcp://127.8.9.10:1", "tcp://127.8.9.10:1"),
        ("2001:db8::1", "tls://[2001:db8::1]:8786"),
        ("wss://head:443/", "wss://head:443"),
    ],
)
def test_what_an_address_means(text: str, meant: str) -> None:
    """Beyond this machine it is TLS where nobody says otherwise; on it there is nobody to hide from."""
    assert str(parsed(text)) == meant


@pytest.mark.parametrize("text", ["tcp://head:8786", "tcp://10.0.0.1", "ws://head:80", "ucx://head:1", "tcp://127.0.0.1.example.org:1"])
def test_plain_addresses_beyond_this_machine_are_refused(text: str) -> None:
    """The error says why and what to do, and whoever asks for it gets it."""
    with pytest.raises(UsageError, match=r"without encryption.*dcompute certs.*plain=True"):
        parsed(text)
    assert parsed(text, plain=True).is_plain


def test_certificates_are_used_on_this_machine_too() -> None:
    """Who has some, and names no protocol, wants them used."""
    assert str(parsed("localhost:1", encrypted=True)) == "tls://localhost:1"


@pytest.mark.parametrize("text", ["", "tls://", "head:port", "head:99999", "tls://user@head:1", "two words:1", "tls://head:1/path"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """The error shows what one looks like."""
    with pytest.raises(UsageError, match=r"tls://head:8786"):
        parsed(text)


def test_names_are_told_from_addresses() -> None:
    """A profile or a file has neither protocol nor port."""
    assert [looks_like_address(text) for text in ("tcp://h", "h:8786", "inproc://1.2.3.4/5/6")] == [True, True, True]
    assert [looks_like_address(text) for text in ("lab", "scheduler.json", "C:", "a:b", "s3://x".replace("s3", ""))] == [False] * 5


def test_loopback_is_told_by_the_address_alone() -> None:
    """No name is looked up: what a resolver says is not what protects."""
    assert [is_loopback(host) for host in ("localhost", "LOCALHOST", "127.0.0.2", "::1")] == [True] * 4
    assert [is_loopback(host) for host in ("127.0.0.1.example.org", "localhost.example.org", "0.0.0.0", "::", "10.0.0.1")] == [False] * 5
