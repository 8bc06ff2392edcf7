"""Filters with which the playbooks read other hosts: their addresses, their facts, their probes."""

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


def verdict(hostvars: HostVars, load_balancers: Iterable[str], monitoring: Iterable[str]) -> dict[str, Any]:
    """What the probes of verify.yml found, and whether all is well.

    :returns: ``ok``, ``summary`` (one line), ``failures`` (one line each), ``completions`` (one per front door
        and model) and ``targets`` (one per Prometheus target).
    """
    failures: list[str] = []
    completions: list[dict[str, Any]] = []
    for name in sorted(load_balancers):
        probes = hostvars[name].get("verify_completions", {}).get("results", [])
        if not probes:
            failures.append(f"{name}: no completion was asked for (is the host reachable?)")
        for probe in probes:
            entry = {"front_door": name, "model": probe["item"], "ok": not probe.get("failed", False)}
            if entry["ok"]:
                keys = ("text", "chunks", "time_to_first_token_seconds", "seconds")
                entry.update({key: probe[key] for key in keys})
            else:
                failures.append(f"{name}: {probe['item']}: {probe.get('msg', 'failed')}")
            completions.append(entry)

    targets: list[dict[str, Any]] = []
    for name in sorted(monitoring):
        answer = hostvars[name].get("verify_targets", {})
        active = answer.get("json", {}).get("data", {}).get("activeTargets", [])
        if not active:
            failures.append(f"{name}: Prometheus names no target: {answer.get('msg', 'is the host reachable?')}")
        for target in active:
            entry = {"prometheus": name, "url": target["scrapeUrl"], "up": target["health"] == "up"}
            if not entry["up"]:
                failures.append(f"{name}: {target['scrapeUrl']} is {target['health']}: {target['lastError']}")
            targets.append(entry)
        if active and answer.get("failed"):
            failures.append(f"{name}: Prometheus scrapes {len(active)} targets, fewer than the plan has")

    return {
        "ok": not failures,
        "summary": f"{len(completions)} completions streamed, {len(targets)} Prometheus targets up",
        "failures": failures,
        "completions": completions,
        "targets": sorted(targets, key=lambda target: str(target["url"])),
    }


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filters by name."""
        return {
            "address": address,
            "fleet_hosts": fleet_hosts,
            "host_targets": host_targets,
            "verdict": verdict,
        }
