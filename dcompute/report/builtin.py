"""The built-in reports: what is known of a dataset's attempts, each by its name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dcompute.dataset.frames import to_pandas
from dcompute.dataset.readable import Readable
from dcompute.errors import UsageError
from dcompute.report import cost, failures, resources, runs, scaling, throughput
from dcompute.report.tally import Groups, Tally, gather

LAST, EVERY = "last", "all"


@dataclass(frozen=True)
class Builtin:
    """One report: what it counts, and what it makes of that."""

    tallies: Sequence[Tally] | Callable[..., Sequence[Tally]]
    finish: Callable[..., pa.Table]
    run: str = EVERY  #: of which run, where nothing is said

    @property
    def options(self) -> list[str]:
        """Names of what :attr:`finish` may be told."""
        return [name for name in inspect.signature(self.finish).parameters if name != "counted"]

    def needs(self, options: Mapping[str, Any]) -> Sequence[Tally]:
        """What to count."""
        if not callable(self.tallies):
            return self.tallies
        return self.tallies(**{name: options[name] for name in inspect.signature(self.tallies).parameters if name in options})


#: In the order in which they are told.
BUILTIN = {
    "summary": Builtin(runs.SUMMARY_TALLIES, runs.summary, run=LAST),
    "throughput": Builtin(throughput.TALLIES, throughput.throughput),
    "failures": Builtin(failures.TALLIES, failures.failures),
    "resources": Builtin(resources.TALLIES, resources.resources),
    "scaling": Builtin(scaling.tallies, scaling.scaling),
    "history": Builtin(runs.HISTORY_TALLIES, runs.history),
    "cost": Builtin(cost.TALLIES, cost.cost),
}


def report(dataset: Readable, name: str, *, run: str | None = None, **options: Any) -> Any:
    """A built-in report on a dataset, as a small pandas dataframe.

    Every row of the attempts is read once, on the cluster of the ``Client`` that exists, else in threads here; what is held in memory does
    not grow with their number.

    Parameters
    ----------
    dataset
        Or several that were opened as one.
    name
        ``"summary"``, ``"throughput"``, ``"failures"``, ``"resources"``, ``"scaling"``, ``"history"`` or ``"cost"``.
    run
        Id of a run, ``"last"`` (the newest with an attempt) or ``"all"``; None: the last one for the summary, else all.
    options
        Of that report.

    Raises
    ------
    UsageError
        There is no such report, run or option.
    """
    chosen = _chosen(name)
    _check(name, chosen, options)
    frame = attempts_of(dataset, run or chosen.run)
    return to_pandas(chosen.finish(gather(frame, chosen.needs(options)), **options))


def attempts_of(dataset: Readable, run: str) -> Any:
    """The attempts of one run, of the last one or of all, lazily."""
    if run == EVERY:
        return dataset.attempts()
    known = gather(dataset.attempts(["run", "started"]), [_RUNS])["runs"].sort_by([("began", "ascending"), ("run", "ascending")])
    ids = known["run"].to_pylist()
    if run == LAST:
        # of a dataset without attempts a report has no rows
        return dataset.attempts(filters=[("run", "==", ids[-1])]) if ids and ids[-1] is not None else dataset.attempts()
    if run not in ids:
        newest = f"the newest are {', '.join(map(str, ids[-3:]))}" if ids else "it has none"
        raise UsageError(f"no attempt is of a run {run!r}: {newest}; run='last' is the newest, report('history') has all")
    return dataset.attempts(filters=[("run", "==", run)])


def _runs(attempts: pa.Table) -> pa.Table:
    return pa.table({"run": attempts["run"], "began": attempts["started"], "attempts": pc.cast(pc.is_valid(attempts["run"]), pa.int64())})


_RUNS = Groups(name="runs", columns=("run", "started"), prepare=_runs, keys=("run",), mins=("began",))


def _chosen(name: str) -> Builtin:
    if name in BUILTIN:
        return BUILTIN[name]
    near = difflib.get_close_matches(str(name), BUILTIN, n=1)
    hint = f"did you mean {near[0]!r}? There are" if near else "there are"
    raise UsageError(f"there is no built-in report {name!r}: {hint} {', '.join(BUILTIN)}")


def _check(name: str, chosen: Builtin, options: Mapping[str, Any]) -> None:
    if unknown := sorted(set(options) - set(chosen.options)):
        has = f"it has {', '.join(f'{one}=' for one in ['run', *chosen.options])}"
        raise UsageError(f"{unknown[0]}= is no option of the report {name!r}: {has}")
    if name == "cost" and "price" not in options:
        raise UsageError("the report 'cost' needs price=: what a node costs an hour, such as price=0.8 or price={'gpu-*': 3.2, '*': 0.8}")
