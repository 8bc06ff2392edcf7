"""Whether the hosts of an instance let its nodes work together, by variables and facts; private to the collection.

The keeper of a head refuses nodes that differ from it, and Ray does. Each node would then wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .hosts import setting

__all__ = ["mistakes"]

HostVars = Mapping[str, Mapping[str, Any]]

# Which release a node has, by its runtime: the versions have to be equal, and what they are installed from.
_RELEASE = {
    "systemd": ("vllm_version", "vllm_lock"),
    "docker": ("vllm_version", "vllm_image_digest", "vllm_image_file_checksum"),
}
_SECRETS = ("vllm_keeper_token", "vllm_api_key")  # the second where there is none of the first


def mistakes(plan: Mapping[str, Any], hostvars: HostVars) -> list[str]:
    """What has to be changed, a sentence or two each."""
    spanning = [instance for instance in plan["instances"] if len(instance["nodes"]) > 1]
    return [mistake for instance in spanning for mistake in _of_instance(instance, hostvars)]


def _of_instance(instance: Mapping[str, Any], hostvars: HostVars) -> Iterator[str]:
    variables = {node["host"]: hostvars[node["host"]] for node in instance["nodes"]}
    for name in _RELEASE[instance["runtime"]]:
        values = {host: str(_said(name, known)) for host, known in variables.items()}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{host} {value or 'none'}" for host, value in values.items())
            yield f"{instance['id']}: its nodes need the same {name}; there are {shown}. Set one value for all of them."
    if len({_secret(known) for known in variables.values()}) > 1:
        yield (
            f"{instance['id']}: its nodes know each other by {' or '.join(_SECRETS)}, and {', '.join(variables)} have "
            f"different values. Set one value for all of them."
        )
    # In containers all have the Python of the image.
    pythons = {host: _python_of(known) for host, known in variables.items()}
    by_ray = instance["executor"] == "ray" and instance["runtime"] != "docker"
    if by_ray and None not in pythons.values() and len(set(pythons.values())) > 1:
        kinds = ", ".join(f"{host} that of {python}" for host, python in pythons.items())
        yield (
            f"{instance['id']}: Ray wants the same Python on all nodes of an instance; {kinds}. Set executor of "
            f"{instance['model']} to mp, name hosts of one release in its hosts, or set vllm_python of them."
        )


def _said(name: str, variables: Mapping[str, Any]) -> Any:
    return setting(name, variables) if name == "vllm_version" else variables.get(name) or ""


def _secret(variables: Mapping[str, Any]) -> tuple[str, str]:
    """What a host's secret is made of: that which is set first."""
    return next(((name, str(variables[name])) for name in _SECRETS if variables.get(name)), ("", ""))


def _python_of(variables: Mapping[str, Any]) -> str | None:
    """What a host's environments are made with: what vllm_python names, or what its release of a distribution has.

    None: ``--limit`` leaves the host, and with it its instances, as they are.
    """
    named = setting("vllm_python", variables)
    if named != "auto":
        return str(named)
    facts = variables.get("ansible_facts", {})
    return f"{facts['distribution']} {facts['distribution_major_version']}" if "distribution" in facts else None
