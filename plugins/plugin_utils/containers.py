"""Which hosts need Docker, by the inventory alone, and what of it cannot be; private to the collection.

A fresh host has no driver, so nobody can plan for it before it has one: Docker comes with the driver, to every host
that a model in containers may be planned on, and not only to those that get one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["has_containers", "mistakes", "models_in_containers"]

HostVars = Mapping[str, Mapping[str, Any]]

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_TAGS = "docker buildx imagetools inspect"


def models_in_containers(name: str, variables: Mapping[str, Any]) -> list[str]:
    """The models with `runtime: docker` that may be planned on a host."""
    known = {name, "all", *variables.get("group_names", ())}
    models = variables.get("vllm_models") or []
    wanted = [model for model in models if isinstance(model, Mapping) and model.get("runtime") == "docker"]
    return [str(model.get("name")) for model in wanted if known.intersection(_hosts(model))]


def has_containers(name: str, variables: Mapping[str, Any]) -> bool:
    """Whether a host gets Docker and NVIDIA's toolkit: as ``hardware_containers`` says, else where a model needs it."""
    stated = variables.get("hardware_containers")
    return bool(models_in_containers(name, variables)) if stated is None else bool(stated)


def mistakes(names: Iterable[str], hostvars: HostVars) -> list[str]:
    """What keeps models in containers from running, a sentence or two each, with the hosts that it is so of."""
    found: dict[str, list[str]] = {}
    for name in names:
        models = models_in_containers(name, hostvars[name])
        for mistake in _of_host(hostvars[name], ", ".join(models)) if models else []:
            found.setdefault(mistake, []).append(name)
    return [f"{', '.join(hosts)}: {mistake}" for mistake, hosts in found.items()]


def _hosts(model: Mapping[str, Any]) -> list[str]:
    hosts = model.get("hosts", "auto")
    if hosts in (None, "auto"):
        return ["all"]
    return [hosts] if isinstance(hosts, str) else list(hosts)


def _of_host(variables: Mapping[str, Any], models: str) -> Iterable[str]:
    if not variables.get("hardware_containers", True):
        yield (
            f"{models} may be planned here with runtime docker, and hardware_containers is false. Take that away, or "
            f"keep the model to other hosts with its `hosts:`."
        )
    file, digest = variables.get("vllm_image_file"), str(variables.get("vllm_image_digest") or "")
    pin = "vllm_image_file_checksum" if file else "vllm_image_digest"
    value = str(variables.get(pin) or "")
    if value and not _SHA256.fullmatch(value):
        yield f"{pin} is '{value}'; it is sha256: and 64 hexadecimal digits."
    elif not value and file:
        yield (
            f"vllm_image_file is {file}, and nothing says what is in it. Set {pin} to sha256: and what `sha256sum` "
            f"says of the file where you have saved it."
        )
    elif not digest and not file:
        yield (
            f"{models} runs with runtime docker, and no image is pinned. Set vllm_image_digest to what `{_TAGS} "
            f"vllm/vllm-openai:vVERSION` tells as Digest, on a machine that reaches the registry."
        )
