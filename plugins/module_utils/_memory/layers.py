"""The layers of a model: what each keeps per token, and its tensors; private to the collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .feed_forward import feed_forward
from .layer_kinds import BOTH, layer_kinds
from .model import CHUNKED, FULL, LINEAR, MLA, NONE, SLIDING, Layer, Moe, Tensor
from .shape import NOT_MLA, Shape
from .states import read_state

__all__ = ["read_layers"]


def _mla_tensors(config: Mapping[str, Any], shape: Shape) -> tuple[Tensor, ...]:
    """The projections of multi-head latent attention (DeepSeek-V2 paper; vLLM ``models/deepseek_v2.py``)."""
    rank, rope = int(config["kv_lora_rank"]), int(config.get("qk_rope_head_dim") or 0)
    nope, value = int(config.get("qk_nope_head_dim") or 128), int(config.get("v_head_dim") or 128)
    if config.get("model_type") in NOT_MLA and not config.get("v_head_dim"):
        value = shape.hidden // shape.heads
    query_rank = int(config.get("q_lora_rank") or 0)
    tensors = [
        Tensor("attention", replicated=shape.hidden * (rank + rope)),
        Tensor("attention", sharded=shape.heads * (nope + value) * rank),
        Tensor("attention", sharded=shape.hidden * shape.heads * value),
    ]
    if query_rank:
        tensors.append(Tensor("attention", replicated=shape.hidden * query_rank))
        tensors.append(Tensor("attention", sharded=query_rank * shape.heads * (nope + rope)))
    else:
        tensors.append(Tensor("attention", sharded=shape.hidden * shape.heads * (nope + rope)))
    # Kept twice: vLLM absorbs the up-projections into transposed copies (mla_attention.py,
    # process_weights_after_loading). In the files they do not exist, hence the role of their own.
    tensors.append(Tensor("absorbed", sharded=shape.heads * (nope + value) * rank))
    if config.get("index_head_dim"):
        heads, size = int(config.get("index_n_heads") or 64), int(config["index_head_dim"])
        tensors.append(Tensor("attention", replicated=size * (shape.hidden + heads * (query_rank or shape.hidden))))
    return tuple(tensors)


def _layer_inputs(config: Mapping[str, Any], shape: Shape, count: int, index: int) -> tuple[Tensor, ...]:
    """What Gemma 3n and 4 add for embeddings of every layer: gate and projection, and the table at the first."""
    size = int(config.get("hidden_size_per_layer_input") or 0)
    if not size:
        return ()
    tensors = [Tensor("norm", replicated=2 * size * shape.hidden)]
    if not index:
        vocabulary = int(config.get("vocab_size_per_layer_input") or 0)
        tensors.append(Tensor("embedding", sharded=vocabulary * count * size))
        tensors.append(Tensor("norm", replicated=shape.hidden * count * size))
    return tuple(tensors)


def _head_sizes(config: Mapping[str, Any], shape: Shape, kind: str, index: int) -> tuple[int, int, int]:
    """(key/value heads, size of a key, size of a value) of layer ``index``."""
    per_layer = config.get("num_key_value_heads")
    heads = int(per_layer[index]) if isinstance(per_layer, Sequence) else shape.kv_heads
    size = shape.head
    value = 0 if config.get("kv_lora_rank") else int(config.get("v_head_dim") or 0)
    if kind == FULL and config.get("global_head_dim"):  # Gemma 4
        size = int(config["global_head_dim"])
        if config.get("attention_k_eq_v"):
            heads = int(config.get("num_global_key_value_heads") or heads)
    if kind == SLIDING:  # MiMo-V2
        heads = int(config.get("swa_num_key_value_heads") or heads)
        size = int(config.get("swa_head_dim") or size)
        value = int(config.get("swa_v_head_dim") or value)
    own = config.get("per_layer_config")  # transformers 5: what single layers have otherwise, by number
    for number, fields in own.items() if isinstance(own, Mapping) else ():
        if int(number) == index:
            size, heads = int(fields.get("head_dim", size)), int(fields.get("num_key_value_heads", heads))
    return heads, size, value or size


def _attention(config: Mapping[str, Any], shape: Shape, kind: str, index: int) -> Layer:
    """The attention part of layer ``index``."""
    if kind == NONE:
        return Layer(NONE)
    if kind == BOTH:
        state, tensors = read_state(config, shape)
        layer = _attention(config, shape, FULL, index)
        return replace(layer, state=state, tensors=(*layer.tensors, *tensors))
    if kind == LINEAR:
        state, tensors = read_state(config, shape)
        return Layer(LINEAR, state=state, tensors=tensors)
    if kind == MLA:
        latent = int(config["kv_lora_rank"]) + int(config.get("qk_rope_head_dim") or 0)
        # DeepSeek V3.2's indexer caches its key in fp8 with one fp32 scale per 128 (models/deepseek_v2.py).
        size = int(config.get("index_head_dim") or 0)
        return Layer(MLA, 1, latent, 0, indexer=size + 4 * (size // 128), tensors=_mla_tensors(config, shape))
    heads, size, value = _head_sizes(config, shape, kind, index)
    gated = config.get("attn_output_gate") or str(config.get("model_type")).startswith(("qwen3_next", "qwen3_5"))
    query = 2 if gated else 1
    tensors = (
        Tensor(
            "attention",
            sharded=query * shape.heads * size * shape.hidden,
            kv=heads * (size + value) * shape.hidden,
            kv_heads=heads,
        ),
        Tensor("attention", sharded=shape.heads * value * shape.hidden),
    )
    if config.get("kv_lora_rank") and kind == FULL:  # MiniCPM3: low ranks, and a cache of whole heads
        tensors = tuple(tensor for tensor in _mla_tensors(config, shape) if tensor.role != "absorbed")
    window = 0
    if kind == SLIDING:
        window = int(config["sliding_window"])
    if kind == CHUNKED:
        window = int(config["attention_chunk_size"])
    if config.get("is_encoder_decoder"):
        return Layer(kind, heads, size, value, window, cross=True, tensors=2 * tensors)
    return Layer(kind, heads, size, value, window, tensors=tensors)


def read_layers(config: Mapping[str, Any], shape: Shape, moe: Moe | None, count: int) -> tuple[Layer, ...]:
    layers = []
    patterned = isinstance(config.get("hybrid_override_pattern"), str)
    signs = [sign for sign in str(config.get("hybrid_override_pattern", "")) if sign in "M*-E"]
    caching = count - int(config.get("num_kv_shared_layers") or 0)  # the others read an earlier layer's cache
    for index, kind in enumerate(layer_kinds(config, count)):
        layer = _attention(config, shape, kind, index)
        part = shape
        widths = config.get("intermediate_size")
        if isinstance(widths, Sequence):  # one for each layer
            part = replace(shape, intermediate=int(widths[index]))
        if index >= caching:
            layer = replace(layer, kind=NONE)
            if config.get("use_double_wide_mlp"):
                part = replace(shape, intermediate=2 * shape.intermediate)
        if patterned and signs[index] in "M*":  # Nemotron-H: one part per layer
            layers.append(layer)
            continue
        experts = moe if not patterned or signs[index] == "E" else None
        has_moe, width, tensors = feed_forward(config, part, experts, index)
        tensors += (*_layer_inputs(config, shape, count, index), Tensor("norm", replicated=2 * shape.hidden))
        layers.append(replace(layer, intermediate=width, moe=has_moe, tensors=(*layer.tensors, *tensors)))
    return tuple(layers)
