"""Filters that read other hosts."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.vllm.plugins.filter import hosts

HOSTVARS: dict[str, dict[str, Any]] = {
    "gpu1": {
        "ansible_host": "203.0.113.1",
        "fleet_address": "10.0.0.1",
        "ansible_facts": {
            "gpu_facts": {"gpus": []},
            "model_facts": {"tiny": {"config": {}}},
            "ansible_local": {"gpuhosts_vllm": {"instances": [{"id": "tiny-1"}]}},
        },
    },
    "gpu2": {"ansible_host": "203.0.113.2", "ansible_facts": {"gpu_facts": {"gpus": []}}},
    "gpu3": {"ansible_facts": {}},
}


@pytest.mark.parametrize(("name", "expected"), [("gpu1", "10.0.0.1"), ("gpu2", "203.0.113.2"), ("gpu3", "gpu3")])
def test_address_prefers_the_fleet_then_ansible_then_the_name(name: str, expected: str) -> None:
    assert hosts.address(name, HOSTVARS) == expected


def test_fleet_hosts_are_sorted_and_carry_what_runs_there() -> None:
    records = hosts.fleet_hosts(["gpu2", "gpu1"], HOSTVARS)
    assert [record["name"] for record in records] == ["gpu1", "gpu2"]
    assert [record["instances"] for record in records] == [[{"id": "tiny-1"}], []]
    assert [record["model_facts"] for record in records] == [{"tiny": {"config": {}}}, {}]


def test_a_host_without_gpu_facts_stops_the_plan() -> None:
    with pytest.raises(AnsibleFilterError, match=r"No GPU facts of gpu3: .* take it out of gpu_hosts"):
        hosts.fleet_hosts(["gpu1", "gpu3"], HOSTVARS)


def test_a_local_fact_that_cannot_be_read_stops_the_plan() -> None:
    facts = {
        "gpu_facts": {},
        "ansible_local": {"gpuhosts_vllm": "error loading facts as JSON or ini: gpuhosts_vllm.fact"},
    }
    with pytest.raises(AnsibleFilterError, match=r"^gpu4: error loading facts .*\. Remove that file"):
        hosts.fleet_hosts(["gpu4"], {"gpu4": {"ansible_facts": facts}})


def test_host_targets_are_labelled_by_host() -> None:
    one, two = hosts.host_targets(
        ["gpu2", "gpu1"], HOSTVARS | {"gpu2": HOSTVARS["gpu2"] | {"exporters_node_port": 9101}}
    )
    assert one == {"targets": ["10.0.0.1:9100"], "labels": {"host": "gpu1"}}
    assert two == {"targets": ["203.0.113.2:9101"], "labels": {"host": "gpu2"}}
    assert hosts.host_targets(["gpu2"], HOSTVARS, 9400)[0]["targets"] == ["203.0.113.2:9400"]
