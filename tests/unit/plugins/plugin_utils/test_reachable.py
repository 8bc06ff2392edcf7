"""What of an inventory keeps hosts from reaching each other."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.reachable import mistakes

NAMES = {"lb1.example.org": ["192.0.2.1"]}


def found(group: str, **variables: Any) -> list[str]:
    """The mistakes of two hosts of a group."""
    host = {"group_names": [group], "fleet_address": "10.0.0.1", **variables}
    return mistakes(["one", "two"], {"one": host, "two": host}, lambda name: NAMES.get(name, []))


@pytest.mark.parametrize(
    ("group", "variables"),
    [
        ("gpu_hosts", {}),
        ("gpu_hosts", {"fleet_firewall": "auto", "vllm_firewall": "none", "fleet_allow_from": []}),
        ("gpu_hosts", {"fleet_cluster_address": "192.168.7.1"}),
        ("gpu_hosts", {"fleet_cluster_address": ""}),
        ("gpu_hosts", {"fleet_allow_from": ["10.0.0.7", "10.0.0.7/8", "fd00::/8", "lb1.example.org"]}),
        ("gpu_hosts", {"fleet_allow_from": "{{ ansible_facts.default_ipv4.address }}"}),  # before ansible-core 2.19
        ("gpu_hosts", {"nginx_lb_firewall": "off", "nginx_lb_allow_from": 1}),  # not read there
        ("load_balancers", {"fleet_address": "lb1.example.org"}),  # NGINX looks up GPU hosts only
    ],
)
def test_what_hosts_can_act_upon(group: str, variables: dict[str, Any]) -> None:
    assert found(group, **variables) == []


@pytest.mark.parametrize(
    ("group", "variables", "words"),
    [
        ("gpu_hosts", {"fleet_address": "gpu1.example.org"}, "The address of one is 'gpu1.example.org'"),
        ("gpu_hosts", {"fleet_address": "10.0.0.300"}, "The address of one is '10.0.0.300'"),
        *(
            (
                "gpu_hosts",
                {"fleet_cluster_address": value},
                f"fleet_cluster_address of one, two is '{value}', {reason}. Set",
            )
            for value, reason in {
                "ib0.gpu1": "which is no address",
                "10.0.0.300": "which is no address",
                "10.0.0": "which is no address",
                "10.0.0.1/24": "which is no address",
                "fd00::1": "an IPv6 address, and the nodes of an instance speak IPv4",
                "127.0.0.1": "which is every host itself",
                str(IPv4Address(0)): "which is no host's",
                "224.0.0.1": "which is no host's",
                "255.255.255.255": "which is no host's",
            }.items()
        ),
        ("gpu_hosts", {"fleet_firewall": False}, "fleet_firewall of one, two is false. Set it to auto"),
        ("gpu_hosts", {"vllm_firewall": "ufw"}, 'vllm_firewall of one, two is "ufw". Set it to auto'),
        ("monitoring", {"exporters_firewall": ""}, 'exporters_firewall of one, two is "". Set it to auto'),
        ("load_balancers", {"nginx_lb_firewall": "on"}, 'nginx_lb_firewall of one, two is "on"'),
        ("gpu_hosts", {"fleet_allow_from": "10.0.0.0/8"}, 'one, two is "10.0.0.0/8", no list. Put it in brackets'),
        ("monitoring", {"prometheus_allow_from": 10}, "prometheus_allow_from of one, two is 10, no list"),
        ("load_balancers", {"nginx_lb_allow_from": ["10.0.0.0/33"]}, "has '10.0.0.0/33', which is no address"),
        ("gpu_hosts", {"fleet_allow_from": ["lb2"]}, "has 'lb2', which is no address"),
    ],
)
def test_what_they_cannot(group: str, variables: dict[str, Any], words: str) -> None:
    first, *others = found(group, **variables)
    assert words in first
    assert len(others) == (1 if "fleet_address" in variables else 0)
