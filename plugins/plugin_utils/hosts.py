"""What the variables of a host say of it, and what holds where they say nothing; private to the collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.versions import DEFAULT_VERSION

__all__ = ["DEFAULTS", "address", "setting"]

# What the roles take where the inventory says nothing; a test holds it against their defaults.
DEFAULTS: dict[str, Any] = {
    "alertmanager_listen_address": "127.0.0.1:9093",
    "exporters_dcgm_port": 9400,
    "exporters_gpu_source": "nvml",
    "exporters_nginx_port": 9113,
    "exporters_node_port": 9100,
    "fleet_alertmanager_url": "",
    "fleet_observe": ["alertmanager", "exporters", "prometheus"],
    "model_store_dir": "/srv/model-store",
    "nginx_lb_listen": ["80"],
    "nginx_lb_tls": "none",
    "nginx_lb_tls_certificate": "",
    "nginx_lb_tls_listen": ["443"],
    "prometheus_listen_address": "127.0.0.1:9090",
    "prometheus_tls_certificate": "",
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
