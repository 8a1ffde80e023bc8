"""What ``dc.adapt`` refuses, and what it is told that a new worker has."""

from __future__ import annotations

from typing import Any

import pytest

import dcompute as dc
from dcompute.errors import UsageError
from dcompute.scaling import offer_of


class Scalable:
    scheduler_address = "tcp://127.0.0.1:1"

    def scale(self, n: int) -> None:
        raise AssertionError("nothing is to be asked for")


@pytest.mark.parametrize(
    ("cluster", "options", "words"),
    [
        (Scalable(), {"maximum": 0}, "maximum=0"),
        (Scalable(), {"maximum": 2.5}, "whole number"),
        (Scalable(), {"maximum": 2, "minimum": 3}, "no less than minimum=3"),
        (Scalable(), {"maximum": 2}, "offers="),
        (Scalable(), {"maximum": 2, "offers": {"GPU": 1}}, "how many threads"),
        (Scalable(), {"maximum": 2, "offers": {"CPU": "some"}}, "is no number"),
        (Scalable(), {"maximum": 2, "offers": {"CPU": 1}, "idle": "soon"}, "idle='soon'"),
        (object(), {"maximum": 2}, "cannot be scaled"),
    ],
)
def test_what_makes_no_sense_is_refused(cluster: Any, options: dict[str, Any], words: str) -> None:
    """Nothing is started, and the message names the argument."""
    with pytest.raises(UsageError, match=words):
        dc.adapt(cluster, **options)


def test_an_offer_counts_threads_and_memory_as_a_worker_without_declarations_does() -> None:
    """CPU and MEMORY are threads and limit; other names are declared."""
    found = offer_of({"CPU": 8, "MEMORY": "32 GiB", "GPU": 1})
    assert (found.nthreads, found.memory_limit, found.resources) == (8, 32 << 30, {"GPU": 1.0})
