"""Whom Grafana asks, and as whom: without variables of its own the Prometheus and the Jaeger of the same host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).resolve().parents[3] / "roles/grafana"
OWN = {"prometheus_listen_address": "0.0.0.0:9091", "prometheus_password": "catfish"}
TLS = {"prometheus_tls_certificate": "/own.pem"}
ELSEWHERE = {"grafana_prometheus_url": "https://metrics.example.com"}


def sources(variables: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The provisioned sources by type."""
    loader = DataLoader()
    known: dict[str, Any] = {"ansible_managed": ""}
    for path in (ROLE / "defaults/main.yml", ROLE / "vars/main/main.yml"):
        known |= loader.load_from_file(str(path), trusted_as_template=True)
    known["path"] = str(ROLE / "templates/datasources.yaml.j2")
    template = trust_as_template("{{ lookup('ansible.builtin.template', path) }}")
    text = Templar(loader, variables=known | variables).template(template)
    return {source["type"]: source for source in yaml.safe_load(text)["datasources"]}


@pytest.mark.parametrize(
    ("variables", "url", "user", "unverified"),
    [
        ({}, "http://127.0.0.1:9090", None, True),
        (OWN, "http://127.0.0.1:9091", "prometheus", True),
        (OWN | TLS, "https://127.0.0.1:9091", "prometheus", True),
        (OWN | TLS | {"grafana_prometheus_ca": "/ca.pem"}, "https://127.0.0.1:9091", "prometheus", False),
        (OWN | TLS | ELSEWHERE, "https://metrics.example.com", None, False),
    ],
)
def test_its_own_hosts_prometheus_is_asked_as_its_variables_say_and_no_other_hears_that_password(
    variables: dict[str, Any], url: str, user: str | None, unverified: bool
) -> None:
    prometheus = sources(variables)["prometheus"]

    assert (prometheus["url"], prometheus.get("basicAuthUser")) == (url, user)
    assert prometheus["jsonData"].get("tlsSkipVerify", False) is unverified
    assert ("basicAuthPassword" in prometheus.get("secureJsonData", {})) is bool(user)


def test_jaeger_of_the_same_host_is_asked_where_there_is_one() -> None:
    assert "jaeger" not in sources({})
    assert sources({"grafana_beside_jaeger": True})["jaeger"]["url"] == "http://127.0.0.1:16686"
    assert (
        sources({"grafana_jaeger_url": "https://traces.example.com"})["jaeger"]["url"] == "https://traces.example.com"
    )
