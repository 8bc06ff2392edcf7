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

__all__ = ["launch", "launches_on"]

HEAD_ONLY = ("api-server-count",)  # options of the API server that vLLM refuses where there is none (cli/serve.py)


def launches_on(plan: Mapping[str, Any], host: str) -> list[dict[str, Any]]:
    """What a host starts, by the id of the instance; see :func:`launch`."""
    here = [
        launch(instance, node) for instance in plan["instances"] for node in instance["nodes"] if node["host"] == host
    ]
    return sorted(here, key=lambda record: str(record["id"]))


def launch(instance: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """What the process of a node of an instance is started with.

    ``engine_args`` (what vLLM reads with ``--config``) and ``env`` are whole: those of the instance, and over these
    what only this node is told. ``unit`` is the name of the service.
    """
    return {
        **{key: instance[key] for key in ("id", "model", "task", "runtime", "endpoint")},
        "unit": f"vllm@{instance['id']}.service",
        "node": dict(node),
        "engine_args": {**_shared(instance, node), **_own(instance, node)},
        "env": {**instance["env"], **_environment(instance, node)},
    }


def _shared(instance: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the instance that this node may have."""
    arguments: dict[str, Any] = dict(instance["engine_args"])
    return {name: value for name, value in arguments.items() if node["role"] == "head" or name not in HEAD_ONLY}


def _own(instance: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that follow from where the node is and how its processes are driven."""
    nodes, endpoint = instance["nodes"], instance["endpoint"]
    head = node["role"] == "head"
    arguments: dict[str, Any] = {"host": endpoint["address"], "port": endpoint["port"]} if head else {"headless": True}
    if sum(len(part["gpus"]) for part in nodes) > 1:
        arguments["distributed-executor-backend"] = instance["executor"] or "mp"
    if len(nodes) > 1:
        arguments["nnodes"] = len(nodes)
        arguments["node-rank"] = node["rank"]
        arguments["master-addr"] = endpoint["address"]
        arguments["master-port"] = instance["rendezvous_port"]
    return arguments


def _environment(instance: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, str]:
    """The variables that follow from the node's GPUs and address."""
    variables = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order in which NVML counted
        "CUDA_VISIBLE_DEVICES": ",".join(str(gpu["index"]) for gpu in node["gpus"]),
    }
    if len(instance["nodes"]) > 1:
        variables["VLLM_HOST_IP"] = node["address"]
    return variables
