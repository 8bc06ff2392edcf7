"""The vision towers of multimodal models; private to the collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .model import Tower
from .shape import first

__all__ = ["TOWERS", "TOWER_DEFAULT", "tower_bytes", "towers_of"]

# Pictures as the processors cut them. From the models' processor configs: Gemma 3: 896x896 pixels, 256 tokens.
# Qwen2/2.5-VL: patches of 14, two frames, 2x2 merged, at most 16384 tokens; films of at most 14 frames (vLLM
# models/qwen2_vl.py). Qwen3-VL: patches of 16, else alike, three tapped layers (DeepStack), films as long as the
# context and with time stamps between the frames. Kimi-VL: patches of 14, 2x2 merged.
_QWEN2_VL = Tower(16384, 2 * 3 * 14 * 14 * 4 * 2, film_tokens=7 * 16384, hidden=1280, working=3 * 3420)
_QWEN3_VL = Tower(16384, 2 * 3 * 16 * 16 * 4 * 2, 4, 12288 * 16384, True, hidden=1152, working=2 * 4304)
TOWERS: dict[str, Tower] = {
    "gemma3": Tower(256, 3 * 896 * 896 * 2 // 256, patches=16, hidden=1152, working=2 * 4304),
    "qwen2_vl": _QWEN2_VL,
    "qwen2_5_vl": _QWEN2_VL,
    "qwen3_vl": _QWEN3_VL,
    "qwen3_vl_moe": _QWEN3_VL,
    "kimi_vl": Tower(4096, 3 * 14 * 14 * 4 * 2, hidden=1152, working=2 * 4304),
}
TOWER_DEFAULT = Tower(4096, 3 * 14 * 14 * 4 * 2)


# Parts of a configuration that are encoders of pictures and sounds, wherever they stand.
_PARTS = ("vision_config", "audio_config", "encoder_config", "sound_config", "speech_config", "audio_encoder_config")
# Towers whose feed-forward part has a gate (transformers' modelling code of these types).
_GATED = frozenset(
    {"aimv2", "glm4v_vision", "pixtral", "qwen2_5_omni_vision_encoder", "qwen2_5_vl", "qwen2_5_vl_vision"}
)


def towers_of(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The encoders of pictures and sounds that a completed configuration has."""
    outer = [config, *(part for part in (config.get("thinker_config"),) if isinstance(part, Mapping))]
    found = [part[name] for part in outer for name in _PARTS if isinstance(part.get(name), Mapping)]
    if config.get("encoder_layers"):  # Whisper: the encoder's sizes stand beside the decoder's
        found.append({"hidden_size": config.get("d_model"), **{k: v for k, v in config.items() if "encoder" in k}})
    return [part for part in found if part]


def tower_bytes(config: Mapping[str, Any], dtype_bytes: int) -> int:
    """Bytes of the encoders of a model in its files: per layer 4 h^2 for attention and 2 h i (3 h i with a gate) more.

    Where the sizes are not given they count as nothing. ``dtype_bytes`` are those of an element.
    """
    return sum(_elements(tower) for tower in towers_of(config)) * dtype_bytes


def _elements(tower: Mapping[str, Any]) -> int:
    hidden = int(first(tower, "embed_dim", "hidden_size", "d_model", "width", default=0) or 0)
    depth = first(tower, "num_hidden_layers", "depth", "encoder_layers", "num_layers", "layers", default=0) or 0
    if not isinstance(depth, int):  # stages of a convolutional tower
        return 0
    ratio = float(first(tower, "mlp_ratio", default=4))
    width = int(first(tower, "intermediate_size", "encoder_ffn_dim", "ffn_dim", default=ratio * hidden) or 0)
    up = 3 if tower.get("model_type") in _GATED else 2
    return depth * (4 * hidden * hidden + up * hidden * width)
