"""How a model's weights are stored, from its ``quantization_config``; private to the collection."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .model import Quantization

__all__ = ["read_kv_dtype", "read_quantization"]

_LINEAR = frozenset({"attention", "mlp", "expert"})


def _modules_kept(config: Mapping[str, Any]) -> str:
    """The names of the modules that a quantisation config leaves alone, as one text."""
    names: list[str] = []
    for key in ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules", "llm_int8_skip_modules"):
        value = config.get(key)
        if isinstance(value, (list, tuple)):
            names.extend(str(name) for name in value)
    return "\n".join(names)


def _compressed_group(config: Mapping[str, Any]) -> Mapping[str, Any]:
    groups = config.get("config_groups") or {}
    first: Any = next(iter(groups.values()), {}) if isinstance(groups, Mapping) else {}
    return first.get("weights") or {} if isinstance(first, Mapping) else {}


def _integer_bytes(bits: int, group: int, symmetric: bool) -> float:
    """Bytes per weight of AWQ, GPTQ and pack-quantized: packed bits, an fp16 scale per group, zero points if any."""
    zero_points = 0.0 if symmetric else bits / 8 / group
    return bits / 8 + 2 / group + zero_points


# What each method stores per weight, besides what is computed from bits and group size below.
# fp8 block 128x128: one fp32 scale per 16384 weights. mxfp4: one byte scale per 32. nvfp4: one byte per 16.
# bitsandbytes nf4, double quantisation: 8-bit scale per 64 weights and fp32 per 256 scales.
_STORED_BYTES = {
    "fp8": 1 + 4 / 16384,
    "fbgemm_fp8": 1.0,
    "modelopt": 1.0,
    "modelopt_fp4": 0.5625,
    "nvfp4": 0.5625,
    "mxfp4": 0.5 + 1 / 32,
    "gpt_oss_mxfp4": 0.5 + 1 / 32,
    "mxfp8": 1 + 1 / 32,
    "modelopt_mxfp8": 1 + 1 / 32,
    "bitsandbytes": 0.5 + 1 / 64 + 4 / 64 / 256,
    "experts_int8": 1.0,
}


def _quantized_bytes(method: str, config: Mapping[str, Any]) -> tuple[int, float, int]:
    """(bits, bytes per weight, group size) of a quantisation config."""
    group = int(config.get("group_size") or 0)
    bits = int(config.get("bits") or config.get("w_bit") or 0)
    if method in ("awq", "gptq", "auto-round", "moe_wna16", "awq_marlin", "gptq_marlin", "inc"):
        bits, group = bits or 4, group if group > 0 else 128
        return bits, _integer_bytes(bits, group, bool(config.get("sym", "gptq" in method))), group
    if method in ("compressed-tensors", "compressed_tensors"):
        weights = _compressed_group(config)
        bits = int(weights.get("num_bits") or bits or 8)
        group = int(weights.get("group_size") or 0)
        if bits == 4 and weights.get("type") == "float":
            return 4, 0.5625, group or 16
        if bits == 4:
            group = group or 128
            return 4, _integer_bytes(4, group, bool(weights.get("symmetric", True))), group
        return bits, bits / 8, max(group, 0)
    if method == "bitsandbytes" and config.get("load_in_8bit"):
        return 8, 1.0, 0
    stored = _STORED_BYTES.get(method)
    if stored is None:
        stored = (bits or 8) / 8
    return bits or (8 if stored >= 1 else 4), stored, group


def _activation_scheme(method: str, raw: Mapping[str, Any]) -> str | None:
    """Methods whose fp8 activations need kernels of their own (``quark.py``, ``compressed_tensors.py``)."""

    def part(*keys: str) -> Mapping[str, Any]:
        found: Any = raw
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    if method == "quark":
        types = [part("global_quant_config", name).get("dtype") for name in ("weight", "input_tensors")]
        return "quark_w8a8_fp8" if types == ["fp8_e4m3"] * 2 else None
    weights, inputs = _compressed_group(raw), part("config_groups", "group_0", "input_activations")
    four_bits = method.startswith("compressed") and (weights.get("num_bits"), weights.get("type")) == (4, "int")
    return "w4a8_fp8" if four_bits and (inputs.get("num_bits"), inputs.get("type")) == (8, "float") else None


# What ModelOpt calls its methods, and what vLLM does (model_arch_config_convertor.py, _normalize_quantization_config).
_MODELOPT = {"NVFP4": "modelopt_fp4", "MIXED_PRECISION": "modelopt_mixed"}


def _raw(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The quantisation that a configuration tells; what ModelOpt says in a part of it is in it itself then."""
    raw = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(raw, Mapping):
        return {}
    inner = raw.get("quantization")
    if isinstance(inner, Mapping):
        raw = {**raw, **inner}
        algorithm = str(raw.get("quant_algo") or "").upper()
        if algorithm and not raw.get("quant_method"):
            raw["quant_method"] = _MODELOPT.get(algorithm, "modelopt")
    return raw


def read_kv_dtype(config: Mapping[str, Any]) -> str:
    """The KV cache's type that the files ask for; ``auto`` where they ask for none.

    Sources: vLLM 0.33 ``utils/torch_utils.py`` (``get_kv_cache_quant_algo_string``, for ModelOpt's methods) and
    ``layers/attention/attention.py`` (any scheme of compressed-tensors is fp8).
    """
    raw = _raw(config)
    method = str(raw.get("quant_method") or "").lower().replace("_", "-")
    scheme = raw.get("kv_cache_scheme")
    if method == "compressed-tensors":
        return "fp8" if scheme else "auto"
    if not method.startswith("modelopt"):
        return "auto"
    scheme = scheme or raw.get("kv_cache_quant_algo")
    if isinstance(scheme, Mapping):
        known = scheme.get("type") == "float"
        if known and scheme.get("num_bits") == 8 and scheme.get("dynamic") is False:
            return "fp8"
        return "nvfp4" if known and scheme.get("num_bits") == 4 else "auto"
    return {"fp8": "fp8_e4m3", "nvfp4": "nvfp4"}.get(str(scheme).lower(), "auto")


def read_quantization(config: Mapping[str, Any], model_type: str) -> Quantization | None:
    """How the weights of a model are stored, by its configuration; None where it says nothing of it."""
    raw = _raw(config)
    if not raw.get("quant_method", raw.get("quant_algo")):
        return None
    method = str(raw.get("quant_method") or raw.get("quant_algo")).lower()
    if method == "modelopt" and "fp4" in str(raw.get("quant_algo", "")).lower():
        method = "modelopt_fp4"
    scheme = _activation_scheme(method, raw)
    bits, stored, group = _quantized_bytes(method, raw)
    roles = _LINEAR
    if method in ("mxfp4", "gpt_oss_mxfp4") or model_type == "gpt_oss":
        roles = frozenset({"expert"})  # gpt-oss and its kin quantise the experts alone
    kept = _modules_kept(raw)
    if re.search(r"self_attn|attention|\bq_proj|\bqkv", kept):
        roles -= {"attention"}
    if re.search(r"shared_expert|layers\.0\.mlp|\.mlp\.(gate|up|down)_proj", kept):
        roles -= {"mlp"} if "expert" in roles else frozenset()
    block = raw.get("weight_block_size")
    return Quantization(
        scheme or method,
        bits,
        stored,
        roles,
        group,
        (int(block[0]), int(block[1])) if isinstance(block, (list, tuple)) else None,
    )
