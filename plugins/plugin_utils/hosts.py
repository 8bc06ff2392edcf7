"""What the variables of a host say of it, and what holds where they say nothing; private to the collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.versions import DEFAULT_VERSION

__all__ = ["DEFAULTS", "address", "setting"]

# What the roles take where the inventory says nothing; a test holds it against their defaults.
DEFAULTS: dict[str, Any] = {
    "exporters_node_port": 9100,
    "nginx_lb_listen": ["80"],
    "prometheus_listen_address": "127.0.0.1:9090",
    "vllm_python": "auto",
    "vllm_root": "/opt/vllm",
    "vllm_state_dir": "/var/lib/vllm",
    "vllm_version": DEFAULT_VERSION,
}


def setting(name: str, variables: Mapping[str, Any]) -> Any:
    """The value of a role's variable on a host."""
    return variables.get(name, DEFAULTS[name])


def address(name: str, variables: Mapping[str, Any]) -> str:
    """The address by which the other hosts reach a host: ``fleet_address``, else what Ansible itself uses."""
    return str(variables.get("fleet_address") or variables.get("ansible_host") or name)
