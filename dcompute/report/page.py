"""One HTML file about a dataset: figures, tables and plots, which needs no network and asks for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, NamedTuple, cast

import pyarrow as pa

from dcompute.dataset.many import Datasets
from dcompute.dataset.readable import Readable
from dcompute.dataset.status import Dataset
from dcompute.errors import MissingExtraError
from dcompute.report import failures, resources, runs, scaling, throughput
from dcompute.report.freshness import Freshness
from dcompute.report.lying import freshness_of
from dcompute.report.tally import Counted, Tally, gather

#: Rows of a table on the page, and bins of a run in its plots.
MOST_ROWS, MOST_BINS = 25, 200

_NEEDED: tuple[Tally, ...] = (
    *runs.SUMMARY_TALLIES,
    *throughput.TALLIES,
    *failures.TALLIES,
    *resources.TALLIES,
    *scaling.tallies("workers"),
)
_TALLIES = tuple({tally.name: tally for tally in _NEEDED}.values())
# what a page may load: what lies in it, and nothing from anywhere else
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere} h2{font-size:1.1rem;margin:2.2rem 0 .6rem} p{margin:.3rem 0;color:#57606a}
table{border-collapse:collapse;font-size:.86rem} th,td{padding:.25rem .7rem .25rem 0;text-align:left;vertical-align:top;
border-bottom:1px solid #e6e8eb;overflow-wrap:break-word;max-width:24rem}
th{white-space:nowrap} td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.figures{display:flex;flex-wrap:wrap;gap:.6rem;margin:1rem 0} .figures div{border:1px solid #d8dee4;border-radius:6px;padding:.4rem .8rem}
.figures b{display:block;font-size:1.15rem} .figures span{color:#57606a;font-size:.8rem} .wide{overflow-x:auto} li{margin:.2rem 0}
"""


class Tables(NamedTuple):
    """What the page is about."""

    summary: pa.Table
    throughput: pa.Table
    failures: pa.Table
    resources: pa.Table
    slots: pa.Table  #: scaling by slots
    workers: pa.Table  #: scaling by workers
    history: pa.Table
    spread: pa.Table


def page(dataset: Readable) -> str:
    """The text of an HTML file about a dataset: what the built-in reports say of all its runs, with plots.

    Its size does not grow with the number of attempts: 1 MB of it is Bokeh, and a plot has some hundred points.

    Parameters
    ----------
    dataset
        Or several that were opened as one.

    Raises
    ------
    MissingExtraError
        Bokeh is not installed.
    """
    try:
        import bokeh  # noqa: F401
    except ImportError as error:
        raise MissingExtraError('an HTML report needs Bokeh: pip install "dcompute[report]"') from error
    fresh = freshness(dataset)
    tables = tables_of(gather(dataset.attempts(), _TALLIES))
    lying = [one for each in (dataset if isinstance(dataset, Datasets) else (dataset,)) for one in freshness_of(cast("Dataset", each))]
    return written(_title(dataset), fresh, tables, lying)


def tables_of(counted: Counted) -> Tables:
    """What the built-in reports say, from what was counted for the page."""
    return Tables(
        summary=runs.summary(counted),
        throughput=throughput.throughput(counted, bins=MOST_BINS),
        failures=failures.failures(counted),
        resources=resources.resources(counted),
        slots=scaling.scaling(counted),
        workers=scaling.scaling(counted, by="workers"),
        history=runs.history(counted),
        spread=counted["spread"],
    )


def freshness(dataset: Any) -> str:
    """As of when the dataset is shown."""
    status = dataset.status()
    parts = []
    for one in getattr(status, "each", (status,)):
        commit = _time(datetime.fromtimestamp(one.last_commit, UTC)) if one.last_commit is not None else "none yet"
        parts.append(f"{one.state}, last commit {commit}")
    state = getattr(dataset, "state", None)
    number = f"as of entry {state.number} of its log" if state is not None else f"{len(parts)} datasets"
    return f"{number}, {'; '.join(dict.fromkeys(parts))}; written {_time(datetime.now(UTC))}"


def written(title: str, fresh: str, tables: Tables, lying: Sequence[Freshness] = ()) -> str:
    """The page, from what it says; with the freshness of the reports that lie in the dataset."""
    from dcompute.report.plots import embedded

    head, bodies = embedded(tables)
    sections = [
        _section("Slots and rate over time", "The newest run; one point a bin.", bodies, ("slots", "rate")),
        _section("Durations and memory", "Attempts by duration and by peak memory.", bodies, ("duration", "memory")),
        _section("Failures", "Attempts that failed, retried ones too.", bodies, ("kinds", "hosts"), _failures(tables.failures)),
        _section("Resources", "Where the time of the slots went.", bodies, ("idle",), _resources(tables.resources)),
        _section("Scaling", "What more slots at work gave, over all runs.", bodies, ("scaling",), _scaling(tables)),
        _section("Runs", "The oldest first.", bodies, ("runs",), _table(tables.history, _HISTORY, newest=True)),
        _section("Reports", "Those that lie in the dataset, and what it has since they were computed.", {}, (), _lying(lying)),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style>{head}</head>\n<body><h1>{escape(title)}</h1><p id='freshness'>{escape(fresh)}</p>"
        f"{_figures(tables.summary)}{''.join(sections)}</body></html>\n"
    )


def _section(name: str, about: str, bodies: Mapping[str, str], plots: Sequence[str], table: str = "") -> str:
    drawn = "".join(bodies[plot] for plot in plots if plot in bodies)
    nothing = "<p>Nothing yet.</p>" if plots else ""
    return f"<section><h2>{name}</h2><p>{about}</p>{drawn or nothing}{table}</section>" if drawn or table else ""


def _figures(summary: pa.Table) -> str:
    if not summary.num_rows:
        return "<p>No attempts yet.</p>"
    row = summary.to_pylist()[0]
    told = {
        "attempts": f"{row['attempts']:,}",
        "succeeded": f"{row['succeeded']:,}",
        "failed": row["kinds"] or "none",
        "runs": f"{row['runs']:,}",
        "time of runs": _number(row["seconds"], "seconds"),
        "rate": f"{_number(row['rate'])}/s",
        "slots": _number(row["slots"]),
        "slot time at work": _number(row["busy"], "share"),
        "duration p50": _number(row["duration_p50"], "seconds"),
        "peak memory p95": _number(row["peak_memory_p95"], "bytes"),
        "bottleneck": row["bottleneck"] or "-",
        "hosts": f"{row['hosts']:,}",
    }
    return (
        "<div class='figures'>" + "".join(f"<div><b>{escape(text)}</b><span>{name}</span></div>" for name, text in told.items()) + "</div>"
    )


_HISTORY = {"run": "", "began": "", "seconds": "seconds", "attempts": "", "failed": "", "rate": "", "slots": "", "busy": "share",
            "item_seconds": "seconds", "peak_memory": "bytes"}  # fmt: skip
_FAILURES = {"by": "", "name": "", "attempts": "", "share": "share", "last": "", "item_key": "", "message": ""}
_RESOURCES = {"workload": "", "version": "", "host": "", "attempts": "", "cores": "", "bottleneck": "", "duration_p50": "seconds",
              "duration_p95": "seconds", "memory_p95": "bytes", "memory_max": "bytes", "slots": "", "busy": "share"}  # fmt: skip
_STEPS = {"from": "", "to": "", "seconds": "seconds", "rate": "", "efficiency": "share", "marginal": "share"}


def _lying(reports: Sequence[Freshness]) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for one in reports for line in str(one).splitlines())
    return f"<ul id='reports'>{lines}</ul>" if lines else ""


def _failures(table: pa.Table) -> str:
    return _table(table, _FAILURES) if table.num_rows else "<p>None.</p>"


def _resources(table: pa.Table) -> str:
    lines = [
        f"<li><b>{escape(str(row['workload']))}</b> on {escape(str(row['host']))}: {escape(text)}</li>"
        for row in table.slice(0, MOST_ROWS).to_pylist()
        if row["advice"] and row["host"] == resources.ALL
        for text in row["advice"].split("; ")
    ]
    return _table(table, _RESOURCES) + (f"<ul id='advice'>{''.join(lines)}</ul>" if lines else "")


def _scaling(tables: Tables) -> str:
    bends = [row for row in tables.slots.to_pylist() if row["bends"]]
    said = f"It bends on the way to {bends[0]['to']} slots." if bends else "It does not bend within what was seen."
    return f"<p>{said}</p>{_table(tables.slots, _STEPS)}" if tables.slots.num_rows else ""


def _table(table: pa.Table, columns: Mapping[str, str], newest: bool = False) -> str:
    shown = table.slice(max(0, table.num_rows - MOST_ROWS)) if newest else table.slice(0, MOST_ROWS)
    head = "".join(f"<th{_side(table, name)}>{name.replace('_', ' ')}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td{_side(table, name)}>{escape(_number(row[name], unit))}</td>" for name, unit in columns.items()) + "</tr>"
        for row in shown.to_pylist()
    )
    more = f"<p>{shown.num_rows} of {table.num_rows:,} rows.</p>" if shown.num_rows < table.num_rows else ""
    return f"<div class='wide'><table><tr>{head}</tr>{body}</table></div>{more}"


def _side(table: pa.Table, name: str) -> str:
    kind = table.schema.field(name).type
    return " class='n'" if pa.types.is_integer(kind) or pa.types.is_floating(kind) else ""


def _number(value: Any, unit: str = "") -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return _time(value)
    if not isinstance(value, int | float):
        return str(value)
    if unit == "share":
        return f"{value:.0%}"
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    if unit == "seconds":
        return f"{value / 3600:,.1f} h" if value >= 7200 else f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _title(dataset: Any) -> str:
    return ", ".join(dataset.urls) if hasattr(dataset, "urls") else str(dataset.url)
