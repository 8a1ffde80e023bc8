"""Plots of the HTML page, as far as they need no Bokeh."""

from __future__ import annotations

import random

from dcompute.report.plots import labels


def test_labels_are_never_equal() -> None:
    """A plot with two equal labels takes all plots of the page away: what differs in its middle only, or looks numbered, is told apart."""
    long = "company.project.package.errors.TemporaryFailureOfTheUpstreamService"
    assert labels(["a", "b", None]) == ["a", "b", "(unknown)"]
    assert len(set(labels([f"{long}{number}One" for number in range(12)]))) == 12
    assert labels(["a", "a 2", "a", None, "(unknown)", "a"]) == ["a", "a 2", "a 3", "(unknown)", "(unknown) 2", "a 4"]
    chance = random.Random(1)
    for _ in range(200):
        texts = [chance.choice(["a", "a 2", "a 3", "a 2 2", "x" * 50, "x" * 51, "x" * 50 + " 2", "", None]) for _ in range(12)]
        found = labels(texts)
        assert len(set(found)) == 12, texts
        assert max(map(len, found)) <= 43


def test_a_long_label_keeps_both_ends() -> None:
    """Names of exceptions begin alike and differ at their end."""
    one, two = (f"company.project.package.errors.TemporaryFailureOfTheUpstreamService{which}" for which in ("One", "Two"))
    first, second = labels([one, two])
    assert (first[:15], first[-10:], len(first)) == ("company.project", "ServiceOne", 40)
    assert second.endswith("ServiceTwo")
