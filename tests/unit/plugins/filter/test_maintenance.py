"""What the playbooks that take hosts out of service ask before and after."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.filter.maintenance import (
    FilterModule,
    bound_to,
    cut_by,
    gpu_differences,
    gpus_to_remember,
    left_without_server,
    running_instances,
    server,
    spanning_instances,
)


def host(address: str, *instances: dict[str, Any]) -> dict[str, Any]:
    return {"ansible_host": address, "ansible_facts": {"ansible_local": {"gpuhosts_vllm": {"instances": instances}}}}


def entry(name: str, port: int = 8000, **more: Any) -> dict[str, Any]:
    return {"id": name, "model": name.rpartition("-")[0], "port": port, "gpus": [0], **more}


def gpu(index: int, **changes: Any) -> dict[str, Any]:
    usual = {"index": index, "lost": False, "uuid": f"GPU-{index}", "name": "NVIDIA H100", "total_gib": 79.6}
    return {**usual, "fabric_state": "completed", **changes}


FLEET = {
    "gpu1": host("10.0.0.11", entry("small-1"), entry("small-2", 8001), entry("giant-1", 8002, rank=0)),
    "gpu2": host("10.0.0.12", entry("small-3"), entry("giant-1", 8002, rank=1)),
    "gpu3": {"ansible_host": "10.0.0.13", "ansible_facts": {}},
}


def endpoint(host: str, port: int) -> dict[str, Any]:
    return {"host": host, "address": FLEET[host]["ansible_host"], "port": port}


def test_the_local_facts_tell_what_runs() -> None:
    assert running_instances(FLEET, FLEET) == [
        {"id": "giant-1", "model": "giant", "host_names": ["gpu1", "gpu2"], "endpoint": endpoint("gpu1", 8002)},
        {"id": "small-1", "model": "small", "host_names": ["gpu1"], "endpoint": endpoint("gpu1", 8000)},
        {"id": "small-2", "model": "small", "host_names": ["gpu1"], "endpoint": endpoint("gpu1", 8001)},
        {"id": "small-3", "model": "small", "host_names": ["gpu2"], "endpoint": endpoint("gpu2", 8000)},
    ]


def test_front_doors_name_their_servers_by_address_and_port() -> None:
    assert next(server(instance["endpoint"]) for instance in running_instances(FLEET, FLEET)) == "10.0.0.11:8002"


def test_waves_are_made_of_what_runs() -> None:
    """The rules themselves are tested where they are: _planner/test_rollout.py."""
    waves = FilterModule().filters()["waves"]
    alone = {name: facts for name, facts in FLEET.items() if name != "gpu2"} | {
        "gpu4": host("10.0.0.14", entry("small-4"))
    }
    assert waves(running_instances(alone, alone), alone) == [["gpu1", "gpu3"], ["gpu4"]]
    assert waves(running_instances(FLEET, FLEET), FLEET) == [["gpu1", "gpu2", "gpu3"]]  # giant-1 spans the first two


@pytest.mark.parametrize(
    ("away", "models"),
    [(["gpu3"], []), (["gpu1"], ["giant"]), (["gpu2"], ["giant"]), (["gpu1", "gpu2"], ["giant", "small"])],
)
def test_which_models_have_nobody_left(away: list[str], models: list[str]) -> None:
    assert left_without_server(running_instances(FLEET, FLEET), away) == models


@pytest.mark.parametrize(
    ("now", "differences"),
    [
        ([gpu(0), gpu(1)], []),
        ([gpu(1), gpu(0)], []),
        ([gpu(0, total_gib=79.4), gpu(1), gpu(2)], []),
        ([gpu(0), gpu(1, total_gib=39.6)], ["GPU 1 has 39.6 GiB; it had 79.6"]),
        ([gpu(0)], ["GPU 1 (NVIDIA H100, GPU-1) is not there any more"]),
        (
            [gpu(0), gpu(1, lost=True, uuid=None)],
            ["GPU 1: lost (fell off the bus)", "GPU 1 (NVIDIA H100, GPU-1) is not there any more"],
        ),
        (
            [gpu(0, fabric_state="in_progress"), gpu(1, fabric_state=None)],
            ["GPU 0: fabric in_progress"],
        ),
    ],
)
def test_what_has_become_of_the_gpus(now: list[dict[str, Any]], differences: list[str]) -> None:
    assert gpu_differences(now, [gpu(0), gpu(1)]) == differences


CARD = {"index": 0, "name": "NVIDIA L40S", "total_gib": 45.0}


def gpus(*uuids: str | None) -> dict[str, Any]:
    return {"gpus": [{**CARD, "uuid": uuid, "lost": uuid is None} for uuid in uuids]}


def kept(*uuids: str) -> dict[str, Any]:
    return {"version": 1, "gpus": [{**CARD, "uuid": uuid} for uuid in uuids]}


def test_gpus_are_remembered_until_there_are_as_many_again() -> None:
    assert gpus_to_remember(gpus("a", "b"), {}) == kept("a", "b")
    assert gpus_to_remember(gpus("a"), "error loading facts as JSON or ini") == kept("a")
    assert gpus_to_remember(gpus("a", None), kept("a", "b")) == kept("a", "b")  # None: it is lost
    assert gpus_to_remember(gpus(), kept("a")) == kept("a")
    assert gpus_to_remember(gpus("a", "c"), kept("a", "b")) == kept("a", "c")
    assert gpus_to_remember(gpus("a", "b", "c"), kept("a", "b")) == kept("a", "b", "c")


def shared(name: str, *hosts: str) -> dict[str, Any]:
    return {"id": name, "model": name.rpartition("-")[0], "host_names": list(hosts)}


def test_hosts_are_bound_by_what_they_share_also_through_others() -> None:
    instances = [shared("a-1", "gpu1", "gpu2"), shared("b-1", "gpu3", "gpu2"), shared("c-1", "gpu4")]
    assert bound_to(["gpu1"], instances) == ["gpu1", "gpu2", "gpu3"]
    assert bound_to(["gpu4"], instances) == ["gpu4"]
    assert bound_to([], instances) == []


def test_an_instance_is_cut_where_only_a_part_of_it_is() -> None:
    """As it runs and as it is planned: it is moving away from gpu1."""
    instances = [shared("a-1", "gpu1", "gpu2"), shared("a-1", "gpu2", "gpu3"), shared("b-1", "gpu2")]
    assert cut_by(instances, ["gpu2"]) == [{"id": "a-1", "outside": ["gpu1", "gpu3"]}]
    assert cut_by(instances, ["gpu1", "gpu2", "gpu3", "lb1"]) == []
    assert cut_by(instances, ["lb1"]) == []


def test_the_plan_tells_what_is_going_to_span_hosts() -> None:
    nodes = [{"host": "gpu1"}, {"host": "gpu2"}]
    instances = [{"id": "a-1", "model": "a", "nodes": nodes}, {"id": "b-1", "model": "b", "nodes": nodes[:1]}]
    assert spanning_instances({"instances": instances}) == [shared("a-1", "gpu1", "gpu2")]
