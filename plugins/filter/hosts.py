"""Filters with which the playbooks read other hosts: their addresses and their facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import addresses_of
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils import (
    containers,
    front_addresses,
    hosts,
    nodes,
    reachable,
    stores,
)

HostVars = Mapping[str, Mapping[str, Any]]


def address(name: str, hostvars: HostVars) -> str:
    """The address by which the other hosts reach a host: ``fleet_address``, else what Ansible itself uses."""
    return hosts.address(name, hostvars[name])


def setting(name: str, hostvars: HostVars, variable: str) -> Any:
    """The value of a role's variable on a host, as plays know it that do not run the role: its default included."""
    return hosts.setting(variable, hostvars[name])


def fleet_hosts(names: Iterable[str], hostvars: HostVars) -> list[dict[str, Any]]:
    """The hosts as fleet_plan wants them: address, GPUs, what was read of models, and what runs there.

    :raises AnsibleFilterError: GPU facts of a host are missing; a plan without it would move its instances.
    """
    records = []
    for name in sorted(names):
        facts = hostvars[name].get("ansible_facts", {})
        if "gpu_facts" not in facts:
            raise AnsibleFilterError(
                f"No GPU facts of {name}: every host of gpu_hosts must be reachable and within --limit, because a plan "
                f"without it would move its instances to other hosts. Bring {name} back, or take it out of gpu_hosts."
            )
        placed = facts.get("ansible_local", {}).get("gpuhosts_vllm", {})
        if not isinstance(placed, Mapping):  # Ansible's own words on a fact file that it cannot read
            raise AnsibleFilterError(f"{name}: {placed}. Remove that file; the role vllm writes it anew.")
        records.append(
            {
                "name": name,
                "address": address(name, hostvars),
                "cluster_address": hostvars[name].get("fleet_cluster_address") or "",
                "gpu_facts": facts["gpu_facts"],
                "model_facts": facts.get("model_facts", {}),
                "instances": placed.get("instances", []),
            }
        )
    return records


def reach_mistakes(names: Iterable[str], hostvars: HostVars) -> list[str]:
    """What the inventory says of addresses and firewalls that no host could act upon, a sentence or two each."""
    return reachable.mistakes(names, hostvars, addresses_of)


def front_address_balancers(names: Iterable[str], hostvars: HostVars, host: str) -> list[str]:
    """The addresses of those load balancers that share the floating address of a host."""
    return front_addresses.balancers(names, hostvars, host)


def front_address_mistakes(names: Iterable[str], hostvars: HostVars) -> list[str]:
    """What the inventory says of floating addresses that no host could carry out, a sentence or two each."""
    return front_addresses.mistakes(names, hostvars)


def has_containers(name: str, hostvars: HostVars) -> bool:
    """Whether a host gets Docker and NVIDIA's toolkit: ``hardware_containers``, else where a model may need them."""
    return containers.has_containers(name, hostvars[name])


def container_mistakes(names: Iterable[str], hostvars: HostVars) -> list[str]:
    """What keeps models with ``runtime: docker`` from running, a sentence or two each."""
    return containers.mistakes(names, hostvars)


def store_mistakes(names: Iterable[str], hostvars: HostVars) -> list[str]:
    """What keeps models from coming to the hosts, as far as variables tell, a sentence or two each."""
    return stores.mistakes(list(names), hostvars)


def host_targets(
    names: Iterable[str], hostvars: HostVars, setting: str = "exporters_node_port"
) -> list[dict[str, Any]]:
    """Prometheus file_sd groups, one a host, for what listens on the port that a variable of the host says."""
    ports = {name: hosts.setting(setting, hostvars[name]) for name in names}
    return [
        {"targets": [f"{address(name, hostvars)}:{ports[name]}"], "labels": {"host": name}} for name in sorted(ports)
    ]


def reports_beside(inventory_dir: str, sources: Iterable[str]) -> str:
    """Where reports of an inventory are kept: beside what ``-i`` names.

    A directory named there is read whole as inventory, so they are never below it.
    """
    own = Path(inventory_dir)
    read_whole = [Path(source) for source in sources if Path(source) in (own, *own.parents)]
    if not read_whole:
        return str(own / "reports")
    outermost = min(read_whole, key=lambda path: len(path.parts))
    return str(outermost.parent / "reports" / outermost.name)


def node_mistakes(plan: Mapping[str, Any], hostvars: HostVars) -> list[str]:
    """What keeps the nodes of planned instances from working together, a sentence or two each."""
    return nodes.mistakes(plan, hostvars)


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filters by name."""
        return {
            "address": address,
            "container_mistakes": container_mistakes,
            "fleet_hosts": fleet_hosts,
            "front_address_balancers": front_address_balancers,
            "front_address_mistakes": front_address_mistakes,
            "has_containers": has_containers,
            "host_targets": host_targets,
            "node_mistakes": node_mistakes,
            "reach_mistakes": reach_mistakes,
            "reports_beside": reports_beside,
            "setting": setting,
            "store_mistakes": store_mistakes,
        }
