"""What a run would do, found out without a worker and without writing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dcompute.dataset.outcomes import OutcomeReader, iter_outcomes
from dcompute.dataset.state import State
from dcompute.dataset.writer import open_dataset
from dcompute.errors import DatasetNotFoundError, InputError
from dcompute.index import Index
from dcompute.plan import Plan, Policy, reasons
from dcompute.summary import counted

if TYPE_CHECKING:
    from dcompute.assignment import Assignment
    from dcompute.dataset.store import Store
    from dcompute.inputs import Inputs
    from dcompute.records import Item

_CHUNK = 8192
_EXAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a run would execute and skip, and why; ``str()`` of it is for people."""

    workload: str
    dataset: str  #: URL
    todo: int  #: items that would be executed
    reasons: Mapping[str, int]  #: how many items, by what would become of them and why
    kept_changed: int  #: finished items of an older form of the function, which would be kept
    examples: tuple[str, ...]  #: keys of the first items that would be executed

    def __str__(self) -> str:
        lines = [f"{self.workload} -> {self.dataset}: {counted(self.todo, 'item')} would be executed"]
        lines += [f"  {count:>10,}  {why}" for why, count in self.reasons.items()]
        if self.kept_changed:
            lines.append(f"  {self.kept_changed:>10,}  of those done before, by an older form of the function")
        if self.examples:
            more = ", ..." if self.todo > len(self.examples) else ""
            lines.append(f"  first: {', '.join(self.examples)}{more}")
        return "\n".join(lines)


def preview_of(assignment: Assignment) -> Preview:
    """What the run of an assignment would do; reads the dataset and the inputs, and writes nothing."""
    plan, reader = plan_of(assignment, _state(assignment.store))
    plan.check_counted(assignment.source)
    examples: list[str] = []
    chunk: list[Item] = []
    for item in assignment.source:
        chunk.append(item)
        if len(chunk) == _CHUNK:
            _sift(plan, reader, chunk, examples)
            chunk = []
    _sift(plan, reader, chunk, examples)
    end_plan(plan, assignment.source, reader)
    tally = plan.tally
    return Preview(
        workload=assignment.spec.workload,
        dataset=assignment.store.url,
        todo=tally.todo,
        reasons=reasons(tally, plan.policy.on_gone),
        kept_changed=tally.kept_changed,
        examples=tuple(examples),
    )


def plan_of(assignment: Assignment, state: State) -> tuple[Plan, OutcomeReader]:
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
    return Plan(index, policy, assignment.source.prints), OutcomeReader(assignment.store, state)


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


def _sift(plan: Plan, reader: OutcomeReader, chunk: list[Item], examples: list[str]) -> None:
    todo = plan.sift(chunk, reader.rows)
    examples += [item.key.text for item in todo[: _EXAMPLES - len(examples)]]
