"""Bytes of a model's weights in its files; private to the collection."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .model import Layer, Quantization, Tensor, Weights
from .shape import Shape

__all__ = ["formula_bytes", "stored_bytes", "weights_from_headers"]

_TOWER_NAMES = re.compile(r"vision|visual|image|audio|multi_modal|mm_projector|merger|patch_embed|vit\b|perceiver")


def weights_from_headers(headers: Mapping[str, Any]) -> Weights:
    """Bytes of the weights from safetensors headers: name -> {``dtype``, ``shape``} or {``data_offsets``}.

    What belongs to a vision or audio tower is told by its name. Entries that are not tensors (``__metadata__``)
    are skipped.
    """
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "F4": 0.5}
    total = tower = 0.0
    for name, entry in headers.items():
        if name == "__metadata__" or not isinstance(entry, Mapping):
            continue
        if entry.get("data_offsets"):
            count = float(entry["data_offsets"][1] - entry["data_offsets"][0])
        else:
            count = float(sizes.get(str(entry.get("dtype")), 1))
            for side in entry.get("shape", ()):
                count *= side
        total += count
        if _TOWER_NAMES.search(name):
            tower += count
    return Weights(int(total), int(tower), "headers")


def stored_bytes(tensor: Tensor, dtype_bytes: float, quantization: Quantization | None) -> float:
    """Bytes of a tensor in the files (all shards together)."""
    if tensor.role == "absorbed":
        return 0.0
    if quantization is not None and tensor.role in quantization.roles:
        return tensor.elements() * quantization.bytes_per_weight
    return tensor.elements() * dtype_bytes


def formula_bytes(layers: Sequence[Layer], shape: Shape, vocabulary: int, tied: bool, dtype_bytes: int,
                   quantization: Quantization | None) -> int:  # fmt: skip
    body = sum(stored_bytes(t, dtype_bytes, quantization) for layer in layers for t in layer.tensors)
    return int(body + vocabulary * shape.hidden * dtype_bytes * (1 if tied else 2))
