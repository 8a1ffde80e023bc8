"""The failures of a receipt: small on their way, and enough for the driver to decide."""

from __future__ import annotations

import json
import random

import pytest

from dcompute.records import Failure, Kind, Receipt
from dcompute.worker.briefing import DETAILED, MOST_BYTES, MOST_DETAILED, brief

MANY = 10_000


def receipt_of(failures: list[Failure]) -> Receipt:
    return Receipt(batch="b", execution="e", holds=((0, len(failures)),), failures=brief(failures))


def test_ten_thousand_failures_make_a_small_receipt() -> None:
    """Of failures that differ in a number nothing that a policy asks for is lost, message included."""
    bases = ("requests.exceptions.RequestException", "OSError", "Exception", "BaseException")
    text = "item {}: 429 Client Error: the quota of this tenant is used up for url: https://api.example.org/v1/items/{}"
    failures = [
        Failure(
            index=index, kind=Kind.TRANSIENT, error="requests.exceptions.HTTPError", bases=bases, message=text.format(index, index),
            traceback="in fetch\n" * 200,
        )
        for index in range(MANY)
    ]  # fmt: skip
    receipt = receipt_of(failures)
    assert len(json.dumps(receipt.to_json())) < MOST_BYTES
    found = Receipt.from_json(json.loads(json.dumps(receipt.to_json()))).failures
    assert [(one.index, one.kind, one.error, one.bases, one.message) for one in found] == [
        (one.index, one.kind, one.error, one.bases, one.message) for one in failures
    ]
    assert len({id(one.bases) for one in found}) == 1, "kept once in the driver's memory"


def test_failures_that_have_nothing_in_common_are_cut_to_the_bound() -> None:
    """What an attacker makes unlike, names included, gives way; kinds, exit codes and signals never do."""
    rng = random.Random(1)
    kinds = [Kind.PERMANENT, Kind.CRASH, Kind.TRANSIENT]
    failures = [
        Failure(
            index=index, kind=rng.choice(kinds), error=f"{rng.getrandbits(400):x}", bases=(f"{rng.getrandbits(240):x}", "Exception"),
            message=f"{rng.getrandbits(1200):x}", exit_code=rng.randrange(256), signal=rng.randrange(64), traceback="x" * 20_000,
        )
        for index in range(MANY // 4)
    ]  # fmt: skip
    receipt = receipt_of(failures)
    assert len(json.dumps(receipt.to_json())) < 1.02 * MOST_BYTES
    told = [(one.index, str(one.kind), one.exit_code, one.signal) for one in Receipt.from_json(receipt.to_json()).failures]
    assert told == [(one.index, str(one.kind), one.exit_code, one.signal) for one in failures]


def test_the_first_of_each_error_are_told_in_full() -> None:
    """Whichever failure ends a run, one like it has its traceback."""
    failures = [Failure(index=at, kind="permanent", error=f"E{at // 10}", message="m" * 4000, traceback="t" * 9000) for at in range(100)]
    briefed = brief(failures)
    detailed = [one.index for one in briefed if one.traceback]
    assert detailed == [10 * error + at for error in range(MOST_DETAILED // DETAILED) for at in range(DETAILED)]
    assert {len(one.message) for one in briefed} == {2000, 300}


@pytest.mark.parametrize("bases", [(), ("ValueError", "Exception")])
def test_a_receipt_comes_back_as_it_was(bases: tuple[str, ...]) -> None:
    """In JSON and of plain text, because no message of Dask's carries an enumeration's member."""
    failure = Failure(index=3, kind=Kind.CRASH, error="SIGSEGV", bases=bases, message="\ud800 and \0", signal=11, traceback="t")
    receipt = Receipt(batch="b", execution="e", holds=((0, 5),), failures=(failure,))
    data = receipt.to_json()
    assert type(data["failures"]) is str
    assert Receipt.from_json(json.loads(json.dumps(data))) == receipt
    assert type(Receipt.from_json(data).failures[0].kind) is str
    none = Receipt(batch="b", execution="e", holds=())
    assert Receipt.from_json(none.to_json()) == none
