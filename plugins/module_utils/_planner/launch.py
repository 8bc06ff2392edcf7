"""Turns the intent of a fleet plan into what each node of an instance really starts; pure, private to the collection.

The plan says which GPUs of which hosts serve a model and what is true of the engine wherever it runs. This module adds
what follows from runtime and executor: devices, addresses, ranks, who has the API server. It is the only place that
knows these, so that another runtime or executor is another branch here and nothing else.

GPUs are handed to CUDA by index, in PCI bus order, as NVML counted them when the plan was made. CUDA and vLLM would
take uuids too, but vLLM puts the variable into the name of a file (``gpu_p2p_access_cache_for_...``, in
distributed/device_communicators/all_reduce_utils.py): six uuids are longer than the 255 bytes that it may have. A card
that is not the planned one any more is known by the uuids of ``node.gpus``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._engine.adapters import has_adapters
from .._wishes.tracing import ENDPOINT
from .ports import KEEPER, RAY, RAY_HEAD_ONLY, RAY_METRICS, RAY_WORKERS, block
from .stored import from_store

__all__ = ["launch", "launches_on"]

HEAD_ONLY = ("api-server-count",)  # options of the API server that vLLM refuses where there is none (cli/serve.py)
# That the nodes of an instance wait for each other: the default of vllm_start_timeout. Who raises that raises
# distributed_timeout_seconds in extra_args as well.
START_SECONDS = 1800
OBJECT_STORE = 1 << 29  # bytes; Ray would take a third of the memory, and vLLM's own queues carry what is large
# vLLM hands VLLM_ and NCCL_ to Ray's workers by itself (ray/ray_env.py); these are read there as well.
FOR_RAY_WORKERS = ("CUDA_DEVICE_ORDER", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")


def launches_on(plan: Mapping[str, Any], host: str, store: str = "") -> list[dict[str, Any]]:
    """What a host starts, by the id of the instance; see :func:`launch`.

    :param store: the directory in which models of the hub lie on every host; "": engines download them for themselves
    """
    instances = [from_store(instance, store) for instance in plan["instances"]]
    here = [launch(instance, node) for instance in instances for node in instance["nodes"] if node["host"] == host]
    return sorted(here, key=lambda record: str(record["id"]))


def launch(instance: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """What the process of a node of an instance is started with.

    ``engine_args`` (what vLLM reads with ``--config``) and ``env`` are whole: those of the instance, and over these
    what only this node is told. ``unit`` is the name of the service, ``adapters`` are read by every node.
    ``peers`` are the addresses of the other nodes, ``peer_ports`` what these have to reach here, ``keeper`` what holds
    the nodes together, ``ray`` the options of ``ray start`` (None: Ray is not used), ``container`` the uuids of its
    ``devices`` (only with runtime docker).
    """
    nodes = instance["nodes"]
    spans = len(nodes) > 1
    head = nodes[0]["address"]
    keeper = {"port": _port(instance, KEEPER), "head": head} if spans else {"port": 0, "head": head}
    return {
        **{key: instance[key] for key in ("id", "model", "task", "runtime", "executor", "endpoint", "rendezvous_port")},
        "unit": f"vllm@{instance['id']}.service",
        "node": dict(node),
        "peers": [other["address"] for other in nodes if other["rank"] != node["rank"]],
        "peer_ports": _peer_ports(instance) if spans else None,
        "keeper": {**keeper, "rank": node["rank"], "nodes": len(nodes)},
        "ray": _ray_start(instance, node) if instance["executor"] == "ray" else None,
        **_container(instance, node),
        "engine_args": {**_defaults(instance), **_shared(instance, node), **_own(instance, node)},
        "adapters": list(instance.get("adapters", ())),
        "env": {**instance["env"], **_environment(instance, node)},
    }


def _port(instance: Mapping[str, Any], offset: int) -> int:
    return int(instance["rendezvous_port"]) + offset


def _peer_ports(instance: Mapping[str, Any]) -> list[int]:
    """The first and the last port of the block of an instance."""
    ports = block(instance["rendezvous_port"])
    return [ports[0], ports[-1]]


def _by_mp(instance: Mapping[str, Any]) -> bool:
    return len(instance["nodes"]) > 1 and instance["executor"] == "mp"


def _defaults(instance: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that hold unless the inventory says otherwise."""
    if len(instance["nodes"]) == 1:
        return {}
    # The nodes load for as long as they may: the default of ten minutes would end those that are ready first.
    return {"distributed-timeout-seconds": START_SECONDS, "cpu-distributed-timeout-seconds": START_SECONDS}


def _shared(instance: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the instance that this node may have."""
    arguments: dict[str, Any] = dict(instance["engine_args"])
    return {name: value for name, value in arguments.items() if node["role"] == "head" or name not in HEAD_ONLY}


def _own(instance: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that follow from where the node is and how its processes are driven."""
    nodes, endpoint = instance["nodes"], instance["endpoint"]
    head = node["role"] == "head"
    arguments: dict[str, Any] = {"host": endpoint["address"], "port": endpoint["port"]} if head else {}
    if sum(len(part["gpus"]) for part in nodes) > 1:
        arguments["distributed-executor-backend"] = instance["executor"] or "mp"
    if _by_mp(instance):
        arguments["nnodes"] = len(nodes)
        arguments["node-rank"] = node["rank"]
        arguments["master-addr"] = nodes[0]["address"]
        arguments["master-port"] = instance["rendezvous_port"]
        if not head:
            arguments["headless"] = True
    return arguments


def _container(instance: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """What a container needs to know of its host."""
    if instance["runtime"] != "docker":
        return {}
    return {"container": {"devices": [gpu["uuid"] for gpu in node["gpus"]]}}


def _environment(instance: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, str]:
    """The variables that follow from the node's GPUs and address."""
    variables = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # the order in which NVML counted
    if instance["runtime"] != "docker":  # a container has no other GPUs than its own, and counts them from 0
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu["index"]) for gpu in node["gpus"])
    if len(instance["nodes"]) > 1:
        variables["VLLM_HOST_IP"] = node["address"]
    if has_adapters(instance["engine_args"]):
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"  # so that adapters come and go without a restart
    if ENDPOINT in instance["engine_args"]:
        named = instance["env"].get("OTEL_RESOURCE_ATTRIBUTES", "")
        variables["OTEL_RESOURCE_ATTRIBUTES"] = ",".join(filter(None, (named, f"service.instance.id={instance['id']}")))
    if instance["executor"] == "ray":
        named = instance["env"].get("VLLM_RAY_EXTRA_ENV_VARS_TO_COPY", "").split(",")
        variables["VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"] = ",".join(sorted({*FOR_RAY_WORKERS, *filter(None, named)}))
        variables["RAY_ADDRESS"] = f"{instance['nodes'][0]['address']}:{_port(instance, RAY['port'])}"
        variables["RAY_USAGE_STATS_ENABLED"] = "0"
        # How often Ray asks for its head, a second or two between: as long as the nodes wait for each other.
        variables["RAY_NUM_REDIS_GET_RETRIES"] = str(START_SECONDS)
        variables["RAY_AUTH_MODE"] = "token"  # RAY_AUTH_TOKEN is among the secrets
        variables["AUTOSCALER_METRIC_PORT"] = str(_port(instance, RAY_METRICS))
    return variables


def _ray_start(instance: Mapping[str, Any], node: Mapping[str, Any]) -> list[str]:
    """The options of ``ray start`` on a node: every port is one of the instance's own block."""
    head = node["role"] == "head"
    address = f"{instance['nodes'][0]['address']}:{_port(instance, RAY['port'])}"
    first, last = (_port(instance, offset) for offset in RAY_WORKERS)
    pinned = {name: offset for name, offset in RAY.items() if head or name not in RAY_HEAD_ONLY}
    return [
        *(["--head", "--include-dashboard=false"] if head else [f"--address={address}"]),
        f"--node-ip-address={node['address']}",
        *(f"--{name}={_port(instance, offset)}" for name, offset in pinned.items()),
        f"--min-worker-port={first}",
        f"--max-worker-port={last}",
        f"--num-gpus={len(node['gpus'])}",
        f"--num-cpus={len(node['gpus'])}",  # Ray keeps a process ready for each; vLLM asks for none
        f"--object-store-memory={OBJECT_STORE}",
        "--disable-usage-stats",
        "--block",
    ]
