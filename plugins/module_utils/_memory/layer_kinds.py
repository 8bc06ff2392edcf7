"""Which kind of attention every layer of a model has; private to the collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .model import CHUNKED, FULL, LINEAR, MLA, NONE, SLIDING
from .shape import NOT_MLA, first

__all__ = ["BOTH", "LETTERS", "layer_kinds"]

BOTH = "both"  # attention and a state side by side: a FULL layer with a state
_LAYER_TYPES = {
    "full_attention": FULL,
    "attention": FULL,
    "global": FULL,
    "global_attention": FULL,
    "sliding_attention": SLIDING,
    "local_attention": SLIDING,
    "chunked_attention": CHUNKED,
    "linear_attention": LINEAR,
    "mamba": LINEAR,
    "mamba2": LINEAR,
    "hybrid": BOTH,
    "conv": LINEAR,
    "recurrent": LINEAR,
    "mlp": NONE,
    "moe": NONE,
}
# Nemotron-H as transformers 5 writes it, in the letters of its own pattern.
LETTERS = {"mamba": "M", "linear_attention": "M", "attention": "*", "full_attention": "*", "mlp": "-", "moe": "E"}


def _pattern_kinds(config: Mapping[str, Any], count: int) -> list[str]:
    """Kinds by a pattern of the model's own: a string (Nemotron-H), a list of bits (MiMo-V2), or as below."""
    pattern = config.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        attention = SLIDING if config.get("sliding_window") else FULL
        return [{"M": LINEAR, "*": attention}.get(sign, NONE) for sign in pattern if sign in "M*-E"]
    windows = config.get("hybrid_layer_pattern")  # MiMo-V2: 1 is a window
    if isinstance(windows, Sequence):
        return [SLIDING if window else FULL for window in windows]
    if config.get("model_type") == "falcon_h1":
        return [BOTH] * count
    return _linear_kinds(config, count)


def _linear_kinds(config: Mapping[str, Any], count: int) -> list[str]:
    """Kinds where some layers keep states: intervals (Qwen3-Next, Jamba), lists (Kimi Linear, Bamba)."""
    linear = config.get("linear_attn_config")
    if isinstance(linear, Mapping) and linear.get("kda_layers"):
        recurrent = set(linear["kda_layers"])  # numbered from one
        return [LINEAR if i + 1 in recurrent else MLA for i in range(count)]
    if config.get("attn_layer_indices"):
        return [FULL if i in config["attn_layer_indices"] else LINEAR for i in range(count)]
    if config.get("attn_layer_period"):
        period, offset = int(config["attn_layer_period"]), int(config.get("attn_layer_offset") or 0)
        return [FULL if i % period == offset else LINEAR for i in range(count)]
    if config.get("linear_num_value_heads"):
        period = int(config.get("full_attention_interval") or 4)
        return [FULL if (i + 1) % period == 0 else LINEAR for i in range(count)]
    return []


def _windowed_kinds(config: Mapping[str, Any], count: int) -> list[str]:
    """Kinds by a sliding window or chunk size and how often a layer sees everything."""
    if config.get("attention_chunk_size"):
        rope_layers = config.get("no_rope_layers")
        if isinstance(rope_layers, Sequence) and len(rope_layers) == count:
            return [CHUNKED if used else FULL for used in rope_layers]
        every = int(config.get("full_attention_every") or 4)
        return [FULL if (i + 1) % every == 0 else CHUNKED for i in range(count)]
    window, late = config.get("sliding_window"), config.get("max_window_layers")
    if not window or not config.get("use_sliding_window", late is None):
        return [FULL] * count
    if isinstance(late, int):  # Qwen2: windows from this layer on
        return [SLIDING if i >= late else FULL for i in range(count)]
    period = first(config, "sliding_window_pattern", "_sliding_window_pattern", "full_attention_every")
    if isinstance(period, int) and period:
        return [FULL if (i + 1) % period == 0 else SLIDING for i in range(count)]
    return [SLIDING] * count


def layer_kinds(config: Mapping[str, Any], count: int) -> list[str]:
    """The kind of every layer."""
    listed = config.get("layer_types") or config.get("layers_block_type")
    if isinstance(listed, Sequence) and not isinstance(listed, str) and listed:
        kinds = [_LAYER_TYPES.get(str(kind), FULL) for kind in listed]
        if config.get("kv_lora_rank") and config.get("model_type") not in NOT_MLA:
            kinds = [MLA if kind == FULL else kind for kind in kinds]
        if config.get("use_sliding_window") is False or not config.get("sliding_window"):
            kinds = [FULL if kind == SLIDING else kind for kind in kinds]
        return kinds
    patterned = _pattern_kinds(config, count)
    if patterned:
        return patterned
    # The last one has its attention layers in layer_types only.
    if config.get("model_type") in ("mamba", "mamba2", "falcon_mamba", "granitemoehybrid"):
        return [LINEAR] * count
    if config.get("kv_lora_rank") and config.get("model_type") not in NOT_MLA:
        return [MLA] * count
    return _windowed_kinds(config, count)
