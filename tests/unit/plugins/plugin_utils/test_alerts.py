"""Rules of Prometheus as they are made of their description, and what thresholds may be."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.vllm.plugins.filter.alerts import alert_rules
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.alerts import (
    ALERTS,
    AREAS,
    THRESHOLDS,
    groups,
    mistakes,
    thresholds_in,
)


def rules(thresholds: dict[str, Any] | None = None, base: str = "https://docs.example.com/alerts/") -> dict[str, Any]:
    """Rules by what they are called."""
    made = groups(thresholds or {}, base)["groups"]
    return {rule.get("alert") or rule["record"]: rule for group in made for rule in group["rules"]}


# Rules


def test_names_are_of_one_rule_only_and_begin_with_their_area() -> None:
    names = [alert.name for area in AREAS for alert in area.alerts]
    records = [record.name for area in AREAS for record in area.records]
    prefix = re.compile(r"(Engine|FrontDoor|Gpu|Host|Ray|Prometheus)[A-Z]")

    assert len(set(names)) == len(names)
    assert len(set(records)) == len(records)
    assert [name for name in names if not prefix.match(name)] == []


def test_an_alert_is_for_somebody_and_says_where_to_read_on() -> None:
    for name in ALERTS:
        rule = rules()[name]
        assert rule["labels"]["severity"] in ("page", "ticket", "info")
        assert rule["annotations"]["runbook_url"] == f"https://docs.example.com/alerts/{name}.md"


def test_no_place_of_a_threshold_is_left() -> None:
    texts = [text for rule in rules().values() for text in (rule["expr"], *rule.get("annotations", {}).values())]
    assert [text for text in texts if re.search(r"<\w+>", text)] == []


def test_every_threshold_is_of_some_rule_and_every_place_is_of_a_threshold() -> None:
    exprs = [alert.expr for alert in ALERTS.values()] + [record.expr for area in AREAS for record in area.records]
    descriptions = [alert.description for alert in ALERTS.values()]

    assert {name for text in exprs for name in thresholds_in(text)} == set(THRESHOLDS) - {"drill"}
    assert {name for text in descriptions for name in thresholds_in(text)} <= set(THRESHOLDS)


def test_a_threshold_is_what_the_operator_says_also_where_it_is_a_bucket() -> None:
    made = rules({"ttft_seconds": 10, "gpu_celsius": 80, "objective_requests": 1000000})

    assert 'le="10.0"' in made["model:ttft_late:ratio_rate1h"]["expr"]
    assert "within 10 s" in made["EngineTtftBurnFast"]["annotations"]["description"]
    assert made["EngineTtftBurnFast"]["expr"].endswith(">= 1000000)")
    assert made["GpuHot"]["expr"] == "DCGM_FI_DEV_GPU_TEMP > 80"
    assert made["EngineQueue"] == rules()["EngineQueue"]


def test_a_drill_makes_every_duration_and_window_shorter_and_nothing_else() -> None:
    usual, drill = rules(), rules({"drill": 60})

    assert drill["EngineDown"] == usual["EngineDown"] | {"for": "2000ms"}
    assert drill["EngineRestarts"]["for"] == "0ms"
    assert "[1h]" in usual["EngineRestarts"]["expr"]
    assert drill["EngineRestarts"]["expr"] == usual["EngineRestarts"]["expr"].replace("[1h]", "[60000ms]")
    assert "model:requests:rate1d * 86400 >= 50" in usual["EngineTtftBurnSlow"]["expr"]
    assert "model:requests:rate1d * 1440 >= 50" in drill["EngineTtftBurnSlow"]["expr"]
    assert [rule for rule in drill.values() if re.search(r"\[\d+[smhd]\]", rule["expr"])] == []


# Thresholds


def test_the_defaults_are_allowed() -> None:
    assert mistakes({name: threshold.default for name, threshold in THRESHOLDS.items()}) == []


BUCKETS = (
    "0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560"
)
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"gpu_celcius": 80}, " has 'gpu_celcius', which is no threshold; did you mean gpu_celsius?"),
    ({"zzz": 1}, " has 'zzz', which is no threshold; docs/alerts/README.md lists them."),
    ({"gpu_celsius": "hot"}, ", gpu_celsius: 'hot' is no number; 87 is the default."),
    ({"gpu_celsius": True}, ", gpu_celsius: True is no number; 87 is the default."),
    ({"gpu_celsius": None}, ", gpu_celsius: None is no number; 87 is the default."),
    ({"gpu_celsius": float("nan")}, ", gpu_celsius is nan; it must be from 30 to 120 (temperature of a GPU)."),
    (
        {"ttft_seconds": 3},
        f", ttft_seconds is 3; it must be one of {BUCKETS}: a histogram tells nothing in between.",
    ),
    (
        {"certificate_page_days": 30},
        ", certificate_page_days is 30, more than certificate_days, 21: the page would come before the ticket.",
    ),
]


@pytest.mark.parametrize(("given", "rest"), REFUSED)
def test_what_cannot_be_is_refused_with_what_can(given: dict[str, Any], rest: str) -> None:
    said = f"prometheus_thresholds{rest}"
    assert mistakes(given) == [said]
    with pytest.raises(AnsibleFilterError, match=re.escape(said)):
        alert_rules(given, "https://docs.example.com")


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_threshold_has_limits(name: str) -> None:
    threshold = THRESHOLDS[name]
    for value in (threshold.least - 0.001, threshold.most * 1.001):
        (said,) = mistakes({name: value})
        assert f"{name} is {value:g}; it must be from {threshold.least:g} to {threshold.most:g}" in said


def test_all_mistakes_are_told_at_once() -> None:
    assert len(mistakes({"gpu_celcius": 80, "error_ratio": 5, "orphan_gib": "2"})) == 3
