"""Prometheus and the exporters, whatever they come from."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("name", "restart"),
    [
        ("prometheus", "on-failure"),
        ("prometheus-node-exporter", "on-failure"),
        ("prometheus-nginx-exporter", "always"),  # before 1.0 its exit status does not tell a failure from a stop
    ],
)
def test_all_run_now_and_at_every_boot_in_a_sandbox(
    host: Any, name: str, restart: str, exposure: Callable[[Any, str], float]
) -> None:
    def show(unit_property: str) -> str:
        return host.check_output("systemctl show --value --property %s %s", unit_property, name)

    assert host.service(name).is_running
    assert host.service(name).is_enabled
    assert (show("User"), show("NoNewPrivileges")) == ("prometheus", "yes")
    assert (show("Restart"), show("RestartUSec")) == (restart, "5s")
    assert exposure(host, name) <= 3.0


def test_node_exporter_hands_on_what_the_keeper_of_an_engine_tells(host: Any) -> None:
    metrics = host.check_output("curl --silent --fail http://127.0.0.1:9100/metrics")
    assert 'gpuhosts_keeper_state{id="tiny-1",rank="0",state="serving"} 1' in metrics
    assert "node_textfile_scrape_error 0" in metrics


def test_prometheus_scrapes_itself_and_the_exporters(host: Any) -> None:
    """A target is found within 5 s, and scraped within one interval."""
    deadline = time.monotonic() + 30
    while True:
        answer = host.check_output("curl --silent --fail 'http://127.0.0.1:9090/api/v1/query?query=up'")
        up = {entry["metric"]["job"]: entry["value"][1] for entry in json.loads(answer)["data"]["result"]}
        if up == {"prometheus": "1", "node": "1", "nginx": "1"}:
            return
        assert time.monotonic() < deadline, answer
        time.sleep(1)
