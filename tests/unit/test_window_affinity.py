"""Affinity in the window: which worker a batch names, what one batch holds, and what is remembered."""

from __future__ import annotations

from dcompute.affinity import apart, on, together
from dcompute.records import Affinity, Item, Kind, Request
from dcompute.window import Capacity, Ended, Offered, Send, Started, Why, Window, WindowConfig
from tests.unit.window_steps import failed, items, only, receipt


def of(*groups: object) -> list[Item]:
    return [item._replace(groups=(group,)) for item, group in zip(items(len(groups)), groups, strict=True)]


class Hosts:
    """A window on workers a1 and a2 of host a, b1 and b2 of host b, and so on, with one slot each."""

    def __init__(
        self, *rules: Affinity, workers: str = "a1 a2 b1 b2", batch_size: int = 1, labels: dict[str, dict[str, str]] | None = None
    ):
        self.request = Request(affinity=rules)
        self.window = Window(WindowConfig(request=self.request, batch_size=batch_size, second_below=0, twins=False))
        self.labels = labels or {}
        self.out: dict[int, Send] = {}
        self.now = 0.0
        self.have(workers)

    def have(self, workers: str) -> list[str]:
        hosts = {worker: worker[0] for worker in workers.split()}
        return self.note(self.window.handle(Capacity({self.request: dict.fromkeys(hosts, 1)}, hosts=hosts, labels=self.labels), self.now))

    def offer(self, *groups: object) -> list[str]:
        return self.note(self.window.handle(Offered(of(*groups), exhausted=True), self.now))

    def end(self, worker: str) -> list[str]:
        send = next(send for send in self.out.values() if worker in (send.only_on, send.alone_on))
        del self.out[send.number]
        self.now += 1
        return self.note(self.window.handle(Ended(send.number, receipt(send, seconds=5)), self.now))

    def note(self, said: list) -> list[str]:
        sends = only(said, Send)
        self.out |= {send.number: send for send in sends}
        return [
            f"{send.only_on or send.alone_on}:{''.join(str(tried.item.groups[0]) for tried in send.tries if tried.item.groups)}"
            for send in sends
        ]

    @property
    def why(self) -> list[tuple[Why, int]]:
        return [(waiting.why, waiting.items) for waiting in self.window.reasons()]


def test_items_of_one_value_go_to_the_host_of_the_last() -> None:
    """A value has its host with its first batch; what belongs elsewhere waits for its host, though others stand idle."""
    hosts = Hosts(together())
    assert hosts.offer(*"xxxxy") == ["a1:x", "a2:x", "b1:y"]
    assert hosts.why == [(Why.AFFINITY, 2)]
    assert hosts.end("b1") == []
    assert hosts.end("a2") == ["a2:x"]


def test_a_soft_rule_prefers_its_host_and_lets_no_slot_stand_idle() -> None:
    """Where nothing else is left for a slot, it takes what belongs elsewhere; and then that belongs there."""
    hosts = Hosts(together(hard=False), workers="a1 b1")
    assert hosts.offer(*"xxxyy") == ["a1:x", "b1:y"]
    assert hosts.end("b1") == ["b1:y"]
    assert hosts.end("b1") == ["b1:x"]
    assert hosts.end("a1") == ["a1:x"]


def test_when_its_host_is_gone_a_value_gets_another() -> None:
    """The batch that was there goes out again elsewhere, and all of its like follow it."""
    hosts = Hosts(together())
    assert hosts.offer(*"xxx") == ["a1:x", "a2:x"]
    hosts.out.clear()
    assert sorted(hosts.have("b1 c1 b2")) == ["b1:x", "b2:x"]
    assert hosts.why == [(Why.AFFINITY, 1)]
    assert hosts.end("b1") == ["b1:x"]


def test_what_keeps_apart_is_never_twice_on_a_host() -> None:
    """Whatever slots it has; by another value it may be there."""
    hosts = Hosts(apart())
    assert hosts.offer(*"xxxxy") == ["a1:x", "a2:y", "b1:x"]
    assert hosts.why == [(Why.AFFINITY, 2)]
    assert hosts.end("a2") == []
    assert hosts.end("a1") == ["a2:x"]


def test_a_batch_holds_one_value_where_a_rule_is_hard_and_several_where_it_is_soft() -> None:
    """Else the items of one value would bind those of another."""
    assert Hosts(apart(), workers="a1", batch_size=4).offer(*"xyxyxy") == ["a1:xxx"]
    assert Hosts(together(hard=False), workers="a1", batch_size=4).offer(*"xyxyxy") == ["a1:xxxy"]


def test_lines_take_turns() -> None:
    """A value with many items does not keep those of others waiting."""
    order = Hosts(apart(), workers="a1")
    order.offer(*"xxxyyz")
    assert [order.end("a1")[0] for _ in range(5)] == ["a1:y", "a1:z", "a1:x", "a1:y", "a1:x"]


def test_workers_with_the_labels_that_are_wanted_come_first() -> None:
    """Others too, when none of those is idle; every batch names its worker."""
    hosts = Hosts(on(zone="good", hard=False), workers="a1 b1 c1", labels={"b1": {"zone": "good"}})
    assert hosts.offer("", "") == ["b1:", "a1:"]


def test_without_a_worker_one_batch_goes_out_unless_a_new_worker_may_be_a_wrong_one() -> None:
    """A cluster that scales from zero starts; a batch that may go to labelled workers only waits for one."""
    hosts = Hosts(apart(), workers="")
    assert hosts.offer(*"xxy") == ["None:x"]
    assert hosts.have("a1 a2 b1") == ["a1:x", "a2:y", "b1:x"]
    labelled = Hosts(on(zone="a"), workers="")
    assert labelled.offer("", "") == []
    assert labelled.why == [(Why.NO_WORKER, 2)]
    assert labelled.window.reasons()[0].text == "no worker has room for 1 cpus, on zone=a"
    assert labelled.have("a1") == ["a1:"]


def test_a_batch_that_started_where_nobody_placed_it_gives_its_value_a_host() -> None:
    """Of the one batch that went out before any worker was there, only its start tells the host."""
    hosts = Hosts(together(hard=False), workers="")
    assert hosts.offer(*"xxy") == ["None:x"]
    assert hosts.have("b1") == []
    hosts.window.handle(Started(1, "b1"), 1.0)
    assert hosts.have("a1 b1 b2") == ["a1:y", "b2:x"]


def test_a_further_attempt_and_an_item_that_runs_alone_keep_the_rule() -> None:
    """A crasher waits for an empty worker of its own host."""
    hosts = Hosts(together(), workers="a1 b1")
    assert hosts.offer(*"xyxy") == ["a1:x", "b1:y"]
    crashed = next(send for send in hosts.out.values() if send.only_on == "a1")
    del hosts.out[crashed.number]
    assert hosts.note(hosts.window.handle(Ended(crashed.number, receipt(crashed, failed(Kind.CRASH), seconds=5)), 1.0)) == ["a1:x"]
    (alone,) = [send for send in hosts.out.values() if send.alone_on]
    assert (alone.alone_on, alone.alone) == ("a1", True)
