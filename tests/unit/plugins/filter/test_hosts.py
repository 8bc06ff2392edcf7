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


def test_a_setting_is_that_of_the_host_or_the_default() -> None:
    hostvars = HOSTVARS | {"gpu1": {"model_store_dir": "/data"}}
    settings = [hosts.setting(name, hostvars, "model_store_dir") for name in ("gpu1", "gpu2")]
    assert settings == ["/data", "/srv/model-store"]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["/etc/fleet/prod/hosts.yml"], "/etc/fleet/prod/reports"),
        (["/etc/fleet/prod"], "/etc/fleet/reports/prod"),
        (["/etc/other", "/etc/fleet/prod"], "/etc/fleet/reports/prod"),
        (["/etc/fleet/prod", "/etc/fleet"], "/etc/reports/fleet"),
        (["gpu1,"], "/etc/fleet/prod/reports"),
    ],
)
def test_reports_lie_in_no_directory_that_is_read_as_inventory(sources: list[str], expected: str) -> None:
    assert hosts.reports_beside("/etc/fleet/prod", sources) == expected


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
    assert hosts.host_targets(["gpu2"], HOSTVARS, "exporters_dcgm_port")[0]["targets"] == ["203.0.113.2:9400"]


def test_the_nodes_of_an_instance_need_the_same_release_and_secret() -> None:
    nodes = [{"host": "gpu1"}, {"host": "gpu2"}]
    wide = {"id": "wide-1", "model": "wide", "executor": "mp", "runtime": "systemd", "nodes": nodes}

    def told(one: dict[str, Any], two: dict[str, Any], **more: Any) -> list[str]:
        return hosts.node_mistakes({"instances": [{**wide, **more}]}, {"gpu1": one, "gpu2": two})

    assert told({"vllm_api_key": "a"}, {"vllm_api_key": "a", "vllm_image_digest": "sha256:1"}) == []
    (mistake,) = told({"vllm_version": "0.32.0"}, {"vllm_version": "0.33.0"})
    assert mistake.startswith("wide-1: its nodes need the same vllm_version; there are gpu1 0.32.0, gpu2 0.33.0. Set")
    assert len(told({"vllm_version": "0.32.0"}, {})) == 1
    (mistake,) = told({"vllm_image_digest": "sha256:1"}, {}, runtime="docker")
    assert "the same vllm_image_digest; there are gpu1 sha256:1, gpu2 none." in mistake
    strangers = (
        "wide-1: its nodes know each other by vllm_keeper_token or vllm_api_key, and gpu1, gpu2 have different values. "
        "Set one value for all of them."
    )
    assert told({"vllm_api_key": "a"}, {"vllm_api_key": "b"}) == [strangers]
    assert told({"vllm_api_key": "a"}, {"vllm_api_key": "a", "vllm_keeper_token": "t"}) == [strangers]
    same = {"vllm_keeper_token": "t"}
    assert told({"vllm_api_key": "a", **same}, {"vllm_api_key": "b", **same}) == []
    assert told({"vllm_version": "0.32.0"}, {}, nodes=nodes[:1]) == []


def test_ray_wants_the_same_python_on_all_nodes_of_an_instance() -> None:
    def debian(version: str, **more: str) -> dict[str, Any]:
        return {"ansible_facts": {"distribution": "Debian", "distribution_major_version": version}, **more}

    nodes = [{"host": "gpu1"}, {"host": "gpu2"}]
    wide = {"id": "wide-1", "model": "wide", "executor": "ray", "runtime": "systemd", "nodes": nodes}
    plan: dict[str, Any] = {"instances": [wide]}
    assert hosts.node_mistakes(plan, {"gpu1": debian("12"), "gpu2": debian("12")}) == []
    (mistake,) = hosts.node_mistakes(plan, {"gpu1": debian("12"), "gpu2": debian("13")})
    assert mistake == (
        "wide-1: Ray wants the same Python on all nodes of an instance; gpu1 that of Debian 12, gpu2 that of "
        "Debian 13. Set executor of wide to mp, name hosts of one release in its hosts, or set vllm_python of them."
    )
    assert hosts.node_mistakes(plan, {"gpu1": debian("12"), "gpu2": {}}) == []  # --limit has neither
    same = {"vllm_python": "/opt/python3.12/bin/python3"}
    assert hosts.node_mistakes(plan, {"gpu1": debian("12", **same), "gpu2": debian("13", **same)}) == []
    contained = {"instances": [{**wide, "runtime": "docker"}]}  # all have the Python of one image
    assert hosts.node_mistakes(contained, {"gpu1": debian("12"), "gpu2": debian("13")}) == []
    wide["executor"] = "mp"
    assert hosts.node_mistakes(plan, {"gpu1": debian("12"), "gpu2": debian("13")}) == []
