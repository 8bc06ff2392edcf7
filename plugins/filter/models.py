"""Filters with which plan.yml gathers what the planner is told of models and, where there are none, of hosts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._catalogue import GpuType, gpu_type


def model_sources(models: Any, place: str) -> list[dict[str, Any]]:
    """The models that are a ``directory`` or on the ``hub``, as the module model_facts wants them.

    Entries that are wrong are passed over: fleet_plan names them all.
    """
    entries = [
        {key: model[key] for key in ("name", "source", "revision") if isinstance(model.get(key), str)}
        for model in (models if isinstance(models, list) else [])
        if isinstance(model, Mapping)
    ]
    found = [entry for entry in entries if {"name", "source"} <= entry.keys()]
    return [entry for entry in found if entry["source"].startswith("/") == (place == "directory")]


def known_models(names: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The facts of every model that any of the hosts has read, of the first that could; else why it could not."""
    known: dict[str, dict[str, Any]] = {}
    for name in names:
        for model, facts in hostvars[name].get("ansible_facts", {}).get("model_facts", {}).items():
            if "config" not in known.get(model, {}) and ("config" in facts or model not in known):
                known[model] = facts
    return known


def described_hosts(hosts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Hosts that are only described, as fleet_plan wants them: ``{name: gpu1, gpus: "8 x H100 80GB HBM3, NVLink"}``.

    Without a link in the text it is the one that the type of GPU usually has.

    :raises AnsibleFilterError: a description that cannot be read, or a GPU that is not in the catalogue.
    """
    return [_described(host) for host in hosts]


def _described(host: Mapping[str, Any]) -> dict[str, Any]:
    text = str(host.get("gpus", ""))
    found = re.fullmatch(r"\s*(\d+)\s*x\s+([^,]+?)\s*(?:,\s*(nvlink|pcie)\s*)?", text, re.IGNORECASE)
    if found is None or "name" not in host:
        raise AnsibleFilterError(
            f"{dict(host)!r} is no description of a host; write {{name: gpu1, gpus: '8 x H100 80GB HBM3, NVLink'}}."
        )
    count, name, link = found.groups()
    kind = gpu_type(name)
    if not kind.known:
        raise AnsibleFilterError(
            f"{host['name']}: there is no GPU called {name!r} in the catalogue of this collection."
        )
    return {
        "name": host["name"],
        "address": host.get("address", host["name"]),
        "gpu_facts": _facts(name, int(count), kind, link.lower() if link else None),
        "instances": [],
    }


def _facts(name: str, count: int, kind: GpuType, link: str | None) -> dict[str, Any]:
    """What gpu_facts would return, as far as a name tells."""
    gpu = {
        "name": name,
        "total_gib": kind.total_gib,
        "compute_capability": ".".join(map(str, kind.compute_capability)),
    }
    return {
        "link": link or ("nvlink" if kind.nvlink else "pcie"),
        "domains": [list(range(count))],
        "gpus": [{"index": index, **gpu} for index in range(count)],
        "driver_version": None,
        "reason": None,
    }


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filters by name."""
        return {"described_hosts": described_hosts, "known_models": known_models, "model_sources": model_sources}
