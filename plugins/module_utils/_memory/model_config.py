"""Reads a model's ``config.json``; private to the collection.

A pure function, :func:`read_model`, turns the mapping into a frozen :class:`ModelSpec`. The parts have files of their
own: ``shape`` (sizes that all layers share), ``layers`` with ``layer_kinds``, ``states`` and ``feed_forward``,
``quantization``, ``towers``, ``context_length``, ``weight_files``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .._errors import ModelConfigError
from .._releases.architectures import CHECKED_TYPES, ENCODER_ONLY
from .class_defaults import completed, known_types
from .context_length import max_model_len, original_len, rope_elements, scaled_len
from .feed_forward import read_moe
from .layer_kinds import LETTERS
from .layers import read_layers
from .mistral_format import is_params, translated
from .model import LINEAR, MOST_LAYERS, NONE, ModelSpec, Weights
from .quantization import read_kv_dtype, read_quantization
from .shape import DTYPE_BYTES, first, read_shape, text_config
from .towers import TOWER_DEFAULT, TOWERS, tower_bytes, towers_of
from .weight_files import formula_bytes, weights_from_headers

__all__ = ["UNKNOWN_BAND", "read_model"]

# By how much the weights of a model that is not known may be wrong, one sigma; account.py has it, too.
UNKNOWN_BAND = 0.1


def _warnings(kind: str, nearest: str, architecture: str, text: Mapping[str, Any]) -> tuple[str, ...]:
    """What an operator should know of a model: ``kind`` is what it says to be, ``nearest`` what it is taken for."""
    notes = []
    if kind not in CHECKED_TYPES and str(text.get("model_type")) not in CHECKED_TYPES:
        notes.append(
            f"architecture {architecture or kind or 'unnamed'} is not one the weight and memory formulas were checked"
            f" with: its layers are taken for those of {nearest or 'a plain transformer'}, and the error band is wide"
            f" (weights within {2 * UNKNOWN_BAND:.0%})"
        )
    if text.get("compress_ratios"):
        notes.append("layers of this model differ from each other in ways the formulas do not follow")
    return tuple(notes)


def _nearest_type(architecture: str) -> str:
    """The type of model whose architecture this is, or the nearest; empty where there is none.

    vLLM takes the class by the architecture, whatever the type of a configuration is called.
    """
    stem = re.sub(r"[^a-z0-9]", "", re.split(r"For[A-Z]|Model$", architecture)[0].lower())
    return next((kind for kind in sorted(CHECKED_TYPES) if stem and re.sub(r"[^a-z0-9]", "", kind.lower()) == stem), "")


_POOLING = re.compile(r"(ForSequenceClassification|EmbeddingModel|RewardModel|ForTokenClassification|BertModel)$")


def read_model(
    config: Mapping[str, Any],
    *,
    headers: Mapping[str, Any] | None = None,
    total_bytes: int | None = None,
) -> ModelSpec:
    """Read a ``config.json`` (as a mapping) into a :class:`ModelSpec`.

    ``headers`` are the merged headers of the safetensors files; ``total_bytes`` their size when the headers are not
    at hand (the index's ``total_size``). Without both, the weights come from the config alone.

    Raises :class:`ModelConfigError` when the mapping names no hidden size or layers, or fields that do not go
    together. An architecture that is not known gives a spec with ``known`` False and a warning, never an error.
    """
    if not isinstance(config, Mapping):
        raise ModelConfigError("config.json must hold a mapping")
    try:
        return _read(config, headers, total_bytes)
    except ModelConfigError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelConfigError(f"the fields of config.json do not go together: {error!r}") from error


def _hold_against(total_bytes: int, formula: int, *, known: bool) -> None:
    """Raise ModelConfigError where the files cannot be those of a model; ``known``: the formulas follow it.

    No type that weights are kept in is so far from the one that the configuration names: float32 has twice the bytes of
    bfloat16, two bits an eighth. The formulas are not a hundred times wrong for any architecture.
    """
    least, most = (formula / 10, formula * 5) if known else (formula / 100, formula * 100)
    if total_bytes < 1 or not least <= total_bytes <= most:
        raise ModelConfigError(
            f"its files are said to have {total_bytes} bytes, but by its configuration they have about {formula}"
        )


def _read(config: Mapping[str, Any], headers: Mapping[str, Any] | None, total_bytes: int | None) -> ModelSpec:
    """The work of :func:`read_model`."""
    config = completed(translated(config) if is_params(config) else config)
    text = text_config(config)
    if text.get("model_type") == "nemotron_h" and isinstance(text.get("layers_block_type"), Sequence):
        text["hybrid_override_pattern"] = "".join(LETTERS[kind] for kind in text.pop("layers_block_type"))
    model_type, text_type = str(config.get("model_type") or ""), str(text.get("model_type") or "")
    architectures = config.get("architectures") or text.get("architectures") or [""]
    architecture = str(architectures[0])
    nearest = "" if text_type in known_types() or text_type in CHECKED_TYPES else _nearest_type(architecture)
    if nearest:
        text["model_type"] = nearest
    shape = read_shape(text)
    count = int(first(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers", default=0) or 0)
    count = count or len(first(text, "hybrid_override_pattern", "layers_block_type", "layer_types", default=""))
    if count < 1:
        raise ModelConfigError("config.json gives no number of layers: this is not the config of a language model")
    if count > MOST_LAYERS:
        raise ModelConfigError(f"config.json says that it has {count} layers, which no model has")
    dtype = str(first(text, "dtype", "torch_dtype", default=first(config, "dtype", "torch_dtype", default="bfloat16")))
    dtype_bytes = DTYPE_BYTES.get(dtype, 2)
    moe = read_moe(text)
    layers = read_layers(text, shape, moe, count)
    if architecture in ENCODER_ONLY or text.get("is_causal", config.get("is_causal")) is False:
        layers = tuple(replace(layer, kind=NONE) for layer in layers)
    keeping = [layer for layer in layers if layer.kind not in (LINEAR, NONE)]
    if any(min(layer.kv_heads, layer.head_size, layer.value_size or 1) < 1 for layer in keeping):
        raise ModelConfigError("config.json gives no attention heads, or heads without a size")
    quantization = read_quantization({**text, **config}, model_type)
    pooling = architecture in ENCODER_ONLY or bool(_POOLING.search(architecture))
    # What pools has no output layer; of a model that sees, the outer configuration decides (config/vllm.py,
    # with_hf_config).
    tied = pooling or bool(first(config, "tie_word_embeddings", default=text.get("tie_word_embeddings", False)))
    vocabulary = int(first(text, "vocab_size", "padded_vocab_size", default=0) or 0)
    multimodal = bool(towers_of(config)) or any(config.get(key) for key in ("visual", "vision_tower"))
    formula = formula_bytes(layers, shape, vocabulary, tied, dtype_bytes, quantization)
    tower = tower_bytes(config, dtype_bytes) if multimodal else 0
    weights = Weights(formula + tower, tower, "formula")
    notes = _warnings(model_type, nearest, architecture, {**text, "model_type": text_type})
    if headers:
        found = weights_from_headers(headers)
        _hold_against(found.total_bytes, weights.total_bytes, known=not notes)
        weights = found
    elif total_bytes is not None:
        _hold_against(int(total_bytes), weights.total_bytes, known=not notes)
        weights = Weights(int(total_bytes), max(0, int(total_bytes) - formula) if multimodal else 0, "size")
    length = max_model_len(text)
    if length < 1:
        raise ModelConfigError(f"config.json says that the longest context is {length} tokens")
    seen = TOWERS.get(model_type, TOWER_DEFAULT) if multimodal else None
    return ModelSpec(
        architecture=architecture,
        model_type=model_type,
        layers=layers,
        hidden=shape.hidden,
        intermediate=shape.intermediate,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head,
        vocabulary=vocabulary,
        tied_embeddings=tied,
        dtype=dtype,
        dtype_bytes=dtype_bytes,
        max_len=length,
        original_len=original_len(text, length),
        rope_elements=rope_elements(text, shape, length, multimodal),
        gated=shape.gated,
        weights=weights,
        moe=moe,
        quantization=quantization,
        tower=seen,
        rope_len=scaled_len(text),
        kv_dtype=read_kv_dtype({**text, **config}),
        pooling=pooling,
        known=not notes,
        warnings=notes,
    )
