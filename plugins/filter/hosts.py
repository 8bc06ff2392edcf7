"""Filters with which the playbooks read other hosts: their addresses and their facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

HostVars = Mapping[str, Mapping[str, Any]]


def address(name: str, hostvars: HostVars) -> str:
    """The address by which the other hosts reach a host: ``fleet_address``, else what Ansible itself uses."""
    variables = hostvars[name]
    return str(variables.get("fleet_address") or variables.get("ansible_host") or name)


def fleet_hosts(names: Iterable[str], hostvars: HostVars) -> list[dict[str, Any]]:
    """The hosts as fleet_plan wants them: address, GPU facts, and what already runs there.

    :raises AnsibleFilterError: GPU facts of a host are missing; a plan without it would move its instances.
    """
    hosts = []
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
        hosts.append(
            {
                "name": name,
                "address": address(name, hostvars),
                "gpu_facts": facts["gpu_facts"],
                "instances": placed.get("instances", []),
            }
        )
    return hosts


def host_targets(names: Iterable[str], hostvars: HostVars, port: int) -> list[dict[str, Any]]:
    """Prometheus file_sd groups, one a host, for an exporter that listens on ``port`` of every host's address."""
    return [{"targets": [f"{address(name, hostvars)}:{port}"], "labels": {"host": name}} for name in sorted(names)]


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filters by name."""
        return {
            "address": address,
            "fleet_hosts": fleet_hosts,
            "host_targets": host_targets,
        }
