"""Where items want to go, or must not: seen from what workers say of themselves, and from other items.

Labels are what a worker's operator says of it, and what it found itself; ``host`` is one that every worker has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dcompute.errors import InputError, UsageError, WorkloadError
from dcompute.records import Affinity, Item

_HOST = "host"


def on(labels: Mapping[str, Any] | None = None, /, *, hard: bool = True, **names: Any) -> Affinity:
    """Only on workers that have these labels.

    Parameters
    ----------
    labels, names
        Labels and the text that each has, or several of which one will do; ``host`` is the name of the worker's machine.
    hard
        False: such workers first, others too.

    Examples
    --------
    >>> import dcompute as dc
    >>> @dc.workload(affinity=[dc.on(zone=["a", "b"]), dc.off(host="login")])
    ... def double(number):
    ...     return 2 * number
    """
    return _labelled("on", labels, names, hard)


def off(labels: Mapping[str, Any] | None = None, /, *, hard: bool = True, **names: Any) -> Affinity:
    """Not on workers that have any of these labels.

    Parameters
    ----------
    labels, names
        As for :func:`on`.
    hard
        False: other workers first, such too.
    """
    return _labelled("off", labels, names, hard)


def together(by: Callable[[Any], Any] | str | None = None, *, hard: bool = True) -> Affinity:
    """On the host of the last item with the same value.

    Parameters
    ----------
    by
        A function of the input, or the name of a column: items with equal values belong together; None: all do.
    hard
        False: there first, elsewhere too. True: elsewhere only when no worker of that host can execute them any more; the hosts of the
        100,000 values that were sent last are remembered.
    """
    return Affinity(kind="together", by=_by(by), hard=_bool(hard))


def apart(by: Callable[[Any], Any] | str | None = None, *, hard: bool = True) -> Affinity:
    """Never two of these at work on one host at once.

    Parameters
    ----------
    by
        A function of the input, or the name of a column: items with equal values keep apart; None: all do.
    hard
        False: on other hosts first, on one host too.
    """
    return Affinity(kind="apart", by=_by(by), hard=_bool(hard))


def affinities_of(value: Any) -> tuple[Affinity, ...]:
    """What a user wrote as ``affinity=``: one or several.

    Raises
    ------
    WorkloadError
        It is something else, or two that do not go together.
    """
    found = (value,) if isinstance(value, Affinity) else tuple(value or ()) if isinstance(value, list | tuple | None) else (value,)
    for rule in found:
        if not isinstance(rule, Affinity):
            raise WorkloadError(f"affinity={value!r}: say dc.on(...), dc.off(...), dc.together(...) or dc.apart(...), or a list of them")
    for kind in ("together", "apart"):
        if sum(rule.kind == kind for rule in found) > 1:
            raise WorkloadError(
                f"affinity= has dc.{kind}(...) twice: bring them together in one function that gives a tuple of both values"
            )
    return found


def grouped(rules: tuple[Affinity, ...], items: Iterable[Item]) -> Iterator[Item]:
    """Items with the values by which they belong together or keep apart.

    Raises
    ------
    InputError
        An input that has no such value.
    """
    rules = grouping(rules)
    return (item._replace(groups=tuple(_value(rule, item) for rule in rules)) for item in items) if rules else iter(items)


def grouping(rules: Iterable[Affinity]) -> tuple[Affinity, ...]:
    """Those that are about other items."""
    return tuple(rule for rule in rules if rule.kind in ("together", "apart"))


def permits(rules: Iterable[Affinity], host: str, labels: Mapping[str, str], *, hard: bool = True) -> bool:
    """Whether a worker is one of those that the rules about labels want: all hard ones, or all soft ones."""
    return all(_matches(rule, host, labels) == (rule.kind == "on") for rule in rules if rule.labels and rule.hard is hard)


def missing(rules: Iterable[Affinity], workers: Iterable[tuple[str, Mapping[str, str]]]) -> list[str]:
    """What no worker has of what hard rules want, for a person; of workers their hosts and labels."""
    workers = list(workers)
    return [
        text
        for rule in rules
        if rule.labels and rule.hard and not any(permits([rule], *worker) for worker in workers)
        for text in _missing(rule, workers)
    ]


def _missing(rule: Affinity, workers: list[tuple[str, Mapping[str, str]]]) -> Iterator[str]:
    wanted = ", ".join(f"{name}={' or '.join(texts)}" for name, texts in rule.labels)
    if rule.kind == "off":
        yield f"must not be on {wanted}; all workers are"
        return
    have = {name: sorted({text for host, labels in workers if (text := _label(name, host, labels)) is not None}) for name, _ in rule.labels}
    there = ", ".join(f"{name}={' or '.join(texts[:5])}{' ...' * (len(texts) > 5)}" for name, texts in have.items() if texts)
    yield f"needs a worker with {wanted}; {f'there are {there}' if there else 'no worker has such a label'}"


def _matches(rule: Affinity, host: str, labels: Mapping[str, str]) -> bool:
    """Whether a worker has all labels of a rule that wants them, or any of one that does not."""
    has = (_label(name, host, labels) in texts for name, texts in rule.labels)
    return all(has) if rule.kind == "on" else any(has)


def _label(name: str, host: str, labels: Mapping[str, str]) -> str | None:
    return labels.get(name, host) if name == _HOST else labels.get(name)


def _value(rule: Affinity, item: Item) -> Any:
    try:
        value = _of(rule.by, item.value)
        hash(value)
    except Exception as error:
        raise InputError(
            f"by= of dc.{rule.kind}(...) raised {type(error).__name__}: {error} for the input {item.key.text!r}: it is a function of the "
            "input, or the name of a column, and gives a number, text or a tuple"
        ) from error
    return value


def _of(by: Any, value: Any) -> Any:
    if by is None:
        return None
    return value[by] if isinstance(by, str) else by(value)


def _labelled(kind: str, labels: Mapping[str, Any] | None, names: Mapping[str, Any], hard: bool) -> Affinity:
    wanted = {**(labels or {}), **names}
    if not wanted:
        raise UsageError(f'dc.{kind}(...) has no label: say dc.{kind}(zone="a")')
    texts = {name: value if isinstance(value, list | tuple | set | frozenset) else [value] for name, value in wanted.items()}
    for name, several in texts.items():
        if not several or not all(isinstance(text, str | int | float) for text in several):
            raise UsageError(f'dc.{kind}({name}={wanted[name]!r}): say text, or several of which one will do, such as {name}=["a", "b"]')
    return Affinity(kind=kind, labels=tuple(sorted((name, tuple(map(str, several))) for name, several in texts.items())), hard=_bool(hard))


def _by(by: Any) -> Any:
    if by is None or callable(by) or (isinstance(by, str) and by):
        return by
    raise UsageError(f"by={by!r}: say a function of the input, or the name of a column")


def _bool(hard: Any) -> bool:
    if not isinstance(hard, bool):
        raise UsageError(f"hard={hard!r}: it is True (must) or False (first)")
    return hard
