"""What instances load from the store of models, and how they are started then; pure, private to the collection.

The plan names a model as the inventory does. Where the store holds it, an engine is given the directory instead, and
the hub has nothing to say to it any more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .._host.hub import LOAD_FORMATS
from .._host.model_files import is_hub_id
from .._host.model_store import place_of

__all__ = ["from_store", "stored_models"]

# With these an engine looks for its files in its own way, which is then none of the store's.
_OWN_OPTION = "download-dir"
_OWN_VARIABLES = ("VLLM_USE_MODELSCOPE", "HF_HUB_OFFLINE")


def stored_models(plan: Mapping[str, Any], host: str = "") -> list[dict[str, str]]:
    """What the engines of a host load from the store, or those of all hosts: source, revision and load_format each."""
    found = {
        place_of(model["source"], model["revision"]): model
        for instance in plan["instances"]
        if not host or any(node["host"] == host for node in instance["nodes"])
        for model in _stored(instance)
    }
    return [found[place] for place in sorted(found)]


def from_store(instance: Mapping[str, Any], store: str) -> Mapping[str, Any]:
    """An instance whose model and adapters are directories of the store, if there is one and as far as it holds them.

    Its engine asks the hub for nothing, unless its options name more of it.
    """
    stored = list(_stored(instance))
    if not store or not stored:
        return instance
    paths = {_key(model): f"{store.rstrip('/')}/{place_of(model['source'], model['revision'])}" for model in stored}
    arguments = dict(instance["engine_args"])
    path = paths.get((arguments["model"], str(arguments.get("revision") or "main")))
    if path:
        arguments["model"] = path
        arguments.pop("revision", None)
    adapters = [{**entry, "source": paths.get(_key(entry), entry["source"])} for entry in _adapters(instance)]
    offline = {} if any(map(is_hub_id, [arguments["model"], *_others(arguments)])) else {"HF_HUB_OFFLINE": "1"}
    return {**instance, "engine_args": arguments, "adapters": adapters, "env": {**offline, **instance["env"]}}


def _adapters(instance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(instance.get("adapters", ()))


def _key(model: Mapping[str, Any]) -> tuple[str, str]:
    return str(model["source"]), str(model.get("revision") or "main")


def _stored(instance: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """What an instance loads from the store: its model, its adapters, or nothing."""
    arguments, variables = instance["engine_args"], instance["env"]
    if _OWN_OPTION in arguments or any(_is_set(variables.get(name)) for name in _OWN_VARIABLES):
        return
    load_format = str(arguments.get("load-format", "auto"))
    model = {"source": str(arguments["model"]), "revision": arguments.get("revision")}
    entries = [(entry, "auto") for entry in _adapters(instance)]
    for entry, known in [(model, load_format), *entries]:
        if is_hub_id(entry["source"]) and known in LOAD_FORMATS:
            source, revision = _key(entry)
            yield {"source": source, "revision": revision, "load_format": known}


def _is_set(value: object) -> bool:
    """Whether a variable switches something on, as huggingface_hub and vLLM take it."""
    return str(value).lower() in ("1", "on", "true", "yes")


def _others(arguments: Mapping[str, Any]) -> Iterator[str]:
    """What else of the hub the options of an engine may name."""
    for name in ("tokenizer", "hf-config-path", "lora-modules"):
        value = arguments.get(name, [])
        for entry in value if isinstance(value, list) else [value]:
            yield str(entry.get("path", "") if isinstance(entry, dict) else entry).rpartition("=")[2]
    draft = arguments.get("speculative-config") or {}
    draft = json.loads(draft) if isinstance(draft, str) else draft
    yield str(draft.get("model", ""))
