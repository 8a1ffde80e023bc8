"""Renaming: columns of the results get other names, without a file being written again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from dcompute.dataset.entries import Action, Rename, SetSchema
from dcompute.dataset.examples import example_of
from dcompute.dataset.keeper import Keeper
from dcompute.dataset.lease import Clock
from dcompute.dataset.renames import Pairs, outstanding, pairs_of, renamed
from dcompute.dataset.schema import RESERVED, from_text, join_declared, to_text
from dcompute.dataset.settling import settled
from dcompute.dataset.state import State
from dcompute.dataset.store import Store
from dcompute.dataset.succession import busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Renaming:
    """What a renaming did; ``str()`` of it is for people."""

    url: str
    columns: Mapping[str, str]  #: by their old names, what columns are called from now on; none that were renamed so before

    def __str__(self) -> str:
        if not self.columns:
            return f"{self.url}: nothing to rename, that was done before"
        return f"{self.url}: renamed {', '.join(f'{old} to {new}' for old, new in self.columns.items())}"


def rename(store: Store, columns: Mapping[str, str], *, clock: Clock = time) -> Renaming:
    """Give columns of the results other names; of what was renamed so before nothing is done.

    Parameters
    ----------
    store
        Where the dataset is.
    columns
        Old names and new ones; all at once, so that two columns may change names.
    clock
        Tells the time and sleeps.

    Returns
    -------
    Renaming
        What was done.

    Raises
    ------
    SchemaError
        There is no such column, or two would have one name; nothing was renamed.
    DatasetBusy
        A driver is alive.
    """
    pairs = pairs_of(columns)
    keeper = Keeper(store)
    if keeper.state.unsettled:
        # what that run wrote has the old names: it must be added before
        with settled(store, keeper.state, "rename", clock=clock) as writer:
            actions = _actions(writer.state, pairs)
            if actions:
                writer.commit(actions)
            return _done(store, actions)

    def decide() -> Sequence[Action] | None:
        if keeper.state.unsettled and keeper.state.driver is not None:
            raise busy(store, keeper.state.driver)
        return _actions(keeper.state, pairs) or None

    entry = keeper.commit(decide)
    return _done(store, () if entry is None else entry.actions)


def due_before(store: Store, state: State, declared: Pairs, *, schema: str | None) -> tuple[Action, ...]:
    """The actions that a run commits before its first batch, so that its workload's declaration holds; mostly none.

    Parameters
    ----------
    store
        The dataset's.
    state
        What the log says.
    declared
        Old and new names that the workload declares.
    schema
        That it declares, as text.

    Raises
    ------
    SchemaError
        There is no such column, two would have one name, or a declared type does not fit the columns after it.
    """
    actions = _actions(state, declared, by_workload=True) if state.schema is not None else _noted(state, declared)
    known = next((action.schema for action in actions if isinstance(action, SetSchema)), state.schema)

    def example(column: str) -> str:
        was = {new: old for action in actions if isinstance(action, Rename) for old, new in action.columns}
        return example_of(store, state, was.get(column, column))

    join_declared(known, schema, example=example)
    return actions


def _noted(state: State, declared: Pairs) -> tuple[Action, ...]:
    """Of results that begin with the new names the log must say so: names alone do not tell a swap that was done from one that was not."""
    return () if all(state.renames.did(*pair) for pair in declared) else (Rename(columns=declared),)


def _actions(state: State, declared: Pairs, *, by_workload: bool = False) -> tuple[Action, ...]:
    """The actions that do what of a declaration was not done yet; none where all of it was."""
    schema = from_text(state.schema) if state.schema is not None else pa.schema([])
    names = [name for name in schema.names if name not in RESERVED]
    due = outstanding(declared, names, state.renames, by_workload=by_workload)
    if not due:
        return ()
    names = renamed(schema.names, due)
    schema = pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])
    return Rename(columns=due), SetSchema(schema=to_text(schema))


def _done(store: Store, actions: Sequence[Action]) -> Renaming:
    return Renaming(url=store.url, columns={old: new for one in actions if isinstance(one, Rename) for old, new in one.columns})
