"""Filters that read the fleet plan for the roles: what a host starts, what NGINX balances, what Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.launch import launches_on
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.stored import stored_models

FleetPlan = Mapping[str, Any]


def backends(plan: FleetPlan) -> list[dict[str, Any]]:
    """The models by name, each with the servers that answer for it."""
    servers: dict[str, list[dict[str, Any]]] = {}
    adapters: dict[str, list[str]] = {}
    for instance in sorted(plan["instances"], key=lambda instance: str(instance["id"])):
        endpoint = instance["endpoint"]
        server = {"id": instance["id"], "address": endpoint["address"], "port": endpoint["port"]}
        servers.setdefault(instance["model"], []).append(server)
        adapters[instance["model"]] = [adapter["name"] for adapter in instance.get("adapters", ())]
    return [{"name": model, "servers": servers[model], "adapters": adapters[model]} for model in sorted(servers)]


def served_names(plan: FleetPlan) -> list[dict[str, str]]:
    """The names that the front door answers to, each with what is asked of it.

    A classifier of several classes is none of them: vLLM has no path for it that asks for a key.
    """
    tasks: dict[str, str] = {}
    for instance in plan["instances"]:
        names = [instance["model"], *(adapter["name"] for adapter in instance.get("adapters", ()))]
        tasks.update(dict.fromkeys(names, str(instance["task"])))
    return [{"name": name, "task": tasks[name]} for name in sorted(tasks) if tasks[name] != "classify"]


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


def engines_on(plan: FleetPlan, host: str) -> list[dict[str, Any]]:
    """The instances whose API is on the host, with the tokens that the plan promises for their KV caches."""
    return [
        {
            "id": instance["id"],
            "model": instance["model"],
            "url": f"http://{instance['endpoint']['address']}:{instance['endpoint']['port']}",
            "planned": None
            if instance["budget"]["confidence"] == "none"
            else (instance["budget"]["pinned"] or instance["budget"])["kv_cache_tokens"],
        }
        for instance in sorted(plan["instances"], key=lambda instance: str(instance["id"]))
        if instance["endpoint"]["host"] == host
    ]


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filters by name."""
        return {
            "backends": backends,
            "engines_on": engines_on,
            "launches_on": launches_on,
            "scrape_targets": scrape_targets,
            "served_names": served_names,
            "stored_models": stored_models,
        }
