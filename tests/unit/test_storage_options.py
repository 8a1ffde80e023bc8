"""Options for storages in the settings: which count for a URL, and that no message repeats them."""

from __future__ import annotations

import traceback

import dask
import pytest

from dcompute.config import settings, storage_options
from dcompute.dataset.store import Store
from dcompute.errors import SettingsError
from dcompute.secrecy import hidden, secrets_in

PROFILES = {"s3://": {"anon": True}, "s3://my_lab/": {"profile": "lab"}, "s3://my_lab/archive": {"key": "a", "client_kwargs": {"x_y": 1}}}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://my_lab/flux", {"profile": "lab"}),
        ("s3://my_lab", {"profile": "lab"}),
        ("s3://my_lab/archive/2024", {"key": "a", "client_kwargs": {"x_y": 1}}),
        ("s3://my_lab/archived", {"profile": "lab"}),
        ("s3://my_labs/flux", {"anon": True}),
        ("gs://my_lab/flux", {}),
    ],
)
def test_longest_prefix_counts(url, expected):
    """The options of the longest prefix that covers a URL, by whole names, count, with their spelling as it is."""
    with dask.config.set({"dcompute.storage": PROFILES}):
        assert storage_options(url) == expected


def test_options_may_stand_in_the_environment():
    """One variable holds them as Python or JSON."""
    found = dask.config.collect_env({"DASK_DCOMPUTE__STORAGE": '{"s3://lab/": {"profile": "lab"}}'})
    with dask.config.set(found):
        assert storage_options("s3://lab/x") == {"profile": "lab"}


def test_empty_section_is_none():
    """A section of which only the name is left says nothing."""
    with dask.config.set({"dcompute": {"storage": None}}):
        assert storage_options("s3://lab/x") == {}


@pytest.mark.parametrize("wrong", ["hunter2", {"s3://lab/": "hunter2"}, {"lab": {"secret": "hunter2"}}, ["hunter2"]])
def test_no_message_repeats_what_stands_there(wrong):
    """A section of a wrong form is refused in words that do not show it, nor does what they came from."""
    with dask.config.set({"dcompute.storage": wrong}), pytest.raises(SettingsError, match=r"dcompute\.storage") as caught:
        settings()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_settings_do_not_show_them():
    """Who prints the settings prints no secret."""
    with dask.config.set({"dcompute.storage": {"s3://lab/": {"secret": "hunter2"}}}):
        assert "hunter2" not in repr(settings())


def test_options_of_the_settings_stay_where_they_are():
    """A store that travels takes what was given by hand, and nothing of the settings."""
    import pickle

    with dask.config.set({"dcompute.storage": {"s3://lab/": {"secret": "hunter2"}}}):
        data = pickle.dumps(Store.at("s3://lab/flux", {"key": "by hand"}))
    assert b"by hand" in data
    assert b"hunter2" not in data


def test_secrets_are_hidden_in_text():
    """All options but those that say where something is are hidden, also the key within a connection string."""
    options = {
        "endpoint_url": "http://host:1",
        "client_kwargs": {"token": "t0ken-t0ken"},
        "connection_string": "AccountName=lab;AccountKey=c2VjcmV0;BlobEndpoint=http://host:2;",
    }
    text = hidden("http://host:1 said t0ken-t0ken and c2VjcmV0, see http://host/x?sig=abc", secrets_in(options))
    assert text == "http://host:1 said *** and ***, see http://host/x?***"
