"""What of the monitoring runs where, and where it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.filter.monitoring import (
    FRONT_DOOR_CERTIFICATE,
    alertmanagers,
    front_door,
    observers,
    prometheus_url,
)

from tests.defaults import constants

ROLE = Path(__file__).resolve().parents[4] / "roles/nginx_lb"

GIVEN = {"fleet_alertmanager_url": "https://alerts.example.com"}


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, ["mon1", "mon2"]),
        ({"fleet_observe": ["prometheus"]}, ["mon2"]),
        (GIVEN, ["mon2"]),
    ],
)
def test_a_component_is_wanted_unless_it_is_switched_off_or_elsewhere(
    variables: dict[str, Any], wanted: list[str]
) -> None:
    assert observers(["mon1", "mon2"], {"mon1": variables, "mon2": {}}, "alertmanager") == wanted


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, []),
        ({"exporters_gpu_source": "dcgm"}, ["gpu1"]),
        ({"exporters_gpu_source": "dcgm", "fleet_observe": ["prometheus"]}, []),
        ({"exporters_gpu_source": "none"}, []),
    ],
)
def test_dcgm_is_wanted_where_exporters_are_and_tell_by_it(variables: dict[str, Any], wanted: list[str]) -> None:
    assert observers(["gpu1", "gpu2"], {"gpu1": variables, "gpu2": {}}, "dcgm") == wanted


def test_an_alertmanager_of_ours_is_asked_on_its_host() -> None:
    hostvars: dict[str, Any] = {"mon1": {"alertmanager_listen_address": "0.0.0.0:9094"}, "mon2": {}, "gpu1": {}}
    assert alertmanagers(["mon1", "mon2"], hostvars) == [
        {"host": "mon1", "url": "http://127.0.0.1:9094"},
        {"host": "mon2", "url": "http://127.0.0.1:9093"},
    ]


@pytest.mark.parametrize(("names", "host"), [(["mon1"], "mon1"), ([], "localhost")])
def test_another_one_is_asked_once(names: list[str], host: str) -> None:
    assert alertmanagers(names, {"mon1": GIVEN, "gpu1": GIVEN}) == [{"host": host, "url": "https://alerts.example.com"}]


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "http://127.0.0.1:9090"),
        ({"prometheus_listen_address": "[::]:9091"}, "http://127.0.0.1:9091"),
        (
            {"prometheus_listen_address": "10.0.0.3:9090", "prometheus_tls_certificate": "/etc/own.pem"},
            "https://10.0.0.3:9090",
        ),
    ],
)
def test_prometheus_is_asked_as_it_listens(variables: dict[str, Any], url: str) -> None:
    assert prometheus_url(variables) == url


TLS = {"ansible_host": "10.0.0.5", "nginx_lb_tls": "given"}


@pytest.mark.parametrize(
    ("variables", "url", "certificate"),
    [
        ({"ansible_host": "10.0.0.5", "nginx_lb_tls_listen": ["443"]}, "http://10.0.0.5", ""),
        (TLS, "https://10.0.0.5", FRONT_DOOR_CERTIFICATE),
        (TLS | {"nginx_lb_tls_certificate": "-----BEGIN "}, "https://10.0.0.5", FRONT_DOOR_CERTIFICATE),
        (TLS | {"nginx_lb_tls_certificate": "/a.pem"}, "https://10.0.0.5", "/a.pem"),
        (TLS | {"nginx_lb_tls_listen": ["*:8443 backlog=9"]}, "https://10.0.0.5:8443", FRONT_DOOR_CERTIFICATE),
        (TLS | {"nginx_lb_tls_listen": ["10.0.0.9:443"]}, "https://10.0.0.9", FRONT_DOOR_CERTIFICATE),
        (TLS | {"nginx_lb_tls_listen": ["[::]:8443"]}, "https://10.0.0.5:8443", FRONT_DOOR_CERTIFICATE),
    ],
)
def test_a_front_door_is_asked_as_it_listens(variables: dict[str, Any], url: str, certificate: str) -> None:
    assert front_door("lb1", {"lb1": variables}) == {"url": url, "certificate": certificate}


def test_the_certificate_is_where_the_role_has_it() -> None:
    said = constants(ROLE)
    assert f"{said['_nginx_lb_tls_directory']}/certificate.pem" == FRONT_DOOR_CERTIFICATE
    assert said["_nginx_lb_tls_own_certificate"] == "{{ _nginx_lb_tls_directory }}/certificate.pem"
