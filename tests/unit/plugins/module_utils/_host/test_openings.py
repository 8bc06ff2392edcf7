"""Ranges of ports that only the other nodes of an instance may reach, in each of the firewalls."""

from __future__ import annotations

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import Opening
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.steps import take

from .test_access import NOTHING, Host, host, rich

__all__ = ["host"]

PEERS = (Opening(29500, 29599, ("10.0.0.12",)),)


def test_a_range_for_others_is_one_rule_of_firewalld(host: Host) -> None:
    host.firewalld()
    access = host.look(["8000"], ["10.0.0.2"], openings=PEERS)
    rule = rich(29500, "10.0.0.12").replace('"29500"', '"29500-29599"')
    assert access.says == [
        "firewalld: TCP port 8000 for 10.0.0.2 is open",
        "firewalld: TCP ports 29500-29599 for 10.0.0.12 is open",
    ]
    assert rule in " ".join(host.commands(access))
    take([step for step in access.firewall if step.write])
    assert 'port="29500-29599"' in (host.root / "etc/firewalld/policies/gpuhosts-test.xml").read_text()
    host.firewalld(rich(8000, "10.0.0.2"), rule)
    assert host.look(["8000"], ["10.0.0.2"], openings=PEERS) == NOTHING
    assert host.look(["8000"], ["10.0.0.2"]).says == ["firewalld: no longer open: TCP ports 29500-29599 for 10.0.0.12"]


def test_a_range_for_others_is_one_rule_of_ufw(host: Host) -> None:
    host.file("etc/ufw/ufw.conf", "ENABLED=yes\n")
    (command,) = host.commands(host.look([], openings=PEERS))
    assert command == "ufw allow proto tcp from 10.0.0.12 to any port 29500:29599 comment gpuhosts-test"
    comment = b"gpuhosts-test".hex()
    rule = f"### tuple ### allow tcp 29500:29599 0.0.0.0/0 any 10.0.0.12 in comment={comment}\n"
    host.file("etc/ufw/user.rules", rule)
    assert host.look([], openings=PEERS) == NOTHING
    assert host.commands(host.look([])) == ["ufw delete allow proto tcp from 10.0.0.12 to any port 29500:29599"]


@pytest.mark.parametrize(("last", "lacks"), [(29599, False), (29598, True)])
def test_a_ruleset_of_nft_that_lets_in_a_part_of_a_range_lacks_it(host: Host, last: int, lacks: bool) -> None:
    port = {
        "match": {
            "op": "==",
            "left": {"payload": {"protocol": "tcp", "field": "dport"}},
            "right": {"range": [29500, last]},
        }
    }
    host.nft({}, [[port, {"accept": None}]])
    warnings = host.look([], openings=PEERS).warnings
    assert bool(warnings) == lacks
    if lacks:
        assert "ip saddr 10.0.0.12 tcp dport 29500-29599 accept" in warnings[0]
