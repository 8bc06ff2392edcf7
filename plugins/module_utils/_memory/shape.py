"""The sizes that all layers of a model share, and how a config.json is searched for them; private to the collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._errors import ModelConfigError
from .class_defaults import text_part
from .dialects import common_fields

__all__ = [
    "DTYPE_BYTES",
    "NOT_MLA",
    "Shape",
    "first",
    "read_shape",
    "text_config",
]

DTYPE_BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2, "float8_e4m3fn": 1}
# Feed-forward parts of two matrices rather than three (transformers' modelling code of these types).
_UNGATED = frozenset(
    {
        "phi", "gpt2", "gptj", "gpt_neox", "gpt_neo", "gpt_bigcode", "opt", "falcon", "bloom", "mpt", "starcoder2",
        "nemotron", "nemotron_h", "codegen", "stablelm_epoch", "persimmon", "bert", "roberta", "xlm-roberta", "arcee",
        "RefinedWeb", "RefinedWebModel", "whisper", "jais2", "modernbert_decoder",
    }
)  # fmt: skip
# Models whose latent attention vLLM runs as ordinary attention (model_arch_config_convertor.py, is_deepseek_mla).
NOT_MLA = frozenset({"minicpm3"})


def first(config: Mapping[str, Any], *keys: str, default: Any = None) -> Any:
    """The first of these keys that holds something."""
    for key in keys:
        if config.get(key) is not None:
            return config[key]
    return default


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's part of a completed config; keys that the part lacks are taken from the outer one."""
    known = text_part(config)
    if known is not None:
        return common_fields({**_without_parts(config), **known})
    for key in ("text_config", "llm_config", "language_config", "thinker_config", "language_model"):
        inner = config.get(key)
        if isinstance(inner, Mapping) and inner:
            return {**_without_parts(config), **text_config(inner)}
    return common_fields(config)


def _without_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config that are no configs of parts."""
    return {k: v for k, v in config.items() if not isinstance(v, Mapping) or k.startswith(("rope", "quant"))}


@dataclass(frozen=True)
class Shape:
    """The sizes that all layers share."""

    hidden: int
    heads: int
    kv_heads: int
    head: int
    intermediate: int
    gated: bool


# By what names a configuration gives its key/value heads (transformers_utils/config.py, CONFIG_FIELD_ALIASES).
_KV_HEADS = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")


def _kv_heads(config: Mapping[str, Any], heads: int) -> int:
    """Key/value heads; all heads when the config names none, in its parts neither (multi-head attention)."""
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1  # Falcon; GPT-BigCode
    found = first(config, *_KV_HEADS)
    parts = (part for part in config.values() if found is None and isinstance(part, Mapping))
    found = found or next(filter(None, (first(part, "kv_n_heads", *_KV_HEADS) for part in parts)), heads)
    if isinstance(found, Sequence):
        found = max(found, default=heads)
    return int(found)


def read_shape(text: Mapping[str, Any]) -> Shape:
    heads = int(first(text, "num_attention_heads", "n_head", "num_heads", "n_heads", default=0) or 0)
    hidden = int(first(text, "hidden_size", "n_embd", "d_model", "dim", default=0) or 0)
    if hidden < 1:
        raise ModelConfigError("config.json gives no hidden_size: this is not the config of a language model")
    head = int(first(text, "head_dim", "hidden_size_per_head", "attention_head_dim", default=0) or 0)
    if text.get("model_type") in NOT_MLA:
        head = int(text["qk_nope_head_dim"]) + int(text["qk_rope_head_dim"])  # values are padded to it
    head = head or (hidden // heads if heads else 0)
    width = first(text, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "ffn_hidden_dim", default=0)
    if isinstance(width, Sequence):  # one for each layer
        width = max(width, default=0)
    model_type = str(text.get("model_type", ""))
    has_moe = first(text, "moe_intermediate_size", default=0)
    pure_state = model_type in ("mamba", "mamba2", "falcon_mamba", "nemotron_h")
    width = max(0, int(width or (0 if has_moe or pure_state else 4 * hidden)))
    if model_type in ("mamba", "mamba2", "falcon_mamba"):
        width = 0
    return Shape(hidden, heads, _kv_heads(text, heads), head, width, model_type not in _UNGATED)
