"""Rules of where items go: as users write them, against workers, and for items."""

from __future__ import annotations

from typing import Any

import pytest

import dcompute as dc
from dcompute.affinity import affinities_of, grouped, missing, permits
from dcompute.errors import InputError, UsageError, WorkloadError
from dcompute.records import Affinity, Item, ItemKey, Request
from dcompute.resources import WorkerOffer, explain_gap, slots


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (dc.on(zone="a"), [True, False, False]),
        (dc.on(zone=["a", "b"]), [True, True, False]),
        (dc.on(zone="a", host="n2"), [False, False, False]),
        (dc.on(host="n2"), [False, True, False]),
        (dc.on({"spot-price": 3}), [True, False, False]),
        (dc.off(zone="a"), [False, True, True]),
        (dc.off(zone="a", host="n2"), [False, False, True]),
    ],
)
def test_labels_say_where(rule: Affinity, expected: list[bool]) -> None:
    """All labels of what it must be on, none of what it must be off; every worker has a host, and may have a label for it."""
    workers = [("n1", {"zone": "a", "spot-price": "3"}), ("n2", {"zone": "b"}), ("n3", {})]
    assert [permits([rule], *worker) for worker in workers] == expected
    assert all(permits([Affinity(kind=rule.kind, labels=rule.labels, hard=False)], *worker) for worker in workers)


def test_a_worker_without_the_label_has_no_slot_and_the_error_says_which_there_are() -> None:
    """A hard rule about labels is a requirement like others; a soft one is none."""
    offers = [WorkerOffer(address=f"w{zone}", nthreads=2, host="n1", labels={"zone": zone}) for zone in "ab"]
    assert [slots(Request(affinity=(dc.on(zone="a"),)), offer, offers) for offer in offers] == [2, 0]
    assert [slots(Request(affinity=(dc.on(zone="a", hard=False),)), offer, offers) for offer in offers] == [2, 2]
    gap = explain_gap(Request(affinity=(dc.on(zone="c"),)), offers)
    assert gap == "needs a worker with zone=c; there are zone=a or b. Start workers that fit, or use hard=False"
    assert "no worker has such a label" in explain_gap(Request(affinity=(dc.on(rack=["1", "2"]),)), offers)
    assert missing([dc.off(host="n1")], [("n1", {})]) == ["must not be on host=n1; all workers are"]
    assert not missing([dc.on(zone="c", hard=False), dc.together()], [("n1", {})])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: dc.on(), "has no label"),
        (lambda: dc.on(zone=[]), "zone="),
        (lambda: dc.off(zone={"a": 1}), "say text"),
        (lambda: dc.together(by=3), "by=3"),
        (lambda: dc.apart(by=""), "by=''"),
        (lambda: dc.apart(hard="yes"), "hard='yes'"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(make: Any, error: str) -> None:
    """Where it is made, by the name of what is wrong."""
    with pytest.raises(UsageError, match=error):
        make()


def test_a_workload_takes_one_rule_or_several_that_go_together() -> None:
    """And its requests carry them."""
    made = dc.Workload.of(abs).options(affinity=dc.on(zone="a"))
    assert made.request().affinity == (dc.on(zone="a"),)
    assert made.options(affinity=None).request() == Request()
    assert affinities_of([dc.on(zone="a"), dc.on(rack=1), dc.apart()]) == (dc.on(zone="a"), dc.on(rack="1"), dc.apart())
    with pytest.raises(WorkloadError, match=r"dc\.apart\(\.\.\.\) twice"):
        affinities_of([dc.apart(), dc.apart(by="x")])
    with pytest.raises(WorkloadError, match="affinity='zone=a'"):
        affinities_of("zone=a")


def test_items_get_the_values_of_the_rules_about_items() -> None:
    """Of a function or a column, in the order of the rules; rules about labels have none."""
    items = [Item(ItemKey(str(number), "int"), {"site": number % 2}, "", number, 1) for number in range(3)]
    rules = (dc.on(zone="a"), dc.together(by="site"), dc.apart(by=lambda value: value["site"] + 10))
    assert [item.groups for item in grouped(rules, items)] == [(0, 10), (1, 11), (0, 10)]
    assert list(grouped((dc.on(zone="a"),), items)) == items
    assert [item.groups for item in grouped((dc.apart(),), items)] == [(None,)] * 3


@pytest.mark.parametrize("by", ["town", lambda value: value.missing, lambda value: [value]])
def test_an_input_without_such_a_value_is_named(by: Any) -> None:
    """What came before it is still given; a value must be one that can be looked up."""
    items = [Item(ItemKey(str(number), "int"), {"town": "x"} if not number and by == "town" else {}, "", number, 1) for number in range(2)]
    found = grouped((dc.together(by=by),), items)
    if by == "town":
        assert next(found).groups == ("x",)
    with pytest.raises(InputError, match=r"by= of dc\.together\(\.\.\.\) raised .* for the input '[01]'"):
        list(found)
