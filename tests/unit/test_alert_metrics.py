"""Prometheus' rules read metrics that have been recorded, or of which is said why no recording has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.present import ENGINE_METRICS, QUERIES
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.alerts import groups

from tests.tools import promql

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs/alerts").glob("*.md"))}
OF_PAGES = [
    query
    for text in PAGES.values()
    for block in re.findall(r"^```promql\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for query in block.splitlines()
]
METRICS = Path(__file__).parent / "fixtures/metrics"
RECORDED = {path.name: path.read_text() for path in sorted(METRICS.glob("*.prom"))}
RULES: list[dict[str, Any]] = [rule for group in groups({}, "https://example.com")["groups"] for rule in group["rules"]]
KINDS = {".conf", ".j2", ".py", ".yml"}
# What pages name and no role brings.
SYSTEM_UNITS = {"certbot", "logrotate"}
SYSTEM_PATHS = {
    "/run/reboot-required.pkgs",
    "/var/log/apt/history.log",
    "/var/log/dnf.log",
    "/var/log/letsencrypt/letsencrypt.log",
}
# Every series that rules and pages name and no recording has. A recording that has one takes it off this list.
UNRECORDED = {
    "gpuhosts_front_address_held": "told where load balancers share an address",
    "gpuhosts_keeper_end_seconds": "told once an epoch has ended",
    "gpuhosts_keeper_waits": "told while a keeper waits for other nodes",
    "prometheus_remote_storage_samples_failed_total": "told with a remote storage",
    "prometheus_remote_storage_shards": "told with a remote storage",
}


def read_by(query: str) -> set[str]:
    """The series that a query names."""
    return {reading.name for reading in promql.readings(query)}


def names(expositions: dict[str, str]) -> dict[str, set[str]]:
    """Labels by name of series, those that rules record with them."""
    found = promql.known(expositions.values())
    for rule in RULES:
        if "record" in rule:
            read = [found.get(reading.name, set()) for reading in promql.readings(rule["expr"])]
            found[rule["record"]] = set().union(promql.OF_TARGETS, promql.written(rule["expr"]), *read)
    return found


def problems(expositions: dict[str, str]) -> Iterator[str]:
    """What rules ask for that no exposition has, without what is known to be missing."""
    found = names(expositions)
    for rule in RULES:
        if not read_by(rule["expr"]) & set(UNRECORDED):
            for problem in promql.unknown(rule["expr"], found):
                yield f"{rule.get('alert', rule.get('record'))}: {problem}"


def test_there_are_rules() -> None:
    assert len(RULES) > 50


def test_every_metric_and_label_of_a_rule_has_been_recorded() -> None:
    assert list(problems(RECORDED)) == []


def test_the_list_of_what_is_not_recorded_is_true() -> None:
    read = set().union(*map(read_by, [rule["expr"] for rule in RULES] + OF_PAGES))

    assert sorted(read - set(names(RECORDED))) == sorted(UNRECORDED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vllm:kv_cache_usage_perc{", "vllm:kv_cache_usage_ratio{"),
        ("vllm:time_to_first_token_seconds_bucket{", "vllm:first_token_seconds_bucket{"),
    ],
)
def test_a_renamed_metric_is_found(old: str, new: str) -> None:
    name = "vllm-0.32.0.prom"
    assert old in RECORDED[name]

    assert list(problems({**RECORDED, name: RECORDED[name].replace(old, new)}))


@pytest.mark.parametrize("query", QUERIES.values())
def test_what_status_asks_prometheus_has_been_recorded(query: str) -> None:
    named = {reading.name for reading in promql.readings(query)}
    assert named
    assert named & set(UNRECORDED) or promql.unknown(query, names(RECORDED)) == []


def test_what_status_asks_engines_has_been_recorded() -> None:
    for name, _ in ENGINE_METRICS.values():
        assert f"\n{name}{{" in RECORDED["vllm-0.32.0.prom"]


def test_queries_of_the_pages_read_what_there_is() -> None:
    found = names(RECORDED)

    assert len(OF_PAGES) > len(PAGES)
    wrong = [(query, list(promql.unknown(query, found))) for query in OF_PAGES if not read_by(query) & set(UNRECORDED)]
    assert [pair for pair in wrong if pair[1]] == []


def test_units_and_paths_of_the_pages_are_those_of_the_roles() -> None:
    files = [path for top in ("roles", "plugins") for path in (ROOT / top).rglob("*") if path.suffix in KINDS]
    ours = "".join(path.read_text() for path in files)
    absent = "".join(path.read_text() for path in ROOT.glob("roles/*/tasks/*absent.yml"))
    units = set(re.findall(r"([a-z@-]+)\.(?:service|timer)", absent)) | SYSTEM_UNITS
    text = "".join(PAGES.values())

    named = set(re.findall(r"--unit[= ]'?([a-z@-]+)", text))
    for verb in re.findall(r"systemctl (?:status|start|stop|restart|reload) ([^`|;\n]+)", text):
        named |= set(re.findall(r"(?:^| )'?([a-z][a-z@-]+)", verb))
    paths = set(re.findall(r"(?<![\w.:/}])/(?:etc|opt|run|var)/[a-z][\w./-]*", text))

    assert len(named) > 5
    assert sorted(named - units) == []
    assert len(paths) > 10
    placed = {re.sub(r"/[A-Z].*|/$|\.$", "", path) for path in paths} - SYSTEM_PATHS
    assert sorted(path for path in placed if path not in ours and path.rpartition("/")[0] not in ours) == []
