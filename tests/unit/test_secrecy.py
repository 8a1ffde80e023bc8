"""What may be shown of URLs and command lines."""

from __future__ import annotations

import pytest

import dcompute as dc
from dcompute.errors import InputError
from dcompute.secrecy import shown, shown_value, shown_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/a/*.csv", "s3://bucket/a/*.csv"),
        ("ftp://user:PW@host/x cannot be listed", "ftp://***@host/x cannot be listed"),
        ("https://host/x?sig=TOKEN&y=1 failed", "https://host/x?*** failed"),
        ("'raw/?.csv' matches", "'raw/?.csv' matches"),
    ],
)
def test_urls_lose_what_logs_in(text: str, expected: str) -> None:
    """Patterns of local files keep their question marks."""
    assert shown(text) == expected


def test_command_lines_lose_the_values_of_secrets() -> None:
    """In each way in which a value can be given; all else stays, so that the line still says what to do."""
    words = ["run", "f.py:f", "--db-password", "PW", "--token=T", "--set", "api_key=K", "--set", "n=3", "--set", "at=ftp://u:PW@h/x"]
    expected = ["run", "f.py:f", "--db-password", "***", "--token=***", "--set", "api_key=***", "--set", "n=3", "--set", "at=ftp://***@h/x"]
    assert list(shown_words(words)) == expected


def test_files_that_cannot_be_listed_show_no_password() -> None:
    """Neither in what we say nor in what the storage said."""
    with pytest.raises(InputError) as caught:
        list(dc.files("ftp://user:S3CRETPW@127.0.0.1:1/x/*.csv"))
    assert "S3CRETPW" not in str(caught.value)


def test_values_lose_what_has_the_name_of_a_secret() -> None:
    """At any depth of mappings and lists; all else is as Python writes it."""
    value = {"user": "bob", "logins": [{"Password": "PW", 1: "one"}], "pair": (1, "two")}
    assert shown_value("value", value) == "{'user': 'bob', 'logins': [{'Password': '***', 1: 'one'}], 'pair': (1, 'two')}"
    assert shown_value("api_key", 5) == "***"
