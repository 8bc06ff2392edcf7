"""Filters for work on hosts that serve: what runs there, whom that leaves without a server, what becomes of GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.gpu import Gpu
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.health import (
    FABRIC_INCOMPLETE,
    GPU_LOST,
    findings,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.rollout import rollout_waves

from .hosts import HostVars, address

NO_CUDA = (GPU_LOST, FABRIC_INCOMPLETE)  # no engine starts on such a GPU
SAME_MEMORY_GIB = 0.5  # between two versions of the driver its own reserve differs by less


def running_instances(names: Iterable[str], hostvars: HostVars) -> list[dict[str, Any]]:
    """The instances that the hosts' local facts tell of, whatever the inventory wishes by now.

    :returns: by id, each with ``id``, ``model``, ``host_names`` and ``endpoint`` (``host``, ``address`` and ``port``).
    """
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(names):
        placed = hostvars[name].get("ansible_facts", {}).get("ansible_local", {}).get("gpuhosts_vllm", {})
        for entry in placed.get("instances", []):
            instance = found.setdefault(entry["id"], {"id": entry["id"], "model": entry["model"], "host_names": []})
            instance["host_names"].append(name)
            if entry.get("rank", 0) == 0:
                instance["endpoint"] = {"host": name, "address": address(name, hostvars), "port": entry["port"]}
    return [found[name] for name in sorted(found)]


def server(endpoint: Mapping[str, Any]) -> str:
    """``ADDRESS:PORT`` of an endpoint, as front doors name their servers."""
    return f"{endpoint['address']}:{endpoint['port']}"


def left_without_server(instances: Sequence[Mapping[str, Any]], without: Iterable[str]) -> list[str]:
    """Models of which no instance is left when these hosts are away."""
    away = set(without)
    models = {instance["model"] for instance in instances}
    return sorted(
        models - {instance["model"] for instance in instances if not away.intersection(instance["host_names"])}
    )


def spanning_instances(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The planned instances that have nodes on several hosts, each with ``id``, ``model`` and ``host_names``."""
    return [
        {
            "id": instance["id"],
            "model": instance["model"],
            "host_names": [node["host"] for node in instance["nodes"]],
        }
        for instance in plan["instances"]
        if len(instance["nodes"]) > 1
    ]


def bound_to(names: Iterable[str], instances: Sequence[Mapping[str, Any]]) -> list[str]:
    """These hosts, and those that share an instance with one of them, or with one that does."""
    found = set(names)
    while True:
        more = {
            host
            for instance in instances
            if found.intersection(instance["host_names"])
            for host in instance["host_names"]
        }
        if more <= found:
            return sorted(found)
        found |= more


def cut_by(instances: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[dict[str, Any]]:
    """The instances of which only a part is on these hosts, each with ``id``, and ``outside``, its other hosts."""
    inside = set(names)
    found: dict[str, set[str]] = {}
    for instance in instances:
        found.setdefault(instance["id"], set()).update(instance["host_names"])
    return [
        {"id": name, "outside": sorted(hosts - inside)}
        for name, hosts in sorted(found.items())
        if hosts & inside and hosts - inside
    ]


def gpu_differences(gpus: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the GPUs of a host differ from what they were, one line each; both as in the fact ``gpu_facts``."""
    return list(_differences(gpus, before))


def _differences(gpus: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for gpu in gpus:
        for finding in findings(Gpu.from_dict(gpu)):
            if finding.code in NO_CUDA:
                yield f"GPU {gpu['index']}: {finding.state}"
    now = {gpu["uuid"]: gpu for gpu in gpus}
    for gpu in before:
        same = now.get(gpu["uuid"])
        if same is None:
            yield f"GPU {gpu['index']} ({gpu['name']}, {gpu['uuid']}) is not there any more"
        elif abs((same["total_gib"] or 0) - (gpu["total_gib"] or 0)) > SAME_MEMORY_GIB:
            yield f"GPU {gpu['index']} has {same['total_gib']} GiB; it had {gpu['total_gib']}"


def gpus_to_remember(gpu_facts: Mapping[str, Any], remembered: Any) -> dict[str, Any]:
    """What to keep of the GPUs of a host for the next time: those of now, unless there were more of them before.

    ``remembered`` is what this returned then; anything else (no fact, a damaged one) is as good as nothing. So a GPU
    that goes missing stays missing in every report, until somebody removes the record and thereby says that it is gone
    for good.
    """
    now = [
        {key: gpu[key] for key in ("index", "uuid", "name", "total_gib")} for gpu in gpu_facts["gpus"] if gpu["uuid"]
    ]
    before = list(remembered.get("gpus", ())) if isinstance(remembered, Mapping) else []
    return {"version": 1, "gpus": now if len(now) >= len(before) else before}


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filters by name."""
        return {
            "bound_to": bound_to,
            "cut_by": cut_by,
            "gpu_differences": gpu_differences,
            "gpus_to_remember": gpus_to_remember,
            "left_without_server": left_without_server,
            "running_instances": running_instances,
            "server": server,
            "spanning_instances": spanning_instances,
            "waves": rollout_waves,
        }
