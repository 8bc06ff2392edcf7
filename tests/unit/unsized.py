"""Models of which nothing is known and hosts for them: how the planner places, numbers and refuses without sizes."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.gpu import Gpu, GpuHost
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.hosts import Host, Running
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.plan import plan_fleet
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import read_wishes

# Nothing is known of it, so its shape has to be stated.
TINY: dict[str, Any] = {
    "name": "tiny",
    "source": "/srv/models/tiny",
    "replicas": 1,
    "parallelism": {"tensor": 1},
}
# Takes more than one host where a host has two GPUs.
WIDE: dict[str, Any] = TINY | {"name": "wide", "parallelism": {"tensor": 2, "pipeline": 2}}


def host(name: str, gpus: int = 2, *running: Running, domains: int = 1, link: str = "nvlink", **gpu: Any) -> Host:
    """A host with so many GPUs, dealt out to so many domains; ``gpu`` changes the last one."""
    cards = [
        Gpu(index=index, uuid=f"GPU-{name}-{index}", total_gib=79.6, compute_capability="9.0") for index in range(gpus)
    ]
    if gpu:
        cards[-1] = Gpu(index=gpus - 1, **gpu)
    size = gpus // domains
    sets = tuple(tuple(range(start, start + size)) for start in range(0, gpus, size)) if gpus else ()
    reason = None if gpus else "no NVIDIA driver is installed"
    hardware = GpuHost(gpus=tuple(cards), domains=sets, link=link, reason=reason)
    return Host(name, f"10.0.0.{name[3:]}", hardware, running)


def plan(models: list[dict[str, Any]], *hosts: Host, base_port: int = 8000) -> dict[str, Any]:
    """A plan without the warnings that nothing is known of the models."""
    groups = {"all": [host.name for host in hosts]}
    made = plan_fleet(read_wishes(models, "0.33.0", groups)[0], hosts, base_port)
    made["warnings"] = [warning for warning in made["warnings"] if "it is not sized" not in warning]
    return made


def running_on(before: dict[str, Any], *hosts: Host) -> list[Host]:
    """The hosts as they are when a plan has been carried out."""
    return [
        Host(
            host.name,
            host.address,
            host.hardware,
            tuple(
                Running(
                    instance["id"],
                    instance["model"],
                    tuple(gpu["index"] for gpu in node["gpus"]),
                    instance["endpoint"]["port"],
                    node["rank"],
                    instance["rendezvous_port"],
                    instance["parallelism"]["tensor"],
                )
                for instance in before["instances"]
                for node in instance["nodes"]
                if node["host"] == host.name
            ),
        )
        for host in hosts
    ]


def where(made: dict[str, Any]) -> dict[str, str]:
    """Every instance as host/GPUs:port."""
    return {
        instance[
            "id"
        ]: f"{node['host']}/{','.join(str(gpu['index']) for gpu in node['gpus'])}:{instance['endpoint']['port']}"
        for instance in made["instances"]
        for node in instance["nodes"]
    }


def refusal(models: list[dict[str, Any]], *hosts: Host) -> PlacementError:
    """Why there is no plan for these."""
    with pytest.raises(PlacementError) as caught:
        plan(models, *hosts)
    return caught.value
