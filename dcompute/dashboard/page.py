"""The page itself, and how it gets onto the dashboard of a scheduler: by parts of Dask that are nobody's interface."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from bokeh.layouts import column
from bokeh.models import ColumnDataSource, DataTable, NumberFormatter, PreText, StringFormatter, TableColumn
from bokeh.palettes import Category20
from bokeh.plotting import figure
from distributed.dashboard.core import BokehApplication
from distributed.dashboard.scheduler import template_variables
from tornado.ioloop import IOLoop, PeriodicCallback

from dcompute.dashboard.figures import CLASS_COLUMNS, RUN_COLUMNS, Watch
from dcompute.demand import RUNS, SCALING

if TYPE_CHECKING:
    from bokeh.document import Document
    from distributed import Scheduler

#: Seconds between two looks at what runs tell, and two pictures of it.
LOOK_SECONDS = 1.0

_TITLES = {
    "workload": "Workload", "dataset": "Dataset", "run": "Run", "state": "State", "succeeded": "Succeeded", "failed": "Failed",
    "retrying": "Retrying", "running": "At work", "rate": "Items/s", "flying": "In flight", "wanted": "Wanted",
    "weight": "Weight", "host": "Driver's host", "asks": "Asks for", "priority": "Priority",
}  # fmt: skip
_NUMBERS = {"succeeded", "failed", "retrying", "running", "flying", "wanted"}
_WIDE = {"dataset": 260, "run": 170, "workload": 150, "asks": 260}


def install(scheduler: Scheduler, name: str) -> None:
    """Add the page to a scheduler's dashboard.

    Raises
    ------
    Exception
        Any: something is not there, or not as it was.
    """
    if "dashboard" not in scheduler.services and not getattr(scheduler.http_application, "applications", None):
        raise RuntimeError("the scheduler has no dashboard")
    watch = Watch()
    variables = template_variables(scheduler)
    if name not in variables["pages"]:  # the menu of all pages
        variables["pages"].append(name)
    application = BokehApplication(
        {f"/{name}": partial(_document, watch)}, scheduler, prefix=_prefix(scheduler), template_variables=variables
    )
    scheduler.http_application.add_application(application)
    application.initialize(IOLoop.current())
    looking = PeriodicCallback(partial(_look, watch, scheduler), LOOK_SECONDS * 1000)
    scheduler.periodic_callbacks["dcompute-page"] = looking
    looking.start()


def _prefix(scheduler: Scheduler) -> str:
    return str(getattr(scheduler, "_http_prefix", None) or "")


def _look(watch: Watch, scheduler: Scheduler) -> None:
    metadata: Mapping[str, Any] = scheduler.task_metadata
    watch.look(metadata.get(RUNS), metadata.get(SCALING), time.time())


def _document(watch: Watch, _: Scheduler, extra: Mapping[str, Any], document: Document) -> None:
    """One view of the page; Bokeh calls it for each."""
    picture = Picture(watch)
    document.title = "Dask: dcompute"
    document.add_root(picture.root)
    _dress(document, extra)
    document.add_periodic_callback(picture.update, int(LOOK_SECONDS * 1000))


def _dress(document: Document, extra: Mapping[str, Any]) -> None:
    """Let it look as the other pages do, where their looks are to be had."""
    try:
        from distributed.dashboard.components.scheduler import BOKEH_THEME, env

        document.template = env.get_template("simple.html")
        document.template_variables.update(extra)
        document.theme = BOKEH_THEME
    except Exception:  # noqa: BLE001, S110  it works without
        pass


class Picture:
    """Tables of runs and classes, and lines of their rates, of one view."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._runs = ColumnDataSource(watch.runs())
        self._classes = ColumnDataSource(watch.classes())
        self._lines = ColumnDataSource({"xs": [], "ys": [], "color": [], "label": []})
        self._scaling = PreText(text="", sizing_mode="stretch_width")
        rates = figure(
            x_axis_type="datetime",
            height=260,
            sizing_mode="stretch_width",
            tools="xpan,xwheel_zoom,reset",
            title="Items a second",
            toolbar_location="above",
        )
        rates.multi_line(xs="xs", ys="ys", line_color="color", legend_field="label", line_width=2, source=self._lines)
        rates.legend.location = "top_left"
        rates.y_range.start = 0
        self.root = column(
            self._scaling,
            _table(self._runs, RUN_COLUMNS, 240),
            rates,
            _table(self._classes, CLASS_COLUMNS, 240),
            sizing_mode="stretch_width",
        )
        self.update()

    def update(self) -> None:
        """Show what is known now."""
        self._runs.data = self._watch.runs()
        self._classes.data = self._watch.classes()
        text = self._watch.scaling()
        if self._scaling.text != text:
            self._scaling.text = text
        lines = [line for line in self._watch.lines.values() if line.times]
        self._lines.data = {
            "xs": [[at * 1000 for at in line.times] for line in lines],
            "ys": [list(line.rates) for line in lines],
            "color": [Category20[20][number % 20] for number in range(len(lines))],
            "label": [line.label for line in lines],
        }


def _table(source: ColumnDataSource, columns: tuple[str, ...], height: int) -> DataTable:
    return DataTable(
        source=source,
        columns=[
            TableColumn(
                field=name,
                title=_TITLES[name],
                width=_WIDE.get(name, 75),
                formatter=NumberFormatter(format="0,0") if name in _NUMBERS else StringFormatter(),
            )
            for name in columns
        ],
        height=height,
        index_position=None,
        sizing_mode="stretch_width",
        autosize_mode="none",
    )
