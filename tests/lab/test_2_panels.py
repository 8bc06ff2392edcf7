"""What Grafana's dashboards and Prometheus' rules ask for is in what the lab's Prometheus has scraped."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator

import pytest

from tests.tools import promql
from tests.tools.dashboards import DIRECTORY
from tests.tools.pictures import Prometheus, filled, variables

from .settings import STATE
from .show import FRONT_DOOR, PROMETHEUS, stream_chat

SECONDS = 900  # since the first request
# What no panel of the lab can show, by the beginning of a series' name.
NOT_HERE = {
    "ALERTS": "nothing fires in a lab that is well",
    "DCGM_FI_DEV_SM_CLOCK": "the pretended GPUs have no clocks",
    "DCGM_FI_PROF_": "DCGM alone tells it",
    "gpuhosts_engine_kv_cache_tokens_planned": "the plan promises none of vLLM's CPU build",
    "gpuhosts_certificate": "the lab's front door has no certificate",
    "gpuhosts_model_store": "its models are local, so that it has no store",
    "gpuhosts_server_drained": "no server is drained",
}

# Of what rules read besides.
NOT_HERE_EITHER = {
    "gpu:xid:last": "no GPU has failed",
    "gpuhosts_front_address": "it has one load balancer",
    "gpuhosts_fabric_manager_mismatch": "its GPUs have no NVSwitch",
    "gpuhosts_keeper_waits": "told while a keeper waits for other nodes",
    "gpuhosts_rolled_back": "no update has failed",
    "prometheus_remote_storage": "there is no remote storage",
}


def empty(source: Prometheus, path: str) -> Iterator[str]:
    """The queries of a dashboard that return nothing, but for those that cannot return anything here."""
    dashboard = json.loads((DIRECTORY / path).read_text())
    chosen = variables(dashboard, source)
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            names = {reading.name for reading in promql.readings(target["expr"])}
            if any(name.startswith(tuple(NOT_HERE)) for name in names):
                continue
            found = source.ask(filled(target["expr"], chosen), over_time=True)
            if not any(samples for _, samples in found):
                yield f"{panel['title']}: {filled(target['expr'], chosen)}"


@pytest.fixture(scope="module", autouse=True)
def traffic() -> None:
    """Requests that run while Prometheus looks twice at what was counted, each every 15 s; some clients go away."""
    key = (STATE / "api_key").read_text().strip()
    for _ in range(3):
        gone = http.client.HTTPConnection(FRONT_DOOR, timeout=60)
        body = {"model": "tiny-llama", "prompt": "Tell me a story.", "max_tokens": 400}
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        gone.request("POST", "/v1/completions", json.dumps(body), headers)
        gone.close()
    end = time.monotonic() + 50
    while time.monotonic() < end:
        list(stream_chat(FRONT_DOOR, key, "tiny-llama", "Tell me a story.", 400))


@pytest.mark.parametrize("path", sorted(file.name for file in DIRECTORY.glob("*.json")))
def test_every_query_returns_data(path: str) -> None:
    now = time.time()

    assert list(empty(Prometheus(f"http://{PROMETHEUS}", now - SECONDS, now), path)) == []


def test_every_series_and_label_that_a_rule_reads_has_been_scraped() -> None:
    now = time.time()
    source = Prometheus(f"http://{PROMETHEUS}", now - SECONDS, now)
    scraped, rules = promql.known([]), source.rules()
    for labels in source.series():
        scraped.setdefault(labels["__name__"], set()).update(labels)

    read = {rule["name"]: {reading.name for reading in promql.readings(rule["query"])} for rule in rules}
    missing = set().union(*read.values()) - set(scraped)
    found = {
        rule["name"]: problems
        for rule in rules
        if not read[rule["name"]] & missing and (problems := promql.unknown(rule["query"], scraped))
    }

    assert len(rules) > 50
    assert [name for name in missing if not name.startswith(tuple(NOT_HERE | NOT_HERE_EITHER))] == []
    assert {known for known in NOT_HERE_EITHER if not any(name.startswith(known) for name in missing)} == set()
    assert found == {}
