"""The nodes of an instance are told the interface between them, and the firewall the ports."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine import network
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import NetworkError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import Opening

KNOWN = {"127.0.0.1": "lo", "10.0.0.1": "eth0", "192.168.9.1": "ib0"}
NODE: dict[str, Any] = {
    "id": "wide-1",
    "node": {"address": "192.168.9.1"},
    "peers": ["192.168.9.2", "192.168.9.3"],
    "peer_ports": [29500, 29599],
}
ALONE: dict[str, Any] = {"id": "tiny-1", "node": {"address": "10.0.0.1"}, "peers": [], "peer_ports": None}


def test_this_machine_has_its_interfaces() -> None:
    names = {name for _, name in socket.if_nameindex()}
    found = network.interfaces()
    assert found["127.0.0.1"] == "lo"
    assert set(found.values()) <= names


def test_every_library_is_told_the_interface_of_the_node() -> None:
    assert network.interface_variables(NODE, KNOWN) == {
        "GLOO_SOCKET_IFNAME": "ib0",
        "NCCL_SOCKET_IFNAME": "=ib0",
        "TP_SOCKET_IFNAME": "ib0",
    }
    assert network.interface_variables(ALONE, {}) == {}
    assert network.interface_variables({"id": "x"}, {}) == {}


def test_an_address_that_is_none_of_the_host_is_refused_with_the_remedy() -> None:
    with pytest.raises(NetworkError) as caught:
        network.interface_variables(NODE, {"127.0.0.1": "lo", "10.0.0.1": "eth0"})
    assert str(caught.value) == (
        "wide-1: no interface of this host has the address 192.168.9.1, by which the other nodes of the instance are "
        "to reach it; there are 10.0.0.1, 127.0.0.1. Set fleet_cluster_address of this host to one of its own."
    )


@pytest.mark.parametrize(
    ("ephemeral", "ports"),
    [
        ("32768\t60999", [(29500, 29599), (32768, 60999)]),
        ("20000\t40000", [(20000, 40000)]),
        ("29550\t40000", [(29500, 40000)]),
    ],
)
def test_the_other_nodes_and_nobody_else_reach_what_nodes_listen_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ephemeral: str, ports: list[tuple[int, int]]
) -> None:
    (tmp_path / "range").write_text(ephemeral)
    monkeypatch.setattr(network, "_RANGE", tmp_path / "range")
    assert network.openings([ALONE, NODE]) == [Opening(*pair, ("192.168.9.2", "192.168.9.3")) for pair in ports]
    assert network.openings([ALONE]) == []
