"""Grafana's dashboards: as their description makes them, taken by Grafana's types, and of metrics that there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.tools import promql
from tests.tools.boards import OBJECTIVE, Board
from tests.tools.dashboards import BOARDS, DIRECTORY, JAEGER, PROMETHEUS, TAG, made_of

METRICS = Path(__file__).parent / "fixtures/metrics"
RECORDED = {path.name: path.read_text() for path in sorted(METRICS.glob("*.prom"))}
FILES = sorted(DIRECTORY.glob("*.json"))
VARIABLES = {"model", "instance", "host", OBJECTIVE.name, "__rate_interval"}


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Panels that have queries."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def expressions(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every query of a dashboard, with the title of its panel."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def unknown(texts: dict[str, str]) -> list[str]:
    """What the dashboards ask for that none of the expositions has."""
    names = promql.known(texts.values())
    return [
        f"{path.name}, {title}: {problem}"
        for path in FILES
        for title, expression in expressions(json.loads(path.read_text()))
        for problem in promql.unknown(expression, names)
    ]


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON document."""
    if isinstance(value, dict):
        for below in value.values():
            yield from texts(below)
    elif isinstance(value, list):
        for below in value:
            yield from texts(below)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("board", BOARDS, ids=[board.name for board in BOARDS])
def test_a_file_is_what_its_description_makes(board: Board) -> None:
    assert (DIRECTORY / f"{board.name}.json").read_text() == made_of(board), "run python -m tests.tools.dashboards"


def test_there_is_no_file_without_a_description() -> None:
    assert {path.stem for path in FILES} == {board.name for board in BOARDS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_grafanas_types_take_a_file_and_lose_nothing_of_it(path: Path) -> None:
    register_default_plugins()
    written = json.loads(path.read_text())

    read = Dashboard.from_json(written)

    assert json.loads(JSONEncoder().encode(read)) == written


def test_every_metric_and_label_has_been_recorded() -> None:
    assert unknown(RECORDED) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("vllm-0.32.0.prom", "vllm:num_requests_waiting{", "vllm:requests_waiting{"),
        ("vllm-0.32.0.prom", "vllm:time_to_first_token_seconds_bucket{", "vllm:first_token_seconds_bucket{"),
        ("vllm-0.32.0.prom", "finished_reason=", "reason="),
        ("nginx_exporter-0.11.0.prom", "nginx_connections_active ", "nginxplus_connections_active "),
    ],
)
def test_a_renamed_metric_or_label_is_found(name: str, old: str, new: str) -> None:
    assert old in RECORDED[name]

    problems = unknown({**RECORDED, name: RECORDED[name].replace(old, new)})

    assert problems
    gone = old.rstrip("{= ")
    assert all(gone in problem for problem in problems)


@pytest.mark.parametrize("name", RECORDED)
def test_an_exposition_says_where_it_comes_from(name: str) -> None:
    first = RECORDED[name].splitlines()[0]

    assert first.startswith("# ")
    assert not first.startswith(("# HELP", "# TYPE"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_panel_says_what_it_shows_where_there_is_nothing(path: Path) -> None:
    for panel in panels(json.loads(path.read_text())):
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
        assert "Read from " in panel["description"], panel["title"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_division_is_guarded(path: Path) -> None:
    """By nothing is not divided, and no latency is NaN."""
    for title, expression in expressions(json.loads(path.read_text())):
        if "rate(" in expression and " / " in expression:
            assert "> 0)" in expression, title
        if "histogram_quantile" in expression:
            assert expression.endswith("> 0"), title


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_data_come_from_the_sources_of_the_role_alone(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    sources = [panel["datasource"] for panel in panels(dashboard)]
    sources += [target["datasource"] for panel in panels(dashboard) for target in panel["targets"]]
    sources += [one["datasource"] for one in dashboard["templating"].get("list", []) if one["type"] == "query"]

    assert [source for source in sources if source != {"type": "prometheus", "uid": PROMETHEUS.uid}] == []
    assert any(JAEGER in text for text in texts(dashboard["links"]))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_variables_that_are_used_are_there(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    there = {one["name"] for one in dashboard["templating"].get("list", [])}
    used = {word for _, expression in expressions(dashboard) for word in VARIABLES if f"${word}" in expression} - {
        "__rate_interval"
    }

    assert used == there


def test_a_link_to_a_dashboard_leads_to_one() -> None:
    uids = {json.loads(path.read_text())["uid"] for path in FILES}
    links = [text for path in FILES for text in texts(json.loads(path.read_text())) if text.startswith("/d/")]

    assert links
    assert {link.split("/")[2].split("?")[0] for link in links} <= uids
    assert uids == {f"{TAG}-{board.name}" for board in BOARDS}


def test_the_objective_can_be_any_bound_of_the_histogram() -> None:
    bounds = {
        line.split('le="')[1].split('"')[0]
        for line in RECORDED["vllm-0.32.0.prom"].splitlines()
        if line.startswith("vllm:time_to_first_token_seconds_bucket")
    }

    assert set(OBJECTIVE.values) <= bounds


@pytest.mark.parametrize(
    ("expression", "names", "labels"),
    [
        ('sum by (model, le) (rate(a:b_total{x="}(", y=~"z"}[5m])) > 0', {"a:b_total"}, {"model", "le"}),
        ("histogram_quantile(0.95, sum by (le) (c_bucket)) > 1e9", {"c_bucket"}, {"le"}),
        ("avg_over_time(sum(d)[1h:15s]) and on (host) e unless f", {"d", "e", "f"}, {"host"}),
        ('g * on (id) group_left () max by (id) (h{i!="1"} == 1) or vector(0)', {"g", "h"}, {"id"}),
    ],
)
def test_a_query_is_read_as_prometheus_reads_it(expression: str, names: set[str], labels: set[str]) -> None:
    assert {reading.name for reading in promql.readings(expression)} == names
    assert promql.groupings(expression) == labels
