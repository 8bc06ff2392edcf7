"""Filters with which the playbooks read other hosts: their addresses and their facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import addresses_of
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils import hosts, reachable

HostVars = Mapping[str, Mapping[str, Any]]


def address(name: str, hostvars: HostVars) -> str:
    """The address by which the other hosts reach a host: ``fleet_address``, else what Ansible itself uses."""
    return hosts.address(name, hostvars[name])


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
                "gpu_facts": facts["gpu_facts"],
                "model_facts": facts.get("model_facts", {}),
                "instances": placed.get("instances", []),
            }
        )
    return records


def reach_mistakes(names: Iterable[str], hostvars: HostVars) -> list[str]:
    """What the inventory says of addresses and firewalls that no host could act upon, a sentence or two each."""
    return reachable.mistakes(names, hostvars, addresses_of)


def host_targets(names: Iterable[str], hostvars: HostVars, port: int | None = None) -> list[dict[str, Any]]:
    """Prometheus file_sd groups, one a host, for what listens on ``port`` of its address, or for node_exporter."""
    ports = {name: port or hosts.setting("exporters_node_port", hostvars[name]) for name in names}
    return [
        {"targets": [f"{address(name, hostvars)}:{ports[name]}"], "labels": {"host": name}} for name in sorted(ports)
    ]


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filters by name."""
        return {
            "address": address,
            "fleet_hosts": fleet_hosts,
            "host_targets": host_targets,
            "reach_mistakes": reach_mistakes,
        }
