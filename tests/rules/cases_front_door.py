"""Alerts about the front door."""

from __future__ import annotations

from .case import Case

__all__ = ["CASES"]

_NGINX = 'job="nginx",host="lb1",instance="10.0.0.9:9113"'
_LB = 'job="node",host="lb1",instance="10.0.0.9:9100"'
_HERE = {"job": "node", "host": "lb1", "instance": "10.0.0.9:9100"}
_OF_M = {"model": "m"}
_UP1, _UP2 = (f'up{{job="vllm",model="m",instance_id="m-{n}",instance="10.0.0.{n}:8000"}}' for n in (1, 2))
_CERTIFICATE = f'gpuhosts_certificate_expiry_timestamp_seconds{{{_LB},path="/etc/ssl/door.pem"}}'
_IN1, _IN2 = (f'gpuhosts_server_in_service{{{_LB},model="m",server="10.0.0.{n}:8000"}}' for n in (1, 2))
_HELD1, _HELD2 = (
    f'gpuhosts_front_address_held{{{_LB.replace("lb1", one)},address="10.0.0.100"}}' for one in ("lb1", "lb2")
)
_DRAINED = f'gpuhosts_server_drained_since_timestamp_seconds{{{_LB},server="10.0.0.1:8000",reason="operator"}}'


def _requests(status: str, model: str = "m") -> str:
    return f'gpuhosts_front_door_requests_total{{{_LB},model="{model}",status="{status}"}}'


def _first_byte(le: str) -> str:
    return f'gpuhosts_front_door_first_byte_seconds_bucket{{{_LB},model="m",le="{le}"}}'


def _share(alert: str, status: str) -> Case:
    return Case(
        alert,
        20,
        {_requests("200"): "0+60", _requests(status): "0+30", _requests(status, ""): "0+60"},
        _OF_M,
        quiet={_requests(status): "0+0.3"},
    )


def _too_few(alert: str, status: str) -> Case:
    """Half of the requests, of which there are hardly any."""
    return Case(
        alert,
        20,
        {_requests("200"): "0+60", _requests(status): "0+60"},
        _OF_M,
        quiet={_requests("200"): "0+0.2", _requests(status): "0+0.2"},
    )


_STATUSES = (
    ("FrontDoorClientsLeave", "499"),
    ("FrontDoorBadGateway", "502"),
    ("FrontDoorBadGateway", "503"),
    ("FrontDoorGatewayTimeout", "504"),
)

CASES = (
    *(_share(alert, status) for alert, status in _STATUSES),
    *(_too_few(alert, status) for alert, status in _STATUSES),
    Case(
        "FrontDoorDown",
        10,
        {f"nginx_up{{{_NGINX}}}": "0", f"up{{{_NGINX}}}": "1"},
        {"job": "nginx", "host": "lb1", "instance": "10.0.0.9:9113"},
        quiet={f"nginx_up{{{_NGINX}}}": "1"},
    ),
    Case(
        "FrontDoorDown",
        10,
        {f"up{{{_NGINX}}}": "0"},
        {"job": "nginx", "host": "lb1", "instance": "10.0.0.9:9113"},
        quiet={f"up{{{_NGINX}}}": "1"},
    ),
    Case(
        "FrontDoorVanished",
        40,
        {f"up{{{_NGINX}}}": "1x10 stale"},
        {"host": "lb1"},
        quiet={f"up{{{_NGINX}}}": "0"},
        idle={f"up{{{_NGINX}}}": "1"},
    ),
    Case(
        "FrontDoorAddressHolders",
        10,
        {_HELD1: "0", _HELD2: "0"},
        {"address": "10.0.0.100"},
        quiet={_HELD2: "1"},
    ),
    Case(
        "FrontDoorAddressHolders",
        10,
        {_HELD1: "1", _HELD2: "1"},
        {"address": "10.0.0.100"},
        quiet={_HELD1: "0"},
    ),
    Case(
        "FrontDoorFirstByteSlow",
        30,
        {_first_byte("10"): "0+10", _first_byte("20"): "0+60", _first_byte("+Inf"): "0+60", _requests("200"): "0+60"},
        _OF_M,
        quiet={_first_byte("10"): "0+60"},
    ),
    Case(
        "FrontDoorServersDown",
        20,
        {_UP1: "0", _UP2: "1"},
        _OF_M,
        quiet={_UP1: "1"},
    ),
    Case(
        "FrontDoorServersDown",
        20,
        {_IN1: "0", _IN2: "1"},
        _OF_M,
        quiet={_IN1: "1"},
    ),
    Case(  # no server at all is said by another alert
        "FrontDoorServersDown",
        20,
        {_UP1: "0", _UP2: "1"},
        _OF_M,
        quiet={_UP2: "0"},
    ),
    Case(
        "FrontDoorDrainedTooLong",
        300,
        {_DRAINED: "0"},
        {**_HERE, "server": "10.0.0.1:8000", "reason": "operator"},
        quiet={_DRAINED: "7200"},
    ),
    Case(
        "FrontDoorCertificateExpires",
        90,
        {_CERTIFICATE: "864000"},
        {**_HERE, "path": "/etc/ssl/door.pem"},
        quiet={_CERTIFICATE: "8640000"},
    ),
    Case(
        "FrontDoorCertificateExpired",
        90,
        {_CERTIFICATE: "3600"},
        {**_HERE, "path": "/etc/ssl/door.pem"},
        quiet={_CERTIFICATE: "864000"},
    ),
    Case(
        "FrontDoorLogUnreadable",
        40,
        {f"gpuhosts_front_door_unreadable_lines_total{{{_LB}}}": "0+1"},
        _HERE,
        quiet={f"gpuhosts_front_door_unreadable_lines_total{{{_LB}}}": "5"},
    ),
)
