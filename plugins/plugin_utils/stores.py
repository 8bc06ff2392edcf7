"""What of an inventory keeps models from coming to the hosts, told without asking a host; private to the collection."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.directories import unusable

from .reachable import value_of

__all__ = ["mistakes"]

HostVars = Mapping[str, Mapping[str, Any]]

_PORTS = 65535
# The least that each may be; everything else that is left out is the role's own.
_LEAST = {
    "model_store_fan_out": 1,
    "model_store_margin_gib": 0,
    "model_store_parallel": 1,
    "model_store_patience": 1,
    "model_store_port": 1,
    "model_store_timeout": 1,
}


def mistakes(names: Collection[str], hostvars: HostVars) -> list[str]:
    """What is wrong with the variables of the role model_store, a sentence or two each, with the hosts."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in names:
        for mistake in _of_host(hostvars[name], names):
            found.setdefault(mistake, []).append(name)
    return [f"{variable} of {', '.join(hosts)} is {words}" for (variable, words), hosts in found.items()]


def _of_host(variables: Mapping[str, Any], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    directory = value_of("model_store_dir", variables)
    if directory not in (None, ""):
        reason = unusable(str(directory)) if str(directory).startswith("/") else "it takes an absolute path"
        if reason:
            yield "model_store_dir", f"'{directory}': {reason}."
    host = value_of("model_store_download_host", variables)
    if host and host not in names:
        yield "model_store_download_host", f"'{host}', which is none of gpu_hosts. Name one of them, or leave it out."
    for name, least in _LEAST.items():
        value = value_of(name, variables)
        if value is None:
            continue
        number = re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?" if not least else "[0-9]{1,12}", str(value))
        most = _PORTS if name == "model_store_port" else None
        if not number or float(value) < least or (most and float(value) > most):
            extent = f"from {least} to {most}" if most else f"of at least {least}"
            yield name, f"'{value}', no number {extent}."
