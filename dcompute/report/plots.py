"""The plots of the HTML page, drawn by Bokeh."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dcompute.report.octaves import edge
from dcompute.report.resources import ALL

if TYPE_CHECKING:
    from dcompute.report.page import Tables

#: Bars of a plot with names, runs of the history.
MOST_BARS, MOST_RUNS = 12, 60

_BLUE, _RED, _GREY = "#2f6fb2", "#c8402f", "#a7b0ba"
_SHARES = {"busy": _BLUE, "around": "#8fb8de", "start": "#e3b341", "middle": "#d98b3a", "tail": "#a7b0ba"}
_SAID = {"busy": "items at work", "around": "rest of batches", "start": "idle at start", "middle": "idle in swing", "tail": "idle at end"}


def embedded(tables: Tables) -> tuple[str, dict[str, str]]:
    """What stands in the head of the page, and a piece of HTML for each plot by its name."""
    from bokeh.embed import components
    from bokeh.resources import Resources

    drawn = {name: figure for name, figure in _plots(tables).items() if figure is not None}
    script, pieces = components(drawn) if drawn else ("", {})
    library = Resources(mode="inline", components=["bokeh"], log_level="warn").render()
    return f"{library}{script}", {name: str(piece) for name, piece in pieces.items()}


def _plots(tables: Tables) -> dict[str, Any]:
    newest = _newest(tables.throughput)
    failed = tables.failures
    return {
        "slots": _slots(newest),
        "rate": _rate(newest),
        "duration": _histogram(tables.spread, "duration", "seconds", 1.0),
        "memory": _histogram(tables.spread, "memory", "MiB", 2**20),
        "kinds": _bars(failed.filter(pc.equal(failed["by"], "error")), "by exception"),
        "hosts": _bars(failed.filter(pc.equal(failed["by"], "host")), "by host"),
        "idle": _idle(tables.resources),
        "scaling": _scaling(tables),
        "runs": _runs(tables.history),
    }


def _figure(title: str, **options: Any) -> Any:
    from bokeh.plotting import figure

    drawn = figure(title=title, height=260, sizing_mode="stretch_width", tools="pan,xwheel_zoom,box_zoom,reset,save", **options)
    drawn.toolbar.logo = None
    return drawn


def _newest(table: pa.Table) -> pa.Table:
    """The bins of the run that began last."""
    return table.filter(pc.equal(table["run"], table["run"][table.num_rows - 1])) if table.num_rows else table


def _edges(table: pa.Table) -> tuple[Any, Any]:
    """Begin and end of bins, in milliseconds since 1970."""
    begin = table["time"].cast(pa.int64()).to_numpy() / 1000
    return begin, np.append(begin[1:], begin[-1] + table["seconds"][-1].as_py() * 1000)


def _slots(table: pa.Table) -> Any:
    if not table.num_rows:
        return None
    drawn = _figure(f"slots at work, run {table['run'][0]}", x_axis_type="datetime")
    left, right = _edges(table)
    for name, colour, said in (("held", _GREY, "with a batch"), ("busy", _BLUE, "with an item")):
        drawn.quad(left=left, right=right, bottom=0, top=table[name].to_numpy(), color=colour, line_color=None, legend_label=said)
    return _with_legend(drawn)


def _rate(table: pa.Table) -> Any:
    if not table.num_rows:
        return None
    drawn = _figure("attempts that ended, a second", x_axis_type="datetime")
    left, right = _edges(table)
    failed = table["failed"].to_numpy() / table["seconds"].to_numpy()
    drawn.quad(left=left, right=right, bottom=0, top=table["rate"].to_numpy(), color=_BLUE, line_color=None, legend_label="succeeded")
    drawn.quad(left=left, right=right, bottom=0, top=failed, color=_RED, line_color=None, legend_label="failed")
    return _with_legend(drawn)


def _histogram(spread: pa.Table, figure: str, unit: str, divisor: float) -> Any:
    of = spread.filter(pc.equal(spread["figure"], figure))
    if not of.num_rows:
        return None
    found = of.group_by("bin").aggregate([("attempts", "sum")]).sort_by("bin")
    bins, counts = found["bin"].to_numpy(), found["attempts_sum"].to_numpy()
    name = {"duration": "duration of attempts", "memory": "peak memory of attempts"}[figure]
    drawn = _figure(f"{name}, {unit}", x_axis_type="log")
    drawn.quad(left=edge(bins) / divisor, right=edge(bins + 1) / divisor, bottom=0, top=counts, color=_BLUE, line_color="white")
    return drawn


def _bars(table: pa.Table, title: str) -> Any:
    if not table.num_rows:
        return None
    rows = table.slice(0, MOST_BARS).to_pylist()[::-1]
    names = labels([row["name"] for row in rows])
    drawn = _figure(f"failed attempts, {title}", y_range=names)
    drawn.hbar(y=names, right=[row["attempts"] for row in rows], height=0.7, color=_RED)
    return drawn


def _idle(table: pa.Table) -> Any:
    from bokeh.models import ColumnDataSource

    rows = [row for row in table.to_pylist() if row["busy"] is not None][: MOST_BARS * 2][::-1]
    if not rows:
        return None
    several = len({(row["workload"], row["version"]) for row in rows}) > 1
    names = labels([f"{row['workload']} {row['version'] or ''} {row['host']}" if several else row["host"] for row in rows])
    drawn = _figure(f"shares of slot time, by host and {ALL}", y_range=names, x_range=(0, 1))
    source = ColumnDataSource({"name": names, **{share: [row[share] for row in rows] for share in _SHARES}})
    drawn.hbar_stack(
        list(_SHARES), y="name", height=0.7, color=list(_SHARES.values()), source=source, legend_label=[_SAID[one] for one in _SHARES]
    )
    drawn.add_layout(drawn.legend[0], "right")
    return drawn


def _scaling(tables: Tables) -> Any:
    if not tables.slots.num_rows:
        return None
    drawn = _figure("items a second by what is at work", x_axis_label="slots or workers at work", y_axis_label="items a second")
    for table, colour, said in ((tables.slots, _BLUE, "by slots"), (tables.workers, _RED, "by workers")):
        if table.num_rows:
            drawn.line(table["instances"].to_numpy(), table["rate"].to_numpy(), color=colour, legend_label=said)
            drawn.scatter(table["instances"].to_numpy(), table["rate"].to_numpy(), color=colour, size=8, legend_label=said)
    return _with_legend(drawn)


def _runs(table: pa.Table) -> Any:
    if not table.num_rows:
        return None
    rows = table.slice(max(0, table.num_rows - MOST_RUNS)).to_pylist()
    names = [str(at) for at in range(table.num_rows - len(rows) + 1, table.num_rows + 1)]
    drawn = _figure("attempts by run", x_range=names)
    drawn.vbar_stack(
        ["succeeded", "failed"], x="run", width=0.8, color=[_BLUE, _RED], legend_label=["succeeded", "failed"],
        source={"run": names, **{name: [row[name] for row in rows] for name in ("succeeded", "failed")}},
    )  # fmt: skip
    return _with_legend(drawn)


def _with_legend(drawn: Any) -> Any:
    drawn.legend.location, drawn.legend.background_fill_alpha, drawn.legend.click_policy = "top_left", 0.6, "hide"
    return drawn


def labels(texts: Sequence[str | None]) -> list[str]:
    """Names for bars: short, and no two of them equal, which a plot cannot have."""
    found: list[str] = []
    for text in texts:
        short = _short(text or "(unknown)")
        several = (f"{short} {number}" for number in count(2))
        found.append(short if short not in found else next(name for name in several if name not in found))
    return found


def _short(text: str) -> str:
    # what begins alike, as names of exceptions do, differs at its end
    return text if len(text) <= 40 else f"{text[:17]}...{text[-20:]}"
