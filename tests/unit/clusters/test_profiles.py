"""Profiles of clusters: by kind, with errors that name the setting and never what may be a secret."""

from __future__ import annotations

import dask
import pytest

from dcompute.clusters import profile_of
from dcompute.clusters.profiles import KINDS, Profile, module_of
from dcompute.errors import SettingsError, UsageError

SECRET = "hunter2hunter2"


def given(**profiles: object) -> object:
    return dask.config.set({"dcompute.clusters": profiles})


def test_every_kind_has_its_module() -> None:
    """What the table names can be loaded, and has what a kind needs."""
    for kind in KINDS:
        module = module_of(kind)
        assert issubclass(module.Settings, Profile)
        assert callable(module.open_cluster)


def test_a_name_is_a_profile_and_what_is_given_counts_before_it() -> None:
    """Settings are written with hyphens in YAML and with underscores in Python."""
    with given(lab={"kind": "address", "address": "head:1", "allow-plain": True, "timeout": "5 s"}):
        profile = profile_of("lab", {"timeout": 7})
        assert (profile.plain, profile.timeout) == (True, 7)
        assert profile_of("lab", {"plain": False}).plain is False
        assert profile_of("lab", {"allow_plain": False}).plain is False


def test_without_a_name_the_profile_default_counts() -> None:
    """And a cluster of this machine where there is none; who names a kind wants no profile."""
    assert profile_of(None, {}).kind == "local"
    with given(default={"kind": "address", "address": "head:1"}):
        assert profile_of(None, {}).kind == "address"
        assert profile_of(None, {"kind": "local"}).kind == "local"


def test_an_address_or_a_scheduler_file_needs_no_profile(tmp_path) -> None:
    """The file is the one that Dask's scheduler writes."""
    file = tmp_path / "scheduler.json"
    file.write_text('{"address": "tcp://127.0.0.1:5"}')
    assert profile_of("tls://head:1", {"tls": "certs"}).address == "tls://head:1"
    assert profile_of(file, {}).address == "tcp://127.0.0.1:5"
    file.write_text("{}")
    with pytest.raises(UsageError, match="no scheduler file"):
        profile_of(str(file), {})


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"kind": "adress", "address": "h:1"}, "is 'address' meant"),
        ({"address": "h:1"}, "has no kind"),
        ({"kind": "address"}, "has no address"),
        ({"kind": "local", "worker": 3}, r"dcompute.clusters.lab.worker is not a setting of this kind. Is 'workers' meant\?"),
        ({"kind": "local", "workers": 0}, "dcompute.clusters.lab.workers is 0"),
        ({"kind": "local", "timeout": "soon"}, "must be a time"),
        ({"kind": "call", "call": "a:b", "arguments": f"token={SECRET}"}, "dcompute.clusters.lab.arguments"),
    ],
)
def test_a_wrong_profile_says_what_is_wrong(profile: dict[str, object], said: str) -> None:
    """The setting is named with its whole path, and the nearest right one."""
    with given(lab=profile), pytest.raises(SettingsError, match=said):
        profile_of("lab", {})


@pytest.mark.parametrize("arguments", [f"token={SECRET}", [SECRET], {"token": SECRET}])
def test_no_message_repeats_a_secret(arguments: object) -> None:
    """What a function of the user's is called with may be a password, and what hosts find in their environment too."""
    ssh = {"kind": "ssh", "scheduler": "h", "hosts": ["n"], "environment": {"X": [SECRET]}}
    with given(lab={"kind": "call", "call": 5, "arguments": arguments}, nodes=ssh):
        for name in ("lab", "nodes"):
            with pytest.raises(SettingsError) as error:
                profile_of(name, {})
            assert SECRET not in str(error.value)
        good = profile_of("lab", {"call": "a:b", "arguments": {"token": SECRET}})
    assert SECRET not in repr(good)


def test_a_profile_that_is_not_there_names_those_that_are() -> None:
    """And the nearest one."""
    with given(laboratory={"kind": "local"}):
        with pytest.raises(SettingsError, match="is 'laboratory' meant"):
            profile_of("labratory", {})
        with pytest.raises(SettingsError, match="there are laboratory"):
            profile_of("x", {})


@pytest.mark.parametrize("wrong", [5, {"lab": "tls://head"}, ["lab"]])
def test_profiles_that_are_no_mapping_are_refused(wrong: object) -> None:
    """Before anybody uses one."""
    from dcompute.config import settings

    with dask.config.set({"dcompute.clusters": wrong}), pytest.raises(SettingsError, match=r"dcompute\.clusters"):
        settings()
