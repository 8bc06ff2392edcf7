"""Writes Grafana's dashboards, roles/grafana/files/dashboards, from boards*.py with Grafana's foundation SDK."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from grafana_foundation_sdk.builders import common as commons
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    DataSourceRef,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from tests.tools.boards import Board, Panel, Query, Variable
from tests.tools.boards_engines import GPU_BOARD, INSTANCE_BOARD, MODEL_BOARD
from tests.tools.boards_fleet import CAPACITY, FLEET, FRONT_DOOR
from tests.tools.promql import readings

BOARDS = (FLEET, MODEL_BOARD, INSTANCE_BOARD, GPU_BOARD, FRONT_DOOR, CAPACITY)
DIRECTORY = Path(__file__).resolve().parents[2] / "roles/grafana/files/dashboards"
TAG = "gpuhosts"
# Fixed, so that a dashboard that somebody copies finds its data; the role provisions the sources under these names.
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="gpuhosts-prometheus")
JAEGER = "gpuhosts-jaeger"
RUNBOOKS = "https://github.com/gpuhosts/vllm/blob/main/docs/alerts"  # the role puts grafana_runbook_base in its place
_COLOURS = ("green", "orange", "red")
# What the cell of a label leads to.
_LEADS = {
    "model": ("Model", f"/d/{TAG}-model?var-model=${{__value.text}}"),
    "instance_id": ("Instance", f"/d/{TAG}-instance?var-instance=${{__value.text}}"),
    "host": ("GPUs", f"/d/{TAG}-gpu?var-host=${{__value.text}}"),
    "alertname": ("What to do", f"{RUNBOOKS}/${{__value.text}}.md"),
}
AnyPanel = stat.Panel | timeseries.Panel | tables.Panel


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    values: list[float | None] = [None, *(panel.steps or sorted(panel.below))]
    colours = _COLOURS[: len(values)] if not panel.below else _COLOURS[: len(values)][::-1]
    steps = [Threshold(value, colour) for value, colour in zip(values, colours, strict=True)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _target(query: Query, name: str, *, now: bool) -> prometheus.Dataquery:
    target = prometheus.Dataquery().datasource(PROMETHEUS).expr(query.expression).ref_id(name)
    if now:
        return target.instant().format(PromQueryFormat.TABLE)
    return target.range().legend_format(query.legend)


def _stat(panel: Panel) -> stat.Panel:
    colours = BigValueColorMode.VALUE if panel.steps or panel.below else BigValueColorMode.NONE
    return (
        stat.Panel()
        .graph_mode(BigValueGraphMode.AREA)
        .color_mode(colours)
        .reduce_options(commons.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _lines(panel: Panel) -> timeseries.Panel:
    legend = commons.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    made = timeseries.Panel().legend(legend.show_legend(show_legend=True)).show_points(VisibilityMode.NEVER)
    made = made.min(0).line_width(1).fill_opacity(10)
    if panel.kind == "areas":
        made = made.stacking(commons.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
    if panel.most is not None:
        made = made.max(panel.most)
    return made


def _table(panel: Panel) -> tables.Panel:
    """The columns of its queries, side by side where their labels are the same."""
    values = ["Value"] if len(panel.columns) == 1 else [f"Value #{name}" for name in _letters(panel)]
    renamed = {value: title for value, (title, _) in zip(values, panel.columns, strict=True)}
    made = tables.Panel()
    if len(values) > 1:
        made = made.with_transformation(DataTransformerConfig("merge", options={}))
    options = {"excludeByName": {"Time": True}, "renameByName": renamed, "indexByName": {}}
    made = made.with_transformation(DataTransformerConfig("organize", options=options))
    for title, unit in panel.columns:
        made = made.override_by_name(title, [DynamicConfigValue("unit", unit), DynamicConfigValue("decimals", 2)])
    for label, (title, url) in _LEADS.items():
        links = [{"title": title, "url": url, "targetBlank": label == "alertname"}]
        made = made.override_by_name(label, [DynamicConfigValue("links", links)])
    return made


def _letters(panel: Panel) -> Iterator[str]:
    return (chr(ord("A") + number) for number in range(len(panel.queries)))


_KINDS: dict[str, Callable[[Panel], AnyPanel]] = {"stat": _stat, "lines": _lines, "areas": _lines, "table": _table}


def _panel(panel: Panel, number: int) -> AnyPanel:
    made = _KINDS[panel.kind](panel)
    names = sorted({reading.name for query in panel.queries for reading in readings(query.expression)})
    made = made.id(number).title(panel.title).description(f"{panel.about}\n\nRead from {', '.join(names)}.")
    made = made.datasource(PROMETHEUS).unit(panel.unit).no_value(panel.empty).thresholds(_thresholds(panel))
    for query, name in zip(panel.queries, _letters(panel), strict=True):
        made = made.with_target(_target(query, name, now=panel.kind == "table"))
    return made.height(panel.height).span(panel.width)


def _variable(variable: Variable) -> dashboard.QueryVariable | dashboard.CustomVariable:
    if variable.values:
        options = [VariableOption(text=value, value=value) for value in variable.values]
        fixed = dashboard.CustomVariable(variable.name).label(variable.label).values(",".join(variable.values))
        return fixed.options(options).current(options[0])
    made = (
        dashboard.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(PROMETHEUS)
        .query(variable.query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    if not variable.many:
        return made
    everything = VariableOption(text="All", value="$__all")
    # Not .*, which series without the label have as well.
    return made.multi(multi=True).include_all(include_all=True).all_value(".+").current(everything)


def _links() -> list[Builder[models.DashboardLink]]:
    """To the other dashboards, to traces and to what to do about alerts."""
    pane = {"datasource": JAEGER, "queries": [{"refId": "A", "queryType": "search"}]}
    range_ = {"from": "${__from}", "to": "${__to}"}
    panes = quote(json.dumps({"traces": {**pane, "range": range_}}), safe="${}")
    others = dashboard.DashboardLink("Dashboards").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    outside = {"Traces": f"/explore?schemaVersion=1&orgId=1&panes={panes}", "Runbooks": RUNBOOKS}
    return [
        others.as_dropdown(as_dropdown=False).include_vars(include_vars=True).keep_time(keep_time=True),
        *(
            dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url).target_blank(target_blank=True)
            for title, url in outside.items()
        ),
    ]


def made_of(board: Board) -> str:
    """The JSON of a dashboard."""
    made = dashboard.Dashboard(board.title).uid(f"{TAG}-{board.name}").tags([TAG]).readonly()
    made = made.description("Written by tests/tools/dashboards.py of the collection gpuhosts.vllm.")
    made = made.time("now-1h", "now").refresh("30s").links(_links())
    for variable in board.variables:
        made = made.with_variable(_variable(variable))
    numbers = itertools.count(1)
    for title, panels in board.rows:
        made = made.with_row(dashboard.Row(title).id(next(numbers)))
        for panel in panels:
            made = made.with_panel(_panel(panel, next(numbers)))
    return json.dumps(json.loads(JSONEncoder().encode(made.build())), indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write them all."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        (DIRECTORY / f"{board.name}.json").write_text(made_of(board))


if __name__ == "__main__":
    main()
