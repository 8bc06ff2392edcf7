"""What is wanted of a host, for the doctor to judge it by; private to the collection."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.machine import Disk, Port, Wanted
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_files import sources
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_store import place_of
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.ports import BASE_PORT
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.requirements import REQUIREMENTS, requirements_of
from ansible_collections.gpuhosts.vllm.plugins.module_utils._units import GIB

from .hosts import DEFAULTS, address, setting

__all__ = ["wanted"]

NGINX_STATUS = "127.0.0.1:8080"  # a test holds it against the role
SHM_GIB = 2.0  # NCCL, and 160 MiB of vLLM's own for every engine; vLLM's Kubernetes guide gives 2 GiB
OTHERS_GIB = 2.0


def wanted(
    name: str, variables: Mapping[str, Any], plan: Mapping[str, Any], model_facts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the inventory wants of a host with these variables, as the module host_info takes it.

    With a plan (empty: there is none) that is what the plan puts on the host; without one it is what the models that
    may run there need at least: the ports that stand in vllm_models, and room for the largest model.
    """
    settings = {key: setting(key, variables) for key in DEFAULTS}
    groups = variables["group_names"]
    gpu_host = "gpu_hosts" in groups
    own = address(name, variables)
    instances = [part for part in plan.get("instances", ()) if any(node["host"] == name for node in part["nodes"])]
    wishes = [model for model in variables.get("vllm_models", []) if isinstance(model, Mapping)] if gpu_host else []
    if plan:
        models = [model for model in wishes if model.get("name") in {part["model"] for part in instances}]
        numbers = {part["endpoint"]["port"] for part in instances if part["endpoint"]["host"] == name}
        nodes = [node for part in instances for node in part["nodes"] if node["host"] == name]
        spans = any(len(node["gpus"]) > 1 for node in nodes)
    else:
        models = [model for model in wishes if _may_run_on(model, {name, *groups})]
        numbers = {int(model.get("port") or BASE_PORT) for model in models}
        spans = any(map(_may_span, models))
    sizes = {model: facts.get("safetensors_bytes") for model, facts in model_facts.items()}
    disks = [Disk("/var", OTHERS_GIB, "packages, logs and metrics")]
    disks += _model_disks(models, sizes, settings, largest=not plan)
    if gpu_host:
        root = settings["vllm_root"]
        release = requirements_of(settings["vllm_version"]) or REQUIREMENTS[-1]
        disks.append(Disk(root, release.disk_gib, f"vLLM {settings['vllm_version']}", done=f"{root}/current"))
    return Wanted(
        gpu_host=gpu_host,
        several_gpus=spans,
        shm_gib=SHM_GIB if spans else 0.0,
        vllm_version=settings["vllm_version"],
        vllm_python=settings["vllm_python"],
        ports=(*_service_ports(groups, settings, own), *(_engine_port(number, own) for number in sorted(numbers))),
        disks=tuple(disks),
    ).to_dict()


def _may_run_on(model: Mapping[str, Any], names: set[str]) -> bool:
    """Whether ``hosts`` of a model names a host, or a group that it is in."""
    hosts = model.get("hosts") or "auto"
    return hosts == "auto" or bool(names.intersection([hosts] if isinstance(hosts, str) else hosts))


def _may_span(model: Mapping[str, Any]) -> bool:
    """Whether an instance of a model may take several GPUs."""
    asked = model.get("parallelism")
    return not isinstance(asked, Mapping) or int(asked.get("tensor", 1)) * int(asked.get("pipeline", 1)) > 1


def _engine_port(number: int, own: str) -> Port:
    return Port(number, (r"vllm@.+\.service",), "vLLM", own)


def _service_ports(groups: Sequence[str], settings: Mapping[str, Any], own: str) -> Iterator[Port]:
    observed = settings["fleet_observe"]
    if "exporters" in observed:
        yield Port(int(settings["exporters_node_port"]), ("prometheus-node-exporter.service",), "node_exporter", own)
    if "exporters" in observed and "gpu_hosts" in groups and settings["exporters_gpu_source"] == "dcgm":
        yield Port(int(settings["exporters_dcgm_port"]), ("nvidia-dcgm-exporter.service",), "dcgm-exporter", own)
    if "load_balancers" in groups:
        tls = settings["nginx_lb_tls_listen"] if settings["nginx_lb_tls"] != "none" else []
        for listen in [*settings["nginx_lb_listen"], *tls, NGINX_STATUS]:
            place = str(listen).split()[0]
            if not place.startswith("unix:"):
                yield _port(place, "nginx.service", "NGINX", 80)
    if "monitoring" in groups and "alertmanager" in observed and not settings["fleet_alertmanager_url"]:
        yield _port(settings["alertmanager_listen_address"], "alertmanager.service", "Alertmanager", 9093)
    if "monitoring" in groups and "prometheus" in observed:
        yield _port(settings["prometheus_listen_address"], "prometheus.service", "Prometheus", 9090)


def _port(place: str, unit: str, purpose: str, default: int) -> Port:
    """The port in ``80``, ``10.0.0.2``, ``10.0.0.2:80`` or ``[::]:80``."""
    host, _, number = place.rpartition(":")
    if not number.isdecimal():
        host, number = place, str(default)
    host = host.strip("[]")
    return Port(int(number), (unit,), purpose, None if re.fullmatch(r"[0.:*]*", host) else host)


def _model_disks(
    models: Sequence[Mapping[str, Any]],
    sizes: Mapping[str, int | None],
    settings: Mapping[str, Any],
    *,
    largest: bool,
) -> list[Disk]:
    """Room for the models of the hub, in the store or in the cache of the engines; a directory is there already."""
    disks = []
    for model in sources(models, "hub"):
        size = sizes.get(model["name"])
        if settings["model_store_dir"]:
            path = settings["model_store_dir"]
            parts = f"{path}/{place_of(model['source'], model.get('revision'))}"
        else:
            path = f"{settings['vllm_state_dir']}/huggingface/hub"
            parts = f"{path}/models--{model['source'].replace('/', '--')}/blobs"
        gib = None if size is None else size / GIB
        disks.append(Disk(path=path, gib=gib, purpose=f"model {model['name']}", parts=parts))
    if largest and all(disk.gib is not None for disk in disks):
        return sorted(disks, key=lambda disk: disk.gib or 0.0)[-1:]
    return disks
