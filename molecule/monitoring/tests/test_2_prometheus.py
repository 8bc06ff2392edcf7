"""Prometheus as the role runs it, with the targets of converge.yml."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGURATION = "/etc/prometheus/prometheus.yml"
RULES = "/etc/prometheus/rules/own.yml"
OWN = "https://127.0.0.1:9090/api/v1/targets"
CERTIFICATE = """
cd /etc/prometheus
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=mon.example \\
  -addext subjectAltName=DNS:mon.example -keyout own.key -out own.pem
chgrp prometheus own.key && chmod 640 own.key
"""


def api(host: Any, path: str) -> Any:
    return json.loads(host.check_output("curl --silent --fail http://127.0.0.1:9090/api/v1/%s", path))["data"]


def rules(host: Any) -> list[dict[str, Any]]:
    """Those of the scenario; the role has some of its own."""
    groups = api(host, "rules")["groups"]
    assert any(group["file"] == "/etc/prometheus/rules/gpuhosts.yml" for group in groups)
    return [rule for group in groups if not group["file"].endswith("/gpuhosts.yml") for rule in group["rules"]]


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
    gpu = {("gpu", "here")} if host.check_output("hostname") == "bookworm" else set()
    wait_until_up(host, {("prometheus", None), ("alertmanager", None), ("node", "here"), ("nginx", "here")} | gpu)


def test_a_broken_configuration_never_takes_the_place_of_the_old_one(
    hosts: list[Any], change: Callable[..., str]
) -> None:
    before = [host.file(CONFIGURATION).sha256sum for host in hosts]

    assert "not a valid duration string" in change(prometheus_scrape_interval="often")

    assert [host.file(CONFIGURATION).sha256sum for host in hosts] == before


def test_a_broken_rule_never_takes_the_place_of_a_good_one(hosts: list[Any], change: Callable[..., str]) -> None:
    broken = {"own": [{"name": "own", "rules": [{"record": "a", "expr": "sum("}]}]}
    before = [(host.file(RULES).sha256sum, process(host)) for host in hosts]

    assert "/own.yml stays as it is" in change(prometheus_rules=broken)

    assert [(host.file(RULES).sha256sum, process(host)) for host in hosts] == before
    assert [rule["name"] for rule in rules(hosts[0])] == ["NodeAway"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"prometheus_retention_size": "much"}, "prometheus_retention_size is 'much'; it must be a size, as in 50GB"),
        ({"prometheus_retention": "forever"}, "prometheus_retention is 'forever'; it must be a duration"),
        ({"prometheus_targets": {"node": [{"targets": [], "labels": {"a-b": ""}}]}}, "prometheus_targets, job 'node'"),
    ],
)
def test_variables_that_promtool_does_not_see_are_checked(
    change: Callable[..., str], variables: dict[str, Any], message: str
) -> None:
    assert message in change(**variables)


def test_targets_rules_and_configuration_need_no_restart(hosts: list[Any], change: Callable[..., str]) -> None:
    before = [process(host) for host in hosts]

    assert not change(
        prometheus_scrape_interval="7s",
        prometheus_targets={"other": [{"targets": ["127.0.0.2:9100"]}]},
        prometheus_rules={"other": [{"name": "other", "rules": [{"record": "a:b", "expr": "up"}]}]},
    )

    for host in hosts:
        assert "scrape_interval: 7s" in api(host, "status/config")["yaml"]
        wait_until_up(host, {("prometheus", None), ("other", None)})
        assert [rule["name"] for rule in rules(host)] == ["a:b"]
        assert not host.file(RULES).exists
    assert [process(host) for host in hosts] == before


def test_arguments_need_a_restart(hosts: list[Any], change: Callable[..., str]) -> None:
    before = [process(host) for host in hosts]

    assert not change(prometheus_retention="1d", prometheus_retention_size="1GB")

    assert {api(host, "status/flags")["storage.tsdb.retention.time"] for host in hosts} == {"1d"}
    assert {api(host, "status/flags")["storage.tsdb.retention.size"] for host in hosts} == {"1GiB"}
    assert not set(before) & {process(host) for host in hosts}


def test_it_is_closed_by_tls_and_password_and_a_wrong_certificate_leaves_it_as_it_was(
    hosts: list[Any], change: Callable[..., str], converge: Callable[..., Any]
) -> None:
    for host in hosts:
        host.check_output(CERTIFICATE)
    closed = {
        "prometheus_password": "swordfish",
        "prometheus_tls_certificate": "/etc/prometheus/own.pem",
        "prometheus_tls_key": "/etc/prometheus/own.key",
    }

    assert not change(**closed)

    for host in hosts:
        assert host.run("curl --silent --fail http://127.0.0.1:9090/").rc
        assert "401" in host.run(f"curl --silent --insecure --include {OWN}").stdout
        login = "--user prometheus:swordfish --cacert /etc/prometheus/own.pem --resolve mon.example:9090:127.0.0.1"
        targets = f"curl --silent --fail {login} https://mon.example:9090/api/v1/targets"
        deadline = time.monotonic() + 30
        while {target["health"] for target in json.loads(host.check_output(targets))["data"]["activeTargets"]} != {
            "up"
        }:
            assert time.monotonic() < deadline, host.check_output(targets)
            time.sleep(1)
        web = host.file("/etc/prometheus/web.yml")
        assert (web.user, web.group, web.mode) == ("root", "prometheus", 0o640)
        assert "$2b$10$" in web.content_string
        assert "swordfish" not in web.content_string
    again = converge("--extra-vars", json.dumps(closed), "--diff")
    assert again.stdout.count("changed=0") == len(hosts), again.stdout
    wrong = change(**{**closed, "prometheus_tls_key": "/etc/prometheus/absent.key", "prometheus_password": "catfish"})
    assert "/etc/prometheus/web.yml stays as it is" in wrong
    assert "fish" not in wrong.replace("--extra-vars", "")
    assert not change()
    assert {host.run("curl --silent --fail http://127.0.0.1:9090/-/ready").rc for host in hosts} == {0}
