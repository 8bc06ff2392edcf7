"""Filters that read the fleet plan for the roles: what a host starts, what NGINX balances, what Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.launch import launches_on

FleetPlan = Mapping[str, Any]


def backends(plan: FleetPlan) -> list[dict[str, Any]]:
    """The models by name, each with the servers that answer for it."""
    servers: dict[str, list[dict[str, Any]]] = {}
    for instance in sorted(plan["instances"], key=lambda instance: str(instance["id"])):
        endpoint = instance["endpoint"]
        server = {"id": instance["id"], "address": endpoint["address"], "port": endpoint["port"]}
        servers.setdefault(instance["model"], []).append(server)
    return [{"name": model, "servers": servers[model]} for model in sorted(servers)]


def scrape_targets(plan: FleetPlan) -> list[dict[str, Any]]:
    """Prometheus file_sd groups, one an instance."""
    return [
        {
            "targets": [f"{server['address']}:{server['port']}"],
            "labels": {"model": model["name"], "instance_id": server["id"]},
        }
        for model in backends(plan)
        for server in model["servers"]
    ]


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filters by name."""
        return {"backends": backends, "launches_on": launches_on, "scrape_targets": scrape_targets}
