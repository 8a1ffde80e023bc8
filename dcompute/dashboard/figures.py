"""What the page shows, from what runs tell their scheduler: tables and lines, bounded, of whatever form that may have. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dcompute.demand import SILENT_SECONDS

#: Texts are cut: they come from whoever reaches the scheduler.
MOST_TEXT = 200
#: No more runs than this are shown, and no more classes of all of them.
MOST_RUNS, MOST_ROWS = 50, 200
#: Points of a line, one a look.
MOST_POINTS = 600

RUN_COLUMNS = (
    "workload",
    "dataset",
    "run",
    "state",
    "succeeded",
    "failed",
    "retrying",
    "running",
    "rate",
    "flying",
    "wanted",
    "weight",
    "host",
)
CLASS_COLUMNS = ("workload", "run", "asks", "priority", "flying", "wanted")

Table = dict[str, list[Any]]


@dataclass(slots=True)
class Line:
    """One run's rate over time."""

    label: str
    times: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_POINTS))
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_POINTS))


class Watch:
    """The runs at a scheduler, looked at now and then."""

    def __init__(self) -> None:
        self._numbers: dict[str, tuple[Any, float]] = {}
        self._runs: dict[str, Mapping[str, Any]] = {}
        self._scaling: Mapping[str, Any] = {}
        self.lines: dict[str, Line] = {}

    def look(self, runs: Any, scaling: Any, now: float) -> None:
        """Take in what the scheduler keeps.

        Parameters
        ----------
        runs, scaling
            As runs and a scaler left them; anything may stand there.
        now
            Seconds since the epoch.
        """
        self._scaling = scaling if isinstance(scaling, Mapping) else {}
        said = {str(run): words for run, words in runs.items() if isinstance(words, Mapping)} if isinstance(runs, Mapping) else {}
        self._numbers = {run: self._seen(run, words.get("number"), now) for run, words in said.items()}
        alive = [run for run in said if now - self._numbers[run][1] < SILENT_SECONDS]
        self._runs = {run: said[run] for run in alive[-MOST_RUNS:]}
        for run, words in self._runs.items():
            line = self.lines.setdefault(run, Line(label=f"{_text(words.get('workload'))} {run}"))
            line.times.append(now)
            line.rates.append(_number(words.get("rate")))
        for run in list(self.lines)[: max(0, len(self.lines) - MOST_RUNS)]:
            del self.lines[run]

    def _seen(self, run: str, number: Any, now: float) -> tuple[Any, float]:
        before, since = self._numbers.get(run, (None, now))
        return (number, since if before == number else now)

    def runs(self) -> Table:
        """A row a run."""
        return _table(RUN_COLUMNS, (_run_row(run, words) for run, words in self._runs.items()))

    def classes(self) -> Table:
        """A row a class of a run: its window."""
        rows = (row for run, words in self._runs.items() for row in _class_rows(run, words))
        return _table(CLASS_COLUMNS, (row for row, _ in zip(rows, range(MOST_ROWS), strict=False)))

    def scaling(self) -> str:
        """What scales the cluster, in a line; "" where nothing does."""
        said = self._scaling
        if not said:
            return ""
        most = said.get("most")
        text = f"Workers: {_text(said.get('have'))} there, {_text(said.get('asked'))} asked for, {_text(said.get('want'))} wanted"
        text += f", {_text(most)} at most" if most is not None else ""
        impossible = said.get("impossible")
        more = [*(impossible if isinstance(impossible, list | tuple) else ()), said.get("trouble")]
        return ". ".join([text, *(_text(one).rstrip(".") for one in more[:5] if one)])


def _table(columns: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> Table:
    found = list(rows)
    return {column: [row[column] for row in found] for column in columns}


def _run_row(run: str, words: Mapping[str, Any]) -> dict[str, Any]:
    counts = words.get("counts")
    counts = counts if isinstance(counts, Mapping) else {}
    classes = list(_classes(words))
    return {
        **{name: _text(words.get(name)) for name in ("workload", "dataset", "state", "host")},
        **{name: int(_number(counts.get(name))) for name in ("succeeded", "failed", "retrying", "running")},
        "run": _text(run),
        "rate": round(_number(words.get("rate")), 2),
        "weight": _number(words.get("weight")),
        "flying": int(sum(_number(one.get("flying")) for one in classes)),
        "wanted": int(sum(_number(one.get("batches")) for one in classes)),
    }


def _class_rows(run: str, words: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for one in _classes(words):
        yield {
            "workload": _text(words.get("workload")),
            "run": _text(run),
            "asks": _asks(one),
            "priority": _number(one.get("priority")),
            "flying": int(_number(one.get("flying"))),
            "wanted": int(_number(one.get("batches"))),
        }


def _classes(words: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    classes = words.get("classes")
    return [one for one in classes if isinstance(one, Mapping)] if isinstance(classes, list | tuple) else []


def _asks(one: Mapping[str, Any]) -> str:
    """What a class asks for, for a person."""
    found = [f"CPU={_number(one.get('cpus')):g}"]
    if _number(one.get("gpus")):
        found.append(f"GPU={_number(one.get('gpus')):g}")
    if _number(one.get("memory")):
        found.append(f"MEMORY={_number(one.get('memory')) / 2**30:.2f} GiB")
    for what in ("resources", "uses"):
        named = one.get(what)
        pairs = named.items() if isinstance(named, Mapping) else ()
        found += [f"{_text(name)}={_number(amount):g}" for name, amount in pairs]
    return _text(", ".join(found))


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 1e18:
        return 0.0
    return float(value)
