"""Checks what is said of models before anything is computed from it; private to the collection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .._errors import WishError
from .options import did_you_mean

__all__ = ["check_facts", "facts_problems"]

# What the module model_facts returns; somebody who writes fleet_model_facts by hand needs `config` alone.
KEYS = (
    "adapter",
    "bytes_from",
    "chat_template",
    "config",
    "embeds",
    "generation",
    "max_seq_length",
    "path",
    "problem",
    "revision",
    "safetensors_bytes",
    "source",
    "tensors",
    "tokenizer_length",
)


def check_facts(facts: Mapping[str, Any]) -> None:
    """Look at facts of models before anything is computed from them.

    :raises WishError: any of them is wrong.
    """
    problems = list(facts_problems(facts))
    if problems:
        raise WishError(problems)


def facts_problems(facts: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with facts of models, by the names of the models; a line each."""
    for name, known in facts.items():
        where = f"fleet_model_facts.{name}"
        if not isinstance(known, Mapping):
            yield f"{where}: is {_kind(known)}; write {{config: ...}} with the content of config.json."
            continue
        for key in known:
            if key not in KEYS:
                hint = did_you_mean(str(key), KEYS) or "; the content of config.json stands below config."
                yield f"{where}: unknown key {str(key)!r}{hint}"
        if "config" in known and not isinstance(known["config"], Mapping):
            yield f"{where}.config: is {_kind(known['config'])}; write the content of config.json there."
        size = known.get("safetensors_bytes")
        if size is not None and not _are_bytes(size):
            yield f"{where}.safetensors_bytes: {_kind(size)} is no size of weights; write their bytes, or leave it out."
        for key in ("max_seq_length", "tokenizer_length"):
            if known.get(key) is not None and not _are_bytes(known[key]):
                yield f"{where}.{key}: {_kind(known[key])} is no length; write a number of tokens, or leave it out."
        if not _are_tensors(known.get("tensors") or ()):
            yield f"{where}.tensors: is no list of tensors with name and bytes; leave it out, the configuration tells."


def _kind(value: Any) -> str:
    if value is None:
        return "empty"
    return f"{value!r}"[:40] if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"


def _are_bytes(value: Any) -> bool:
    """Whether it is a number of bytes that weights can have; a text of digits is one, too."""
    text = str(value)
    return not isinstance(value, (bool, float)) and text.isdecimal() and len(text) < 18 and int(text) > 0


def _are_tensors(tensors: Any) -> bool:
    return isinstance(tensors, (list, tuple)) and all(
        isinstance(tensor, Mapping)
        and "name" in tensor
        and isinstance(tensor.get("bytes"), int)
        and tensor["bytes"] >= 0
        for tensor in tensors
    )
