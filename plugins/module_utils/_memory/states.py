"""What layers of linear attention keep and weigh (gated delta nets, Kimi, Mamba, ...); private to the collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .model import State, Tensor
from .shape import DTYPE_BYTES, Shape, first

__all__ = ["read_state"]


def read_state(config: Mapping[str, Any], shape: Shape) -> tuple[State, tuple[Tensor, ...]]:
    """State and weights of a linear-attention layer (vLLM ``layers/mamba/mamba_utils.py``)."""
    recurrent_bytes = DTYPE_BYTES.get(
        str(first(config, "mamba_ssm_dtype", "mamba_ssm_cache_dtype", "ssm_cache_dtype", default="")), 0
    )
    if config.get("linear_num_value_heads"):  # gated delta net: Qwen3-Next, Qwen3.5
        k_heads, v_heads = int(config["linear_num_key_heads"]), int(config["linear_num_value_heads"])
        k_size, v_size = int(config["linear_key_head_dim"]), int(config["linear_value_head_dim"])
        kernel = int(config.get("linear_conv_kernel_dim") or 4)
        width = 2 * k_size * k_heads + v_size * v_heads
        tensors = (
            Tensor("attention", sharded=shape.hidden * (width + v_size * v_heads)),
            Tensor("attention", sharded=shape.hidden * v_size * v_heads),
            Tensor("router", sharded=shape.hidden * 2 * v_heads),
        )
        return State("gdn", (kernel - 1) * width, v_heads * v_size * k_size, recurrent_bytes), tensors
    linear = config.get("linear_attn_config")
    if isinstance(linear, Mapping):  # Kimi delta attention: the recurrent state is kept in fp32
        heads, size = int(linear["num_heads"]), int(linear["head_dim"])
        kernel = int(linear.get("short_conv_kernel_size") or 4)
        width = heads * size
        return State("kda", (kernel - 1) * 3 * width, heads * size * size, 4), (
            Tensor("attention", sharded=4 * shape.hidden * width),
        )
    if config.get("conv_L_cache"):  # LFM2: a gated short convolution
        width = int(config.get("conv_dim") or shape.hidden)
        return State("conv", (int(config["conv_L_cache"]) - 1) * width, 0), (
            Tensor("attention", sharded=4 * shape.hidden * width),
        )
    return _mamba(config, shape, recurrent_bytes)


def _mamba(config: Mapping[str, Any], shape: Shape, recurrent_bytes: int) -> tuple[State, tuple[Tensor, ...]]:
    """State and weights of a Mamba 1 or 2 layer."""
    if config.get("model_type") == "nemotron_h":  # models/config.py, NemotronHForCausalLMConfig
        recurrent_bytes = recurrent_bytes or 4
    inner = int(first(config, "mamba_d_ssm", "mamba_intermediate", default=0))
    alone = "num_heads" if config.get("model_type") == "mamba2" else "mamba_num_heads"
    heads = int(first(config, alone, "mamba_n_heads", "n_mamba_heads", default=0))
    size = first(config, "mamba_head_dim", "mamba_d_head", default=0)
    size = size if heads and isinstance(size, int) else 0  # Bamba says "auto"
    expand = int(first(config, "mamba_expand", "expand", default=2))
    inner = inner or heads * size or expand * shape.hidden
    states = int(first(config, "ssm_state_size", "mamba_d_state", "state_size", default=16))
    kernel = int(first(config, "conv_kernel", "mamba_d_conv", "conv_kernel_size", default=4))
    if not heads:  # Mamba 1
        rank = -(-shape.hidden // 16)
        return State("mamba1", (kernel - 1) * inner, inner * states, recurrent_bytes), (
            Tensor("attention", sharded=shape.hidden * 2 * inner),
            Tensor("attention", sharded=inner * (shape.hidden + rank * 2 + 2 * states)),
            Tensor("router", sharded=inner * (2 * states + kernel)),  # A is kept in fp32
        )
    groups = int(first(config, "n_groups", "mamba_n_groups", "mamba_ngroups", default=1))
    state = State(
        "mamba2",
        (kernel - 1) * inner,
        heads * (inner // heads) * states,
        recurrent_bytes,
        groups,
        (kernel - 1) * 2 * states,
    )
    return state, (
        Tensor(
            "attention",
            sharded=shape.hidden * (2 * inner + heads),
            kv=shape.hidden * 2 * groups * states,
            kv_heads=groups,
        ),
        Tensor("attention", sharded=shape.hidden * inner),
    )
