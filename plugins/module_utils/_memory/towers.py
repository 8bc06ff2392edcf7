"""The vision towers of multimodal models; private to the collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .model import Tower
from .shape import first

__all__ = ["TOWERS", "TOWER_DEFAULT", "tower_bytes"]

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


def tower_bytes(config: Mapping[str, Any], dtype_bytes: int) -> int:
    """Bytes of the vision tower by the formula of a ViT: 4 h^2 + 2 h i per layer; 0 when the sizes are not given."""
    vision = config.get("vision_config") or {}
    if not isinstance(vision, Mapping):
        return 0
    hidden = int(first(vision, "hidden_size", "embed_dim", default=0) or 0)
    depth = int(first(vision, "num_hidden_layers", "depth", default=0) or 0)
    width = int(first(vision, "intermediate_size", default=4 * hidden) or 0)
    return depth * (4 * hidden * hidden + 2 * hidden * width) * dtype_bytes
