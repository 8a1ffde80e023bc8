"""Who is tried again, how often, when and how: a policy as data, and one pure decision.

What a workload that says nothing gets is in :data:`TABLE`. Losses of workers are not billed to an item and have a bound of their own,
:data:`LOSSES`; they never come here.
"""

from __future__ import annotations

import inspect
import random
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dcompute.errors import WorkloadError
from dcompute.records import OWN_KINDS, Failure, Kind

#: Attempts that an item may lose with its worker; the last of them runs alone on a worker.
LOSSES = 5


def _check_count(name: str, value: Any, more: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise WorkloadError(f"{name}={value!r}: say a whole number of further attempts, 0 for none{more and f',{more}'}.")


def _check_number(name: str, value: Any, least: int, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= sys.float_info.max:
        raise WorkloadError(f"{name}={value!r}: say a number of {least} or more, {unit}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How often one sort of failure is tried again, when and how.

    The wait after failure ``n`` that this rule decides is ``delay * factor ** (n - 1)``, at most ``longest``; with ``jitter`` a random time
    between nothing and that, so that items which failed together do not come back together.
    """

    retries: int | None = 0  #: more attempts; None: while the memory can still be raised
    delay: float = 0.0  #: seconds after the first failure
    factor: float = 1.0  #: by which each later wait is longer
    longest: float = 300.0  #: seconds
    jitter: bool = True
    memory: float = 1.0  #: by which the memory is raised, up to the largest worker
    alone: bool = False  #: the next attempt runs in a fresh child, with nothing else of ours on its worker

    def __post_init__(self) -> None:
        if self.retries is not None:
            _check_count("retries", self.retries)
        _check_number("delay", self.delay, 0, "seconds")
        _check_number("factor", self.factor, 1, "by which each later wait is longer")
        _check_number("longest", self.longest, 0, "seconds")
        _check_number("memory", self.memory, 1, "by which the memory is raised")
        for name, value in (("jitter", self.jitter), ("alone", self.alone)):
            if not isinstance(value, bool):
                raise WorkloadError(f"{name}={value!r}: say True or False.")
        if self.retries is None and self.memory <= 1:
            raise WorkloadError("retries=None ends only where memory is raised: say a number, or memory=2.")

    def wait(self, attempt: int, rng: random.Random) -> float:
        """Seconds to wait after the failure of this attempt.

        Parameters
        ----------
        attempt
            Number of the attempt that failed among those that this rule decides, from 1.
        rng
            Source of the jitter.
        """
        # The exponent is bounded because a float overflows long before a patient policy ends.
        longest = min(self.longest, self.delay * self.factor ** min(attempt - 1, 60))
        return rng.uniform(0.0, longest) if self.jitter else longest


#: What is done when a workload says nothing.
TABLE: Mapping[str, Rule] = {
    Kind.TRANSIENT: Rule(retries=4, delay=1.0, factor=2.0, longest=300.0),
    Kind.RECOVERABLE: Rule(retries=2, delay=1.0, factor=1.5, longest=60.0),
    Kind.PERMANENT: Rule(retries=0),
    Kind.TIMEOUT: Rule(retries=0),
    Kind.MEMORY: Rule(retries=None, memory=2.0),
    Kind.CRASH: Rule(retries=1, alone=True),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of an item after a failed attempt."""

    again: bool  #: False: the failure is final
    delay: float = 0.0  #: seconds until then
    memory: float = 1.0  #: by which its memory is raised
    alone: bool = False
    only_larger: bool = False  #: only if its memory can still be raised; else the failure is final
    problem: str = ""  #: why the user's predicate could not be asked


FINAL = Decision(again=False)


class Retry:
    """A policy for failures of the items themselves.

    ``Retry()`` is the table that holds when a workload says nothing. Each number or rule changes it for one sort of failure; the first of
    these that knows a failure decides: predicate, exit code, signal, exception (its own type before its bases), kind, ``retries``, table.
    Each has a budget of its own: it counts the failures of an item that it decided, and those only. So after a connection that broke a
    crash is still executed once more, and an item has at most as many attempts as all the budgets that its failures ask for.

    Parameters
    ----------
    retries
        More attempts for any failure of the item itself; None: by the table.
    kinds, exceptions, exit_codes, signals
        Number of more attempts, or a :class:`Rule`, for a kind (``"timeout"``), an exception (its class, its qualified name or the last
        part of that; subclasses too), an exit code, a signal (``"SIGBUS"`` or its number). A number keeps delays, doubled memory and
        running alone of the table.
    predicate
        Called with each :class:`~dcompute.records.Failure`: True tries again while a budget is left (that of a transient failure where the
        rule would have none), False is final, None leaves it to the rules.

    Raises
    ------
    WorkloadError
        A number, kind, signal or rule that makes no sense.

    Examples
    --------
    >>> Retry(3, exceptions={"requests.exceptions.HTTPError": Rule(retries=9, delay=10)}, exit_codes={75: 5}).describe()
    'retries=3, 2 rules'
    """

    __slots__ = ("_exceptions", "_exit_codes", "_kinds", "_predicate", "_retries", "_signals")

    def __init__(
        self,
        retries: int | None = None,
        *,
        kinds: Mapping[str, int | Rule] | None = None,
        exceptions: Mapping[str | type[BaseException], int | Rule] | None = None,
        exit_codes: Mapping[int, int | Rule] | None = None,
        signals: Mapping[str | int, int | Rule] | None = None,
        predicate: Callable[[Failure], bool | None] | None = None,
    ) -> None:
        if retries is not None:
            _check_count("retries", retries)
        _check_predicate(predicate)
        self._retries = retries
        self._kinds = _rules("kinds", kinds, _kind)
        self._exceptions = _rules("exceptions", exceptions, _name)
        self._exit_codes = _rules("exit_codes", exit_codes, _exit_code)
        self._signals = _rules("signals", signals, _signal)
        self._predicate = predicate

    @classmethod
    def times(cls, retries: int) -> Retry:
        """The policy of ``retries=N``: so many more attempts for any failure of the item itself."""
        return cls(retries)

    @classmethod
    def of(cls, retries: int | Retry | None) -> Retry:
        """The policy that a workload's ``retries=`` means."""
        return retries if isinstance(retries, Retry) else cls(retries)

    def decide(self, failure: Failure, attempt: int, rng: random.Random) -> Decision:
        """What becomes of an item.

        Parameters
        ----------
        failure
            Why its attempt failed.
        attempt
            Number of that attempt among those with the same :meth:`budget`, from 1.
        rng
            Source of the jitter.
        """
        if failure.kind not in OWN_KINDS:
            return FINAL
        wanted, problem = self._ask(failure)
        rule = self._rule(failure)[1]
        if wanted is True and rule.retries == 0:
            rule = _with_budget(rule)
        if wanted is False or (rule.retries is not None and attempt > rule.retries):
            return replace(FINAL, problem=problem) if problem else FINAL
        only_larger = rule.retries is None
        return Decision(True, rule.wait(attempt, rng), rule.memory, rule.alone, only_larger, problem)

    def budget(self, failure: Failure) -> str:
        """What a failure of the item itself is counted with: the same text for all that one rule decides."""
        return self._rule(failure)[0]

    @property
    def is_by_kind(self) -> bool:
        """Whether it decides by the kind of a failure alone."""
        return not (self._exceptions or self._exit_codes or self._signals or self._predicate)

    def describe(self) -> str:
        """The policy in a few words."""
        rules = len(self._kinds) + len(self._exceptions) + len(self._exit_codes) + len(self._signals) + (self._predicate is not None)
        return f"retries={'by kind' if self._retries is None else self._retries}" + (f", {rules} rules" if rules else "")

    def __repr__(self) -> str:
        return f"Retry({self.describe()})"

    def _ask(self, failure: Failure) -> tuple[bool | None, str]:
        if self._predicate is None:
            return None, ""
        try:
            answer = self._predicate(failure)
        except Exception as error:  # noqa: BLE001  a predicate is user code: it must not end the run of everybody else's items
            return None, f"the retry predicate raised {type(error).__name__}: {error}"
        return (None if answer is None else bool(answer)), ""

    def _rule(self, failure: Failure) -> tuple[str, Rule]:
        """The rule that decides, and its budget."""
        basis = TABLE[failure.kind]
        budget, found = self._named(failure) or self._general(failure.kind)
        if found is None:
            return budget, basis
        return budget, found if isinstance(found, Rule) else _with_retries(basis, found)

    def _general(self, kind: str) -> tuple[str, int | Rule | None]:
        if kind in self._kinds or self._retries is None:
            return kind, self._kinds.get(kind)
        return "retries", self._retries

    def _named(self, failure: Failure) -> tuple[str, int | Rule] | None:
        # Budgets are kept with each item that waits: equal texts are one object.
        if failure.exit_code is not None and failure.exit_code in self._exit_codes:
            return sys.intern(f"exit code {failure.exit_code}"), self._exit_codes[failure.exit_code]
        if failure.signal is not None and failure.signal in self._signals:
            return sys.intern(f"signal {failure.signal}"), self._signals[failure.signal]
        if self._exceptions:
            for name in (failure.error, *failure.bases):
                whole = name if "." in name else f"builtins.{name}"
                for known in (whole, name, name.rpartition(".")[2]):
                    if known in self._exceptions:
                        return sys.intern(f"exception {known}"), self._exceptions[known]
        return None


def _with_retries(basis: Rule, retries: int) -> Rule:
    return replace(basis, retries=retries)


def _with_budget(rule: Rule) -> Rule:
    patient = TABLE[Kind.TRANSIENT]
    return replace(patient, memory=rule.memory, alone=rule.alone)


# ------------------------------------------------------------------------------------------------------ what a user may say

_Known = TypeVar("_Known", bound=str | int)

#: What each argument of a policy looks like.
_EXAMPLES = {
    "kinds": 'kinds={"timeout": 2}',
    "exceptions": "exceptions={ConnectionError: 9}",
    "exit_codes": "exit_codes={75: 5}",
    "signals": 'signals={"SIGBUS": 1}',
}


def _rules(argument: str, given: Any, known: Callable[[Any], _Known]) -> dict[_Known, int | Rule]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise WorkloadError(f"{argument}={given!r}: say what is tried again and how often, as {_EXAMPLES[argument]}.")
    for name, rule in given.items():
        if not isinstance(rule, Rule):
            _check_count(f"{argument}[{name!r}]", rule, " or a dc.Rule(...)")
    return {known(name): rule for name, rule in given.items()}


def _check_predicate(predicate: Any) -> None:
    if predicate is None:
        return
    if isinstance(predicate, type) or not callable(predicate):
        raise WorkloadError(f"predicate={predicate!r}: give a function of a Failure that returns True, False or None.")
    if inspect.iscoroutinefunction(predicate):
        raise WorkloadError(f"predicate={predicate!r} is asynchronous: give an ordinary function, which answers at once.")


def _kind(name: Any) -> str:
    if not isinstance(name, str) or name not in OWN_KINDS:
        shown = str(name) if isinstance(name, Kind) else name
        raise WorkloadError(f"kinds={{{shown!r}: ...}}: no rule can be given for this kind; it is one of {', '.join(sorted(OWN_KINDS))}.")
    return Kind(name)


def _name(exception: Any) -> str:
    if isinstance(exception, str) and exception.strip():
        return exception
    if isinstance(exception, type) and issubclass(exception, BaseException):
        # With its module, so that the built-in ConnectionError does not stand for that of requests.
        return f"{exception.__module__}.{exception.__qualname__}"
    raise WorkloadError(f"exceptions={{{exception!r}: ...}}: this is no exception; give its class or its qualified name.")


def _exit_code(code: Any) -> int:
    if not isinstance(code, int) or isinstance(code, bool) or code < 0:
        hint = f"; for a signal say signals={{{-code}: ...}}" if isinstance(code, int) and code < 0 else ""
        raise WorkloadError(f"exit_codes={{{code!r}: ...}}: an exit code is a whole number, as in {_EXAMPLES['exit_codes']}{hint}.")
    return code


def _signal(name: Any) -> int:
    try:
        number: Any = None if isinstance(name, bool) else name
        return signal.Signals[name].value if isinstance(name, str) else signal.Signals(number).value
    except (KeyError, ValueError):
        raise WorkloadError(
            f"signals={{{name!r}: ...}}: this is no signal of this system; give a name such as 'SIGBUS', or its number."
        ) from None
