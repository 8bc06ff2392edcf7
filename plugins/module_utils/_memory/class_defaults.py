"""What a configuration means beyond what config.json says; private to the collection.

vLLM reads a config.json through a class (of transformers, or of its own), which has a default for every field that
the file leaves out, other names for some, and parts that are configurations themselves. ``class_defaults.json`` has
these by type of model; tests/tools/class_defaults.py takes them from the classes. Of a type, ``set`` are the defaults,
``names`` what vLLM calls a field and what the file calls it, ``parts`` the types of its parts, ``absent`` and
``present`` what it sets in a part that the file does not have, or has, and ``text`` where the language model is.

A default that a class works out from other fields is not in the table: the readers of the fields do that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["completed", "known_types", "overridden", "text_part"]

_TABLE = Path(__file__).parents[1] / "_releases" / "class_defaults.json"


@cache
def _types() -> dict[str, dict[str, Any]]:
    """The table, by type of model."""
    return dict(json.loads(_TABLE.read_text(encoding="utf-8"))["types"])


def known_types() -> frozenset[str]:
    """The types of models whose classes are known."""
    return frozenset(_types())


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as its class holds it: with every default, by vLLM's names; one of no known type as it is."""
    row = _types().get(str(config.get("model_type") or ""))
    if row is None:
        return dict(config)
    full = {**row.get("set", {}), **config}
    for name, own in row.get("names", {}).items():
        said = next((config[key] for key in (own, name) if config.get(key) is not None), None)
        full[name] = row.get("set", {}).get(own, full.get(name)) if said is None else said
    plain = {key: value for key, value in config.items() if not isinstance(value, Mapping) and key != "model_type"}
    for name, kind in row.get("parts", {}).items():
        given = config.get(name)
        if isinstance(given, Mapping) and given:
            inside = {**_said(row, "present", name), **given} if given.get("model_type") in (None, "", kind) else given
        else:  # some classes take the fields of the language model from one level above
            inside = {**_said(row, "absent", name), **(plain if name == row.get("text") else {})}
        full[name] = completed({**inside, "model_type": inside.get("model_type") or kind})
    return full


def overridden(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with ``--hf-overrides``: those of a part change single fields of it, all others replace a value.

    Source: vLLM 0.33 ``config/model.py``, ``_apply_dict_overrides``.
    """
    changed = {**config, **overrides}
    for name, value in overrides.items():
        part = config.get(name)
        is_part = name.endswith("_config") and name != "quantization_config"
        if is_part and isinstance(part, Mapping) and isinstance(value, Mapping):
            changed[name] = overridden(part, value)
    return changed


def _said(row: Mapping[str, Any], key: str, part: str) -> dict[str, Any]:
    """What a type sets in one of its parts."""
    return dict(row.get(key, {}).get(part, {}))


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The language model's part of a completed configuration; None where its type is not known or it has no parts."""
    path = _types().get(str(config.get("model_type") or ""), {}).get("text")
    part: Any = config
    for name in path.split(".") if path else ():
        part = part.get(name)
        if not isinstance(part, Mapping):
            return None
    return part if path else None
