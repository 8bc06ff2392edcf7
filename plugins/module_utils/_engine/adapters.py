"""The LoRA adapters of an engine: what it is started with, and what a running one has to load; private.

vLLM reads ``--lora-modules`` at its start and takes others later (entrypoints/serve/lora/api_router.py), where
VLLM_ALLOW_RUNTIME_LORA_UPDATING is set. So that an engine has the same after a restart, both are made of one list.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .openai import OpenAiClient

__all__ = ["Step", "arguments_file", "has_adapters", "reconcile", "steps"]

Adapters = Iterable[Mapping[str, Any]]  # of each its name and its source


@dataclass(frozen=True)
class Step:
    """A request that changes what an engine has loaded."""

    path: str
    body: Mapping[str, Any]
    says: str


def has_adapters(engine_args: Mapping[str, Any]) -> bool:
    """Whether an engine takes adapters at all."""
    return bool(engine_args.get("enable-lora"))


def arguments_file(adapters: Adapters, model: str) -> str:
    """The file whose words are appended to the command at every start."""
    modules = [
        json.dumps({"name": adapter["name"], "path": adapter["source"], "base_model_name": model})
        for adapter in adapters
    ]
    return json.dumps(["--lora-modules", *modules] if modules else [], indent=2) + "\n"


def steps(listed: Mapping[str, Mapping[str, Any]], wanted: Adapters) -> list[Step]:
    """What turns the adapters that ``/v1/models`` lists into those that are wanted; the model itself has no parent."""
    there = {name: entry.get("root") for name, entry in listed.items() if entry.get("parent")}
    asked = {str(adapter["name"]): str(adapter["source"]) for adapter in wanted}
    found = [
        Step("/v1/unload_lora_adapter", {"lora_name": name}, f"{name} is not served any more")
        for name in sorted(there.keys() - asked.keys())
    ]
    for name, source in sorted(asked.items()):
        if name not in there:
            body = {"lora_name": name, "lora_path": source}
            found.append(Step("/v1/load_lora_adapter", body, f"{name} is served from {source}"))
        elif there[name] != source:
            moved = {"lora_name": name, "lora_path": source, "load_inplace": True}
            says = f"{name} is served from {source}, before from {there[name]}"
            found.append(Step("/v1/load_lora_adapter", moved, says))
    return found


def reconcile(client: OpenAiClient, wanted: Adapters) -> list[str]:
    """Let an engine that runs serve these adapters and no others; says what was done.

    :raises ApiError: it refuses one, or takes none while it runs.
    """
    todo = steps(client.models(), wanted)
    for step in todo:
        client.post(step.path, json.dumps(step.body).encode())
    return [step.says for step in todo]
