"""The feed-forward part of a layer, dense or a mixture of experts; private to the collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .model import Moe, Tensor
from .shape import Shape, first

__all__ = ["feed_forward", "read_moe"]


# By what names a configuration says how many experts a token uses (vLLM's CONFIG_FIELD_ALIASES, and older ones).
_PER_TOKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "moe_k",
    "top_k",
)


def read_moe(config: Mapping[str, Any]) -> Moe | None:
    experts = first(config, "num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", default=0)
    if isinstance(experts, Sequence):
        experts = max(experts, default=0)
    width = first(config, "moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size", default=0)
    width = int(max(width, default=0) if isinstance(width, Sequence) else width)
    if not experts or int(experts) < 2 or width < 1:
        return None
    per_token = first(config, *_PER_TOKEN, default=1)
    per_token = max(per_token, default=1) if isinstance(per_token, Sequence) else per_token
    shared = int(
        first(
            config,
            "shared_expert_intermediate_size",
            "shared_intermediate_size",
            "moe_shared_expert_intermediate_size",
            default=0,
        )
    )
    count = int(first(config, "n_shared_experts", "num_shared_experts", "moe_num_shared_experts", default=0) or 0)
    if config.get("model_type") in ("llama4", "llama4_text") and not shared:
        shared = width
    return Moe(int(experts), int(per_token), width, shared or count * width)


def _is_moe_layer(config: Mapping[str, Any], index: int) -> bool:
    """Whether this layer has experts (each family's own rule; the keys do not overlap)."""
    if index < int(first(config, "first_k_dense_replace", "moe_layer_start_index", default=0) or 0):
        return False
    if index in (config.get("mlp_only_layers") or ()):
        return False
    frequency = config.get("moe_layer_freq")
    if isinstance(frequency, Sequence):
        return bool(frequency[index]) if index < len(frequency) else True
    if isinstance(config.get("moe_layers"), Sequence):
        return index in config["moe_layers"]
    step = int(first(config, "decoder_sparse_step", "interleave_moe_layer_step", "expert_layer_period", default=1) or 1)
    if config.get("expert_layer_period"):
        return index % step == int(config.get("expert_layer_offset") or 0)
    return (index + 1) % step == 0


def feed_forward(
    config: Mapping[str, Any], shape: Shape, moe: Moe | None, index: int
) -> tuple[bool, int, tuple[Tensor, ...]]:
    """(has experts, dense width, tensors) of the feed-forward part of layer ``index``."""
    up = 2 if shape.gated else 1
    if moe is not None and _is_moe_layer(config, index):
        tensors = [
            Tensor("expert", sharded=moe.experts * up * moe.intermediate * shape.hidden),
            Tensor("expert", sharded=moe.experts * moe.intermediate * shape.hidden),
            Tensor("router", replicated=moe.experts * shape.hidden),
        ]
        if moe.shared_intermediate:
            tensors.append(Tensor("mlp", sharded=up * moe.shared_intermediate * shape.hidden))
            tensors.append(Tensor("mlp", sharded=moe.shared_intermediate * shape.hidden))
        if config.get("enable_moe_block"):  # Gemma 4: a dense part beside the experts
            tensors += _dense(shape, shape.intermediate)
            return True, shape.intermediate, tuple(tensors)
        return True, 0, tuple(tensors)
    width = shape.intermediate
    if config.get("model_type") in ("llama4", "llama4_text"):
        width = int(config.get("intermediate_size_mlp") or width)
    return False, width, _dense(shape, width)


def _dense(shape: Shape, width: int) -> tuple[Tensor, ...]:
    """The matrices of a dense feed-forward part: gate and up together, and down."""
    up = 2 if shape.gated else 1
    both = (Tensor("mlp", sharded=up * width * shape.hidden), Tensor("mlp", sharded=width * shape.hidden))
    return both if width else ()
