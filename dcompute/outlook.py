"""What a run would do, found out without a worker and without writing anything."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dcompute.connection import offers_at
from dcompute.cost import NEWEST, Cost, cost_of
from dcompute.dataset.outcomes import OutcomeReader, iter_outcomes
from dcompute.dataset.state import State
from dcompute.dataset.writer import open_dataset
from dcompute.errors import DatasetNotFoundError, InputError
from dcompute.index import Index
from dcompute.plan import EXAMPLES, Plan, Policy, reasons
from dcompute.progress import duration
from dcompute.resources import slots
from dcompute.summary import counted

if TYPE_CHECKING:
    from dcompute.assignment import Assignment
    from dcompute.dataset.store import Store
    from dcompute.inputs import Inputs
    from dcompute.records import Item

_CHUNK = 8192
#: Characters of a key that a person reads.
_SHOWN = 40
_INTERRUPTED = "  a run before was interrupted, or is at work: what it wrote since its last commit counts as to do; a run adds it first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a run would execute and skip, and why; ``str()`` of it is for people."""

    workload: str
    dataset: str  #: URL
    todo: int  #: items that would be executed
    reasons: Mapping[str, int]  #: how many items, by what would become of them and why
    kept_changed: int  #: finished items of an older form of the function, which would be kept
    kept: Mapping[str, int]  #: finished items that would be kept although this changed: ``on_change="keep"``
    examples: tuple[str, ...]  #: keys of the first items that would be executed
    keys: Mapping[str, tuple[str, ...]]  #: some keys, by what would become of them and why
    cost: Cost  #: in time, if the items are like the last ones
    interrupted: bool  #: a run before was killed or is at work: what it wrote since its last commit counts as to do

    def __str__(self) -> str:
        lines = [f"{self.workload} -> {self.dataset}: {counted(self.todo, 'item')} would be executed"]
        lines += [f"  {count:>10,}  {why}{self._some(why)}" for why, count in self.reasons.items()]
        if self.kept_changed:
            lines.append(f"  {self.kept_changed:>10,}  of those done before, by an older form of the function")
        lines += [f"  {count:>10,}  of those done before, although the {what} changed" for what, count in self.kept.items()]
        if self.interrupted and self.todo:
            lines.append(_INTERRUPTED)
        return "\n".join([*lines, *self._cost()])

    def _some(self, why: str) -> str:
        keys = self.keys.get(why, ())
        more = ", ..." if self.reasons[why] > len(keys) else ""
        return f": {', '.join(map(_short, keys))}{more}" if keys else ""

    def _cost(self) -> list[str]:
        cost = self.cost
        if not self.todo:
            return []
        if not cost.judged_by:
            return ["  no history yet: how long it takes is not known"]
        judged = f"by {counted(cost.judged_by, 'item that ended', 'items that ended')} last"
        wall = cost.wall_seconds
        held = "" if wall is None else f", {duration(wall)} with {counted(cost.slots or 0, 'slot')}"
        return [f"  about {duration(cost.seconds)} of work{held} ({judged})"]


def _short(key: str) -> str:
    return key if len(key) <= _SHOWN else f"...{key[-_SHOWN:]}"


def preview_of(assignment: Assignment) -> Preview:
    """What the run of an assignment would do; reads the dataset and the inputs, and writes nothing."""
    state = _state(assignment.store)
    plan, reader = plan_of(assignment, state, told=True)
    plan.check_counted(assignment.source)
    examples: list[str] = []
    for chunk in _chunks(assignment.source):
        todo = plan.sift(chunk, reader.rows)
        examples += [item.key.text for item in todo[: EXAMPLES - len(examples)]]
    end_plan(plan, assignment.source, reader)
    tally = plan.tally
    return Preview(
        workload=assignment.spec.workload,
        dataset=assignment.store.url,
        todo=tally.todo,
        reasons=reasons(tally, plan.policy.on_gone),
        kept_changed=tally.kept_changed,
        kept=dict(tally.kept),
        examples=tuple(examples),
        keys={why: tuple(keys) for why, keys in plan.examples.items()},
        cost=cost_of(tally.todo, (one.batch for one in state.batches[-NEWEST:]), _slots(assignment) if tally.todo else None),
        interrupted=bool(state.unsettled),
    )


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while chunk := list(itertools.islice(rest, _CHUNK)):
        yield chunk


def _slots(assignment: Assignment) -> int | None:
    offers = offers_at(assignment.place, workers=assignment.options.workers)
    return sum(slots(assignment.request, offer, offers) for offer in offers) or None


def plan_of(assignment: Assignment, state: State, *, told: bool = False) -> tuple[Plan, OutcomeReader]:
    """The plan of a run on a dataset whose log says this, and what looks outcomes up for it."""
    index = Index()
    for chunk in iter_outcomes(assignment.store, state, columns=()):
        index.add(chunk.table.column("item_key").to_pylist(), chunk.table.column("key_kind").to_pylist(), chunk.locations)
    index.close()
    spec = assignment.spec
    policy = Policy(
        again=assignment.options.kinds_again(idempotent=assignment.workload.idempotent),
        mends=assignment.workload.idempotent,
        on_change=assignment.options.on_change,
        on_gone=assignment.options.on_gone,
        params_digest=spec.params_digest,
        code_digest=spec.code_digest,
        version=spec.version,
        seed=spec.seed,
        nameless=assignment.is_nameless,
    )
    return Plan(index, policy, assignment.source.prints, told=told), OutcomeReader(assignment.store, state)


def end_plan(plan: Plan, source: Inputs, reader: OutcomeReader) -> None:
    """Take note that all inputs were read, and count what is gone.

    Raises
    ------
    InputError
        There were none at all, and all that the dataset has would be dropped.
    """
    plan.end(source.left(), reader.rows)
    tally = plan.tally
    if plan.policy.on_gone == "drop" and tally.gone and not (tally.met or tally.unsettled):
        what = counted(tally.gone, "item of the dataset", "items of the dataset")
        raise InputError(
            f'there are no inputs at all, and on_gone="drop" would drop {what}, which is most likely a mistake: {source.why_none()}. '
            'Where it is none, use dc.open(...).delete(...), or say on_gone="keep"'
        )


def _state(store: Store) -> State:
    try:
        return open_dataset(store)[1]
    except DatasetNotFoundError:
        return State()
