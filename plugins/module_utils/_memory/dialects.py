"""Configurations that say in words of their own what others say in common ones; private to the collection.

Each function gives the common fields of one family, as vLLM 0.33 works them out (``model_arch_config_convertor.py`` and
the model's own file, named beside each).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["common_fields"]

_Fields = dict[str, Any]


def common_fields(text: Mapping[str, Any]) -> _Fields:
    """The configuration of a language model with its family's own fields translated to the common ones."""
    family = _FAMILIES.get(str(text.get("model_type")))
    if family is None and text.get("is_encoder_decoder") and text.get("decoder_layers"):
        family = _encoder_decoder
    return {**text, **family(text)} if family else dict(text)


def _part(text: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """A mapping inside a configuration; an empty one where there is none."""
    found: Any = text
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _dbrx(text: Mapping[str, Any]) -> _Fields:
    """Heads and experts are in parts (``DbrxModelArchConfigConvertor``, ``models/dbrx.py``)."""
    attention, experts = _part(text, "attn_config"), _part(text, "ffn_config")
    return {
        "num_key_value_heads": attention.get("kv_n_heads") or text.get("num_attention_heads"),
        "moe_intermediate_size": experts.get("ffn_hidden_size"),
        "num_experts": experts.get("moe_num_experts"),
        "num_experts_per_tok": experts.get("moe_top_k"),
    }


def _encoder_decoder(text: Mapping[str, Any]) -> _Fields:
    """The decoder has the cache (``models/whisper.py``); transformers calls the encoder's heads the model's."""
    heads = text.get("decoder_attention_heads")
    return {
        "num_hidden_layers": text["decoder_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": text.get("decoder_ffn_dim"),
    }


def _cohere_asr(text: Mapping[str, Any]) -> _Fields:
    """The decoder of earlier files is a part (``CohereAsrModelArchConfigConvertor``)."""
    decoder = _part(text, "transf_decoder", "config_dict")
    names = {
        "hidden_size": "hidden_size",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_attention_heads",
        "num_key_value_heads": "num_attention_heads",
        "intermediate_size": "inner_size",
        "max_position_embeddings": "max_sequence_length",
    }
    return {name: decoder[own] for name, own in names.items() if decoder.get(own)}


def _nemotron_nas(text: Mapping[str, Any]) -> _Fields:
    """Every layer has its own groups of heads and width, or none (``models/nemotron_nas.py``)."""
    heads, kinds, widths = [], [], []
    for block in text.get("block_configs") or ():
        attention, feed = _part(block, "attention"), _part(block, "ffn")
        idle = attention.get("no_op") or attention.get("replace_with_linear")
        kinds.append("mlp" if idle else "full_attention")
        heads.append(0 if idle else int(text["num_attention_heads"]) // int(attention["n_heads_in_group"]))
        multiple = float(feed.get("ffn_mult") or 0)
        width = int(2 * multiple * int(text["hidden_size"]) / 3)
        widths.append(0 if feed.get("no_op") else -(-width // 256) * 256)
    return {"num_key_value_heads": heads, "layer_types": kinds, "intermediate_size": widths} if heads else {}


def _longcat(text: Mapping[str, Any]) -> _Fields:
    """Two attentions and two dense parts in a layer, and one mixture of experts (``models/longcat_flash.py``)."""
    count = int(text.get("num_layers") or int(text["num_hidden_layers"]) // 2)
    return {
        "num_hidden_layers": 2 * count,
        "decoder_sparse_step": 2,
        "enable_moe_block": True,
        "moe_intermediate_size": text.get("expert_ffn_hidden_size") or text.get("moe_intermediate_size"),
    }


def _gemma4(text: Mapping[str, Any]) -> _Fields:
    """Heads of layers that see everything are larger (transformers, ``Gemma4TextConfig``)."""
    return {} if text.get("per_layer_config") else {"global_head_dim": text.get("global_head_dim") or 512}


_FAMILIES: dict[str, Callable[[Mapping[str, Any]], _Fields]] = {
    "cohere_asr": _cohere_asr,
    "dbrx": _dbrx,
    "gemma4_text": _gemma4,
    "longcat_flash": _longcat,
    "nemotron-nas": _nemotron_nas,
}
