"""The plan is intent; what a node starts is made of it in one place."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.launch import launches_on

from tests.unit import fleets

WIDE: dict[str, Any] = {
    "name": "llama-3.1-8b-instruct",
    "replicas": 1,
    "parallelism": {"tensor": 2, "pipeline": 2},
    "extra_args": {"api_server_count": 2},
    "env": {"NCCL_DEBUG": "INFO"},
}
# Follows from runtime, executor and host, so it has no place in a plan.
LAUNCH_ONLY = {
    "distributed-executor-backend",
    "headless",
    "host",
    "master-addr",
    "master-port",
    "nnodes",
    "node-rank",
    "port",
}


def only(plan: dict[str, Any], host: str) -> dict[str, Any]:
    (record,) = launches_on(plan, host)
    return record


def test_one_gpu() -> None:
    plan = fleets.plan([{"name": "llama-3.1-8b-instruct", "replicas": 1}], fleets.host("gpu1", 1))
    (instance,) = plan["instances"]
    record = only(plan, "gpu1")
    assert record == {
        "id": "llama-3.1-8b-instruct-1",
        "model": "llama-3.1-8b-instruct",
        "task": "generate",
        "runtime": "systemd",
        "unit": "vllm@llama-3.1-8b-instruct-1.service",
        "endpoint": {"host": "gpu1", "address": "10.0.0.1", "port": 8000},
        "node": {
            "host": "gpu1",
            "address": "10.0.0.1",
            "rank": 0,
            "role": "head",
            "gpus": [{"index": 0, "uuid": "GPU-gpu1-0"}],
        },
        "engine_args": {**instance["engine_args"], "host": "10.0.0.1", "port": 8000},
        "env": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0"},
    }


def test_several_gpus_of_one_host_are_driven_by_processes() -> None:
    plan = fleets.plan([WIDE], fleets.host("gpu1", 4))
    assert plan["instances"][0]["executor"] is None, "that is how hosts work together"
    record = only(plan, "gpu1")
    assert record["engine_args"]["distributed-executor-backend"] == "mp"
    assert not {"nnodes", "master-addr"} & record["engine_args"].keys()
    assert "VLLM_HOST_IP" not in record["env"]
    assert record["env"]["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"


def test_the_nodes_of_an_instance_over_hosts() -> None:
    plan = fleets.plan([WIDE], fleets.host("gpu1", 2), fleets.host("gpu2", 2))
    (instance,) = plan["instances"]
    shared = {
        **{name: value for name, value in instance["engine_args"].items() if name != "api-server-count"},
        "distributed-executor-backend": "mp",
        "nnodes": 2,
        "master-addr": "10.0.0.1",
        "master-port": 29501,
    }
    head, worker = only(plan, "gpu1"), only(plan, "gpu2")
    own = {"host": "10.0.0.1", "port": 8000, "node-rank": 0, "api-server-count": 2}
    assert head["engine_args"] == shared | own, "only the head has an API server"
    assert worker["engine_args"] == shared | {"headless": True, "node-rank": 1}
    variables = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,1", "NCCL_DEBUG": "INFO"}
    assert head["env"] == variables | {"VLLM_HOST_IP": "10.0.0.1"}
    assert worker["env"] == variables | {"VLLM_HOST_IP": "10.0.0.2"}


@pytest.mark.parametrize("model", [WIDE, {"name": "deepseek-v3"}, {"name": "llama-3.3-70b-instruct"}])
def test_a_plan_says_nothing_of_launching(model: dict[str, Any]) -> None:
    plan = fleets.plan([dict(model)], fleets.host("gpu1"), fleets.host("gpu2"))
    for instance in plan["instances"]:
        assert not LAUNCH_ONLY & instance["engine_args"].keys()
        assert not {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "VLLM_HOST_IP"} & instance["env"].keys()
