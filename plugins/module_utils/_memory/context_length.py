"""How long a model's context is, and how large its rotary tables; private to the collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .shape import Shape, first

__all__ = ["max_model_len", "original_len", "rope_elements", "scaled_len"]

# vLLM 0.33 config/model.py `_get_and_verify_max_len`: the least of these, except that the tokenizer-style name wins.
_LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# Rope types whose max_position_embeddings already is the scaled length (same function).
_UNSCALED_ROPE = frozenset({"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default"})


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rope parameters: ``rope_scaling``, or ``rope_parameters`` of transformers 5 (those of the full layers)."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(found, Mapping):
        return {}
    nested = found.get("full_attention")
    return nested if isinstance(nested, Mapping) else found


def max_model_len(config: Mapping[str, Any]) -> int:
    """The longest context in tokens that vLLM takes from the (text) ``config``; 2048 when it names none.

    Source: vLLM 0.33 ``config/model.py``. A rope factor multiplies it, unless the rope type's length is already
    the scaled one, or the model is a Gemma 3, whose configs give the scaled length too.
    """
    lengths = [int(config[key]) for key in _LENGTH_KEYS if isinstance(config.get(key), (int, float)) and config[key]]
    length = min(lengths) if lengths else 2048
    if isinstance(config.get("model_max_length"), int):
        length = min(length, config["model_max_length"]) if lengths else config["model_max_length"]
    rope = _rope(config)
    kind = rope.get("rope_type", rope.get("type", "default"))
    factor = rope.get("factor")
    if not factor or kind in _UNSCALED_ROPE or str(config.get("model_type", "")).startswith("gemma3"):
        return length
    return int(length * factor)


def original_len(config: Mapping[str, Any], length: int) -> int:
    """The length that a LongRoPE model was made for, before scaling; ``length`` for any other."""
    rope = _rope(config)
    original = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    return int(original) if original and rope.get("rope_type", rope.get("type")) == "longrope" else length


def scaled_len(config: Mapping[str, Any]) -> int:
    """The context in tokens that a YaRN rope is scaled for: its original length times its factor; 0 for any other."""
    rope = _rope(config)
    if rope.get("rope_type", rope.get("type")) != "yarn":
        return 0
    return int(float(rope.get("original_max_position_embeddings") or 0) * float(rope.get("factor") or 0))


def rope_elements(config: Mapping[str, Any], shape: Shape, length: int, sees: bool) -> int:
    """Size of the cos/sin tables: positions times rotated dimensions, once per distinct rope of the model.

    Source: vLLM ``rotary_embedding/base.py`` (one table per set of parameters, shared by the layers),
    ``yarn_scaling_rope.py`` (positions = original length times factor), ``linear_scaling_rope.py`` (length times
    factor). ``sees``: the model has a vision tower.
    """
    if not any(key in config for key in ("rope_theta", "rope_scaling", "rope_parameters", "rotary_pct")):
        return 0
    positions = int(config.get("max_position_embeddings") or length)
    rope = _rope(config)
    kind, factor = rope.get("rope_type", rope.get("type")), float(rope.get("factor") or 1)
    model_type = str(config.get("model_type", ""))
    if model_type.startswith("gemma4"):  # a table for windows, and one as wide as the larger heads of the full layers
        return positions * (shape.head + int(config.get("global_head_dim") or shape.head))
    local = positions if config.get("rope_local_base_freq") or model_type.startswith("gemma3") else 0
    if not rope and sees and local and positions == 131072:
        # Every Gemma 3 that sees pictures interpolates its global positions by 8 (Gemma 3 report, section 2).
        kind, factor = "linear", 8.0
    if kind in ("yarn", "deepseek_yarn"):
        positions = int(rope.get("original_max_position_embeddings", positions) * factor)
    elif kind == "linear":
        positions = int(positions * factor)
    share = float(first(config, "partial_rotary_factor", "rotary_pct", default=rope.get("partial_rotary_factor", 1.0)))
    size = int(config.get("qk_rope_head_dim") or shape.head * share)
    return (positions + local) * size
