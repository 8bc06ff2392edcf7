"""Grafana, a stand-in for which reads what the role has written, from its vendor's repository."""

from __future__ import annotations

import json
from typing import Any

API = "curl --silent --fail --user admin:swordfish http://127.0.0.1:3000/api/%s"


def test_the_version_that_was_asked_for_runs_and_is_held(host: Any) -> None:
    health = json.loads(host.check_output("curl --silent --fail http://127.0.0.1:3000/api/health"))

    assert health == {"database": "ok", "version": "13.2.3"}
    assert host.service("grafana-server").is_running
    assert host.service("grafana-server").is_enabled


def test_it_has_read_the_source_and_the_dashboards(host: Any) -> None:
    assert [one["uid"] for one in json.loads(host.check_output(API, "datasources"))] == ["gpuhosts-prometheus"]
    assert len(json.loads(host.check_output(API, "search"))) == 6
