"""Prometheus as the role runs it, with the targets of converge.yml."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGURATION = "/etc/prometheus/prometheus.yml"


def api(host: Any, path: str) -> Any:
    return json.loads(host.check_output("curl --silent --fail http://127.0.0.1:9090/api/v1/%s", path))["data"]


def wait_until_up(host: Any, jobs_and_labels: set[tuple[str, str | None]]) -> None:
    """A target is found within 5 s, and scraped within one interval."""
    deadline = time.monotonic() + 30
    while True:
        up = [target["labels"] for target in api(host, "targets")["activeTargets"] if target["health"] == "up"]
        if {(labels["job"], labels.get("host")) for labels in up} == jobs_and_labels:
            return
        assert time.monotonic() < deadline, api(host, "targets")
        time.sleep(1)


def process(host: Any) -> str:
    return host.check_output("systemctl show --property=MainPID --value prometheus")


def test_runs_now_and_at_every_boot(host: Any) -> None:
    service = host.service("prometheus")

    assert service.is_running
    assert service.is_enabled


def test_listens_on_the_given_address_only(host: Any) -> None:
    sockets = host.socket.get_listening_sockets()

    assert [socket for socket in sockets if socket.endswith(":9090")] == ["tcp://127.0.0.1:9090"]


def test_keeps_samples_as_long_as_told(host: Any) -> None:
    assert api(host, "status/flags")["storage.tsdb.retention.time"] == "15d"


def test_scrapes_itself_and_the_targets(host: Any) -> None:
    wait_until_up(host, {("prometheus", None), ("node", "here")})


def test_a_broken_configuration_never_takes_the_place_of_the_old_one(
    hosts: list[Any], change: Callable[..., str]
) -> None:
    before = [host.file(CONFIGURATION).sha256sum for host in hosts]

    assert "not a valid duration string" in change(prometheus_scrape_interval="often")

    assert [host.file(CONFIGURATION).sha256sum for host in hosts] == before


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"prometheus_retention": "forever"}, "prometheus_retention is 'forever'; it must be a duration"),
        ({"prometheus_targets": {"node": [{"targets": [], "labels": {"a-b": ""}}]}}, "prometheus_targets, job 'node'"),
    ],
)
def test_variables_that_promtool_does_not_see_are_checked(
    change: Callable[..., str], variables: dict[str, Any], message: str
) -> None:
    assert message in change(**variables)


def test_targets_and_configuration_need_no_restart(hosts: list[Any], change: Callable[..., str]) -> None:
    before = [process(host) for host in hosts]

    assert not change(prometheus_scrape_interval="7s", prometheus_targets={"other": [{"targets": ["127.0.0.2:9100"]}]})

    for host in hosts:
        assert "scrape_interval: 7s" in api(host, "status/config")["yaml"]
        wait_until_up(host, {("prometheus", None), ("other", None)})
    assert [process(host) for host in hosts] == before


def test_arguments_need_a_restart(hosts: list[Any], change: Callable[..., str]) -> None:
    before = [process(host) for host in hosts]

    assert not change(prometheus_retention="1d")

    assert {api(host, "status/flags")["storage.tsdb.retention.time"] for host in hosts} == {"1d"}
    assert not set(before) & {process(host) for host in hosts}
