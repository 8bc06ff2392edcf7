"""Models in Mistral's own format: params.json instead of config.json; private to the collection.

The translation is vLLM's (0.33, ``transformers_utils/configs/mistral.py``, ``adapt_config_dict``), as far as sizes go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .model import MOST_LAYERS

__all__ = ["is_params", "translated"]

_NAMES = {
    "dim": "hidden_size",
    "n_kv_heads": "num_key_value_heads",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "tied_embeddings": "tie_word_embeddings",
}
_EXPERTS = {
    "route_every_n": "moe_layer_freq",
    "first_k_dense_replace": "first_k_dense_replace",
    "num_experts_per_tok": "num_experts_per_tok",
    "num_experts": "n_routed_experts",
    "expert_hidden_dim": "moe_intermediate_size",
    "num_shared_experts": "n_shared_experts",
}
_SEES = "PixtralForConditionalGeneration"
_LONGEST = 128_000  # tokens, where params.json names no length


def is_params(config: Mapping[str, Any]) -> bool:
    """Whether it is the content of a params.json: no config.json calls a model's sizes so, and has no type."""
    return {"dim", "n_layers"} <= config.keys() and not config.get("hidden_size")


def translated(params: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json would say of the same model."""
    text: dict[str, Any] = {_NAMES.get(name, name): value for name, value in params.items()}
    text |= {
        "model_type": params.get("model_type") or "transformer",
        "max_position_embeddings": params.get("max_position_embeddings") or params.get("max_seq_len") or _LONGEST,
        "tie_word_embeddings": bool(params.get("tied_embeddings")),
        "architectures": ["MistralForCausalLM"],
    }
    text |= _windows(text.get("sliding_window"), int(text["num_hidden_layers"]))
    moe = text.pop("moe", None)
    if text["model_type"] == "mamba":
        text["architectures"] = ["Mamba2ForCausalLM"]
    elif isinstance(moe, Mapping) and moe:
        text |= {_EXPERTS[name]: value for name, value in moe.items() if name in _EXPERTS}
        text["architectures"] = ["MixtralForCausalLM"]
        if moe.get("num_shared_experts"):
            text |= {"model_type": "deepseek_v3", "architectures": ["MistralLarge3ForCausalLM"]}
    text |= _scaling(text.pop("yarn", None), params.get("rope_theta"))
    text |= _quantized(text.pop("quantization", None))
    return _with_encoder(text)


def _windows(windows: Any, count: int) -> dict[str, Any]:
    """A list of windows, null where a layer sees everything, is repeated over the layers."""
    if not isinstance(windows, (list, tuple)) or not windows:
        return {}
    kinds = ["full_attention" if window is None else "sliding_attention" for window in windows]
    repeated = kinds * (min(count, MOST_LAYERS) // len(kinds))
    return {"layer_types": repeated, "sliding_window": next(filter(None, windows), None)}


def _scaling(yarn: Any, theta: Any) -> dict[str, Any]:
    """The rope of longer contexts."""
    if not isinstance(yarn, Mapping) or not yarn:
        return {}
    original = yarn.get("original_max_position_embeddings")
    rope = {"rope_type": "yarn", "factor": yarn.get("factor"), "original_max_position_embeddings": original}
    return {"rope_parameters": {**rope, "rope_theta": theta}}


def _quantized(said: Any) -> dict[str, Any]:
    """FP8 by Mistral's own words, or compressed-tensors by its own."""
    if not isinstance(said, Mapping) or not said:
        return {}
    if said.get("qformat_weight") == "fp8_e4m3":
        dynamic = said.get("qscheme_act") == "NO_SCALES"
        return {"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic" if dynamic else "static"}}
    return {"quantization_config": dict(said)}


def _with_encoder(text: dict[str, Any]) -> dict[str, Any]:
    """The language model and its encoder of pictures or sounds, each as a part."""
    multimodal = text.pop("multimodal", None) or {}
    vision = text.pop("vision_encoder", None) or multimodal.get("vision_encoder_args")
    audio = (multimodal.get("whisper_model_args") or {}).get("encoder_args")
    if not vision and not audio:
        return text
    outer = {key: text.pop(key) for key in ("quantization_config",) if key in text}
    encoder = {_NAMES.get(name, name): value for name, value in (vision or audio or {}).items()}
    if vision:
        part = {"vision_config": {**encoder, "model_type": "pixtral"}}
        return {**outer, "model_type": "pixtral", "architectures": [_SEES], "text_config": text, **part}
    name = "VoxtralRealtimeGeneration" if encoder.get("causal") else "VoxtralForConditionalGeneration"
    return {**outer, "model_type": "voxtral", "architectures": [name], "text_config": text, "audio_config": encoder}
