"""Prometheus and node_exporter, whatever they come from."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest


@pytest.mark.parametrize("name", ["prometheus", "prometheus-node-exporter"])
def test_both_run_now_and_at_every_boot_in_a_sandbox(host: Any, name: str) -> None:
    def show(unit_property: str) -> str:
        return host.check_output("systemctl show --value --property %s %s", unit_property, name)

    assert host.service(name).is_running
    assert host.service(name).is_enabled
    assert (show("User"), show("NoNewPrivileges")) == ("prometheus", "yes")
    assert (show("Restart"), show("RestartUSec")) == ("on-failure", "5s")


def test_prometheus_scrapes_itself_and_node_exporter(host: Any) -> None:
    """A target is found within 5 s, and scraped within one interval."""
    deadline = time.monotonic() + 30
    while True:
        answer = host.check_output("curl --silent --fail 'http://127.0.0.1:9090/api/v1/query?query=up'")
        up = {entry["metric"]["job"]: entry["value"][1] for entry in json.loads(answer)["data"]["result"]}
        if up == {"prometheus": "1", "node": "1"}:
            return
        assert time.monotonic() < deadline, answer
        time.sleep(1)
