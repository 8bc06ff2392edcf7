"""VRRP, a protocol of IP without ports, that only the other balancers may send, in each of the firewalls."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import Access
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.steps import take

from .test_access import NOTHING, Host, host

__all__ = ["host"]

RICH = 'rule family="ipv4" source address="10.0.0.3" protocol value="vrrp" accept'
ACCEPT: dict[str, Any] = {"accept": None}


def look(host: Host, *protocols: str) -> Access:
    return host.look([], ["10.0.0.3"], protocols=protocols)


def match(left: dict[str, Any], right: Any) -> dict[str, Any]:
    return {"match": {"op": "==", "left": left, "right": right}}


OF_IP = {"payload": {"protocol": "ip", "field": "protocol"}}
LAYER_4 = {"meta": {"key": "l4proto"}}
FROM = match({"payload": {"protocol": "ip", "field": "saddr"}}, "10.0.0.3")


def test_firewalld(host: Host) -> None:
    host.firewalld()
    access = look(host, "vrrp")
    assert access.says == ["firewalld: VRRP for 10.0.0.3 is open"]
    take([step for step in access.firewall if step.write])
    text = (host.root / "etc/firewalld/policies/gpuhosts-test.xml").read_text()
    assert '<source address="10.0.0.3"/><protocol value="vrrp"/><accept/>' in text
    host.firewalld(RICH)
    assert look(host, "vrrp") == NOTHING
    assert look(host).says == ["firewalld: no longer open: VRRP for 10.0.0.3"]


def test_ufw(host: Host) -> None:
    host.file("etc/ufw/ufw.conf", "ENABLED=yes\n")
    access = look(host, "vrrp")
    assert access.says == ["ufw: VRRP for 10.0.0.3 is open"]
    assert host.commands(access) == ["ufw allow proto vrrp from 10.0.0.3 to any comment gpuhosts-test"]
    # As ufw 0.36.2 writes it.
    rule = f"### tuple ### allow vrrp any 0.0.0.0/0 any 10.0.0.3 in comment={b'gpuhosts-test'.hex()}\n"
    host.file("etc/ufw/user.rules", rule)
    assert look(host, "vrrp") == NOTHING
    assert host.commands(look(host)) == ["ufw delete allow proto vrrp from 10.0.0.3 to any"]


@pytest.mark.parametrize(
    ("refusing", "refuses"),
    [
        ("deny vrrp any 0.0.0.0/0 any 10.0.0.0/24 in", True),
        ("reject any any 0.0.0.0/0 any 10.0.0.3 in", True),
        ("deny tcp any 0.0.0.0/0 any 10.0.0.3 in", False),
        ("deny any 112 0.0.0.0/0 any 10.0.0.3 in", False),
    ],
)
def test_what_somebody_refuses_in_ufw_stays_refused(host: Host, refusing: str, refuses: bool) -> None:
    host.file("etc/ufw/ufw.conf", "ENABLED=yes\n")
    host.file("etc/ufw/user.rules", f"### tuple ### {refusing}\n")
    access = look(host, "vrrp")
    assert bool(access.firewall) != refuses
    assert [one.endswith(": ufw prepend allow proto vrrp from 10.0.0.3 to any") for one in access.warnings] == (
        [True] * refuses
    )


@pytest.mark.parametrize(
    ("rule", "is_open"),
    [
        ([match(OF_IP, "vrrp"), ACCEPT], True),
        ([match(LAYER_4, 112), ACCEPT], True),
        ([FROM, match(LAYER_4, {"set": ["esp", "vrrp"]}), ACCEPT], True),
        ([FROM, ACCEPT], True),
        ([match(OF_IP, "esp"), ACCEPT], False),
        ([match({"payload": {"protocol": "tcp", "field": "dport"}}, 80), ACCEPT], False),
        ([match({"meta": {"key": "iifname"}}, "lo"), ACCEPT], False),
    ],
)
def test_a_ruleset_of_nft(host: Host, rule: list[Any], is_open: bool) -> None:
    host.nft({}, [rule])
    warnings = look(host, "vrrp").warnings
    assert bool(warnings) != is_open
    if warnings:
        assert "nft insert rule inet fw input ip saddr 10.0.0.3 meta l4proto 112 accept." in warnings[0]


def test_a_ruleset_of_iptables(host: Host) -> None:
    host.nft({"family": "ip", "table": "filter", "name": "INPUT"}, [])
    assert "iptables -I INPUT -p 112 -s 10.0.0.3 -j ACCEPT." in look(host, "vrrp").warnings[0]
