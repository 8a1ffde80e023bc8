"""The commands that look after a dataset: what they do is said, and what cannot be undone is asked for."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from dcompute.cli.main import dcompute
from dcompute.dataset.store import Store
from tests.component.upkeep.driving import Driving, visible


@pytest.fixture
def dataset(tmp_path):
    store = Store.at(tmp_path / "dataset")
    driver = Driving(store)
    for number in range(12):
        driver.add({f"{number}": [{"n": number}]})
    driver.close()
    return store


def call(*words, code=0, **given):
    done = CliRunner().invoke(dcompute, list(map(str, words)), **given)
    assert done.exit_code == code, done.output
    return done.output


def test_compact_and_vacuum(dataset):
    """One file is left of twelve, and each command says what it did."""
    assert "12 results parts" in call("compact", dataset.url)
    assert "nothing to compact" in call("compact", dataset.url)
    assert "0 files (0.0 MB) were removed; 12 that" in call("vacuum", dataset.url)
    listed = call("vacuum", dataset.url, "--retention", "0", "--dry-run").splitlines()
    assert len([line for line in listed if line.startswith("results/")]) == 12
    assert json.loads(call("vacuum", dataset.url, "--retention", "0", "--json"))["removed"] == listed[:12]
    assert len(dataset.names("results")) == 1


def test_compact_all_sorted(dataset):
    """--all and --sort-by arrive."""
    assert json.loads(call("compact", dataset.url, "--all", "--sort-by", "n", "--json"))["written"] == 1
    assert "nothing" in call("compact", dataset.url, "--all", "--sort-by", "n")
    assert "no column 'm'" in call("compact", dataset.url, "--sort-by", "m", code=2)


def test_rename(dataset):
    """Columns get their names at once; what was done before is told, and what is no pair of names is bad use."""
    assert "renamed n to m" in call("rename", dataset.url, "n=m")
    assert "nothing to rename" in call("rename", dataset.url, "n=m")
    assert json.loads(call("rename", dataset.url, "m=n", "--json"))["columns"] == {"m": "n"}
    assert "no column 'k'" in call("rename", dataset.url, "k=m", code=2)
    assert "is not OLD=NEW" in call("rename", dataset.url, "n", code=2)
    assert "two names" in call("rename", dataset.url, "n=a", "n=b", code=2)
    assert "text that Parquet can hold" in call("rename", dataset.url, "m=x\udcff", code=2)  # a byte of the command line that is no UTF-8


def test_delete_asks(dataset):
    """Without --yes it asks, and a no deletes nothing."""
    call("delete", dataset.url, "--key", "3", input="n\n", code=130)
    assert len(visible(dataset)) == 12
    assert "1 item deleted" in call("delete", dataset.url, "--key", "3", input="y\n")
    assert "2 items deleted" in call("delete", dataset.url, "--key", "4", "--key", "5", "--kind", "str", "--yes")
    assert len(visible(dataset)) == 9
    assert "9 items deleted" in call("delete", dataset.url, "--run", "r1", "-y")


def test_delete_in_the_wrong_way(dataset):
    """Neither keys nor a run, both, and keys that are not there are bad use."""
    call("delete", dataset.url, code=2)
    call("delete", dataset.url, "--key", "3", "--run", "r1", code=2)
    assert "Nothing was deleted" in call("delete", dataset.url, "--key", "x", "-y", code=2)


def test_a_retention_that_is_none(dataset):
    """What is no time is bad use."""
    assert "is no time" in call("vacuum", dataset.url, "--retention", "soon", code=2)


def test_archive_and_restore(dataset, tmp_path):
    """There and back."""
    assert "was copied to" in call("archive", dataset.url, tmp_path / "archive")
    call("restore", tmp_path / "archive", tmp_path / "back")
    assert visible(Store.at(tmp_path / "back")) == visible(dataset)
    assert "already" in call("restore", tmp_path / "archive", tmp_path / "back", code=2)
