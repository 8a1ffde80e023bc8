"""Which of the runs at a scheduler are there."""

from __future__ import annotations

from dcompute.presence import GONE_SECONDS, Sightings


def test_a_run_whose_counter_stands_still_is_gone() -> None:
    """One that counts on stays, one that does not is gone after a few seconds, and is there again when it counts again."""
    seen = Sightings()
    assert set(seen.look({"a": {"number": 1}, "b": {"number": 7}}, 0.0)) == {"a", "b"}
    assert set(seen.look({"a": {"number": 2}, "b": {"number": 7}}, GONE_SECONDS - 0.1)) == {"a", "b"}
    assert set(seen.look({"a": {"number": 3}, "b": {"number": 7}}, GONE_SECONDS)) == {"a"}
    assert set(seen.look({"a": {"number": 3}, "b": {"number": 8}}, GONE_SECONDS + 1)) == {"a", "b"}


def test_what_is_over_or_no_run_is_not_there() -> None:
    """A name whose run said that it is over counts for nothing, and nor does what is not understood."""
    assert Sightings().look({"a": None, "b": "text", "c": {}, "d": {"number": 1}}, 0.0) == {"d": {"number": 1}}
