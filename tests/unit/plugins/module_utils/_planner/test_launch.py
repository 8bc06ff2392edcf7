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


def test_adapters_are_read_by_every_node_and_loaded_while_it_runs() -> None:
    sql = {"name": "sql", "source": "/srv/adapters/sql"}
    extra_args = {"enable-lora": True}
    plan = fleets.plan([WIDE | {"extra_args": extra_args, "lora": [sql]}], *(fleets.host(f"gpu{n}", 2) for n in (1, 2)))
    head, worker = (only(plan, name) for name in ("gpu1", "gpu2"))
    assert (head["adapters"], worker["adapters"]) == ([sql | {"revision": None}],) * 2
    assert {record["env"]["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] for record in (head, worker)} == {"1"}


def test_one_gpu() -> None:
    plan = fleets.plan([{"name": "llama-3.1-8b-instruct", "replicas": 1}], fleets.host("gpu1", 1))
    (instance,) = plan["instances"]
    record = only(plan, "gpu1")
    assert record == {
        "id": "llama-3.1-8b-instruct-1",
        "model": "llama-3.1-8b-instruct",
        "task": "generate",
        "runtime": "systemd",
        "executor": None,
        "rendezvous_port": None,
        "peers": [],
        "peer_ports": None,
        "keeper": {"port": 0, "head": "10.0.0.1", "rank": 0, "nodes": 1},
        "ray": None,
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
        "adapters": [],
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
        "distributed-timeout-seconds": 1800,
        "cpu-distributed-timeout-seconds": 1800,
        "master-addr": "10.0.0.1",
        "master-port": 29501,
    }
    head, worker = only(plan, "gpu1"), only(plan, "gpu2")
    own = {"host": "10.0.0.1", "port": 8000, "node-rank": 0, "api-server-count": 2}
    assert head["engine_args"] == shared | own, "only the head has an API server"
    assert worker["engine_args"] == shared | {"headless": True, "node-rank": 1}
    variables = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "NCCL_DEBUG": "INFO",
    }
    assert head["env"] == variables | {"VLLM_HOST_IP": "10.0.0.1"}
    assert worker["env"] == variables | {"VLLM_HOST_IP": "10.0.0.2"}
    assert (head["executor"], head["ray"]) == ("mp", None)
    assert (head["peers"], worker["peers"]) == (["10.0.0.2"], ["10.0.0.1"])
    assert head["peer_ports"] == worker["peer_ports"] == [29500, 29599]
    assert head["keeper"] == {"port": 29500, "head": "10.0.0.1", "rank": 0, "nodes": 2}
    assert worker["keeper"] == {"port": 29500, "head": "10.0.0.1", "rank": 1, "nodes": 2}


def test_the_nodes_talk_over_their_cluster_addresses() -> None:
    """The front door has another way to the head than the other nodes."""
    hosts = [{**fleets.host(f"gpu{n}", 2), "cluster_address": f"192.168.9.{n}"} for n in (1, 2)]
    plan = fleets.plan([WIDE], *hosts)
    head, worker = only(plan, "gpu1"), only(plan, "gpu2")
    assert head["endpoint"]["address"] == head["engine_args"]["host"] == "10.0.0.1"
    assert worker["engine_args"]["master-addr"] == worker["keeper"]["head"] == worker["peers"][0] == "192.168.9.1"
    assert (head["env"]["VLLM_HOST_IP"], worker["env"]["VLLM_HOST_IP"]) == ("192.168.9.1", "192.168.9.2")


def test_what_the_inventory_says_wins_over_the_time_limits() -> None:
    model = WIDE | {
        "env": {"VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "30"},
        "extra_args": {"distributed_timeout_seconds": 60},
    }
    record = only(fleets.plan([model], fleets.host("gpu1", 2), fleets.host("gpu2", 2)), "gpu1")
    assert record["env"]["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"] == "30"
    assert record["engine_args"]["distributed-timeout-seconds"] == 60


def test_with_ray_its_options_say_who_takes_part() -> None:
    model = WIDE | {"executor": "ray", "env": {"VLLM_RAY_EXTRA_ENV_VARS_TO_COPY": "MY_VARIABLE"}}
    plan = fleets.plan([model], fleets.host("gpu1", 2), fleets.host("gpu2", 2))
    head, worker = only(plan, "gpu1"), only(plan, "gpu2")
    for record in (head, worker):
        assert record["engine_args"]["distributed-executor-backend"] == "ray"
        assert not {"nnodes", "node-rank", "master-addr", "headless"} & record["engine_args"].keys()
        assert record["env"]["RAY_ADDRESS"] == "10.0.0.1:29502"
        assert record["env"]["RAY_AUTH_MODE"] == "token"
        assert record["env"]["RAY_NUM_REDIS_GET_RETRIES"] == "1800"  # else a worker gives up a slow head after 40 s
        assert record["env"]["AUTOSCALER_METRIC_PORT"] == "29511"
        copied = record["env"]["VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"].split(",")
        assert copied == ["CUDA_DEVICE_ORDER", "GLOO_SOCKET_IFNAME", "MY_VARIABLE", "TP_SOCKET_IFNAME"]
        assert {"--num-gpus=2", "--disable-usage-stats", "--block"} <= set(record["ray"])
    assert {"--head", "--include-dashboard=false", "--port=29502", "--node-ip-address=10.0.0.1"} <= set(head["ray"])
    assert {"--address=10.0.0.1:29502", "--node-ip-address=10.0.0.2"} <= set(worker["ray"])
    assert not any(word.startswith(("--head", "--port", "--ray-client")) for word in worker["ray"])


def test_every_port_of_ray_is_in_the_block() -> None:
    plan = fleets.plan([WIDE | {"executor": "ray"}], fleets.host("gpu1", 2), fleets.host("gpu2", 2))
    for host in ("gpu1", "gpu2"):
        record = only(plan, host)
        first, last = record["peer_ports"]
        ports = [int(word.split("=")[1]) for word in record["ray"] if "-port=" in word or word.startswith("--port=")]
        assert len(ports) == len(set(ports))
        assert all(first <= port <= last for port in ports)
        assert not {first, record["rendezvous_port"]} & set(ports), "the keeper's, and mp's"


def test_a_container_is_told_its_gpus_by_uuid_and_counts_them_itself() -> None:
    plan = fleets.plan([WIDE | {"runtime": "docker"}], fleets.host("gpu1", 2), fleets.host("gpu2", 2))
    for host, record in ((host, only(plan, host)) for host in ("gpu1", "gpu2")):
        assert record["container"] == {"devices": [f"GPU-{host}-0", f"GPU-{host}-1"]}
        assert record["env"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert "CUDA_VISIBLE_DEVICES" not in record["env"]


@pytest.mark.parametrize("model", [WIDE, {"name": "deepseek-v3"}, {"name": "llama-3.3-70b-instruct"}])
def test_a_plan_says_nothing_of_launching(model: dict[str, Any]) -> None:
    plan = fleets.plan([dict(model)], fleets.host("gpu1"), fleets.host("gpu2"))
    for instance in plan["instances"]:
        assert not LAUNCH_ONLY & instance["engine_args"].keys()
        assert not {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "VLLM_HOST_IP"} & instance["env"].keys()
