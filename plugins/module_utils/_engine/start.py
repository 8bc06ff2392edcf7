"""What starts the engine of a node, by its runtime; private to the collection.

``given`` are the arguments of the module engine_config.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from .container import Runtime, cleanup, command
from .network import interface_variables, interfaces

__all__ = ["ARGUMENTS", "Start", "in_container", "runtime_of", "start_of", "variables_of"]

ARGUMENTS: dict[str, dict[str, Any]] = {
    "image": {"type": "str", "required": True},
    "wrapper": {"type": "path", "required": True},
    "check": {"type": "str", "required": True},
    "gpus": {"type": "str", "choices": ["cdi", "legacy"], "default": "cdi"},
    "stop": {"type": "int", "default": 120},
    "mounts": {"type": "list", "elements": "path", "default": []},
}
_OF_THE_UNIT = re.compile(r"(?m)^Environment=(\w+)=(.*)$")


@dataclass(frozen=True)
class Start:
    """Commands of a keeper."""

    release: str  # all nodes of an instance must have the same
    command: list[str]  # to which more words of ``vllm serve`` may be added
    cleanup: list[str] = field(default_factory=list)  # leaves nothing of the engine before


def start_of(instance: Mapping[str, Any], given: Mapping[str, Any]) -> Start:
    """What starts an instance."""
    options = f"{given['directory']}/{instance['id']}.yaml"
    serve = ["vllm", "serve", "--config", options, "--shutdown-timeout", str(given["times"]["shutdown"])]
    together = f"{PurePosixPath(given['link']).parent}/lib/ray_node.py"
    if not in_container(instance):
        return Start(given["release"], _words(instance, serve, together, f"{given['link']}/bin/", "/usr/bin/python3"))
    words = _words(instance, serve, together, "", "python3")
    runtime = runtime_of(given)
    variables = {**dict(_OF_THE_UNIT.findall(given["unit"])), **variables_of(instance, given)}
    files = [path for path in (options, together) if path in words]
    started = command(runtime, instance, words, variables, given["secrets"], files)
    return Start(runtime.image, started, cleanup(runtime, instance["id"]))


def in_container(instance: Mapping[str, Any]) -> bool:
    """Whether Docker runs it."""
    return bool(instance.get("runtime") == "docker")


def runtime_of(given: Mapping[str, Any]) -> Runtime:
    """What the containers of the host have in common."""
    said = given["containers"]
    return Runtime(said["image"], said["wrapper"], said["gpus"], given["home"], said["stop"], said["mounts"])


def variables_of(instance: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The environment of an instance, without secrets."""
    return {**interface_variables(instance, interfaces()), **given["environment"], **instance.get("env", {})}


def _words(instance: Mapping[str, Any], serve: Sequence[str], together: str, programs: str, python: str) -> list[str]:
    """What a node runs: the engine; or, where Ray joins it, Ray and the API server on the head, and Ray elsewhere.

    :param together: where the role's ``files/ray_node.py`` lies, which runs both.
    :param programs: where ``vllm`` and ``ray`` lie.
    """
    engine = [f"{programs}{serve[0]}", *serve[1:]]
    if not instance.get("ray"):
        return engine
    ray = [f"{programs}ray", "start", *instance["ray"]]
    return [python, "-Es", together, *ray, "--", *engine] if "--head" in ray else ray
