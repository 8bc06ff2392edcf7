"""Write what configuration classes take for fields that a config.json leaves out.

Usage, with the Python of an environment that holds vLLM and transformers: ``python tests/tools/class_defaults.py``.
It writes plugins/module_utils/_releases/class_defaults.json, which ``_memory/class_defaults.py`` explains and reads.

Covered are the types of models whose classes vLLM's registry names, those for which vLLM has configuration classes of
its own, and all parts of these. Kept are the fields that sizes are computed from (:data:`FIELDS`).
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

TABLE = Path(__file__).resolve().parents[2] / "plugins/module_utils/_releases/class_defaults.json"

# What plugins/module_utils/_memory reads of a configuration.
_NAMES = """
    attention_chunk_size attention_head_dim attention_k_eq_v attn_layer_indices attn_layer_offset
    attn_layer_period conv_L_cache conv_dim conv_kernel d_model decoder_attention_heads decoder_ffn_dim
    decoder_layers decoder_sparse_step depth embed_dim enable_moe_block encoder_ffn_dim encoder_layers expand
    expert_layer_offset expert_layer_period ffn_dim ffn_hidden_size first_k_dense_replace
    full_attention_interval global_head_dim head_dim hidden_size hidden_size_per_layer_input index_head_dim
    index_n_heads interleave_moe_layer_step intermediate_size intermediate_size_mlp is_encoder_decoder
    kv_lora_rank kv_n_heads layer_types layers_block_type linear_conv_kernel_dim linear_key_head_dim
    linear_num_key_heads linear_num_value_heads linear_value_head_dim mamba_d_conv mamba_d_head mamba_d_ssm
    mamba_d_state mamba_expand mamba_head_dim mamba_n_groups mamba_n_heads mamba_num_heads
    max_position_embeddings max_seq_len max_sequence_length max_target_positions max_window_layers mlp_ratio
    moe_intermediate_size moe_k moe_layer_freq moe_layer_start_index moe_num_experts moe_num_shared_experts
    moe_top_k moe_topk multi_query multi_query_group_num n_embd n_groups n_head n_head_kv n_heads n_inner
    n_layer n_layers n_positions n_routed_experts n_shared_experts new_decoder_architecture num_attention_groups
    num_attention_heads num_experts num_experts_per_tok num_global_key_value_heads num_heads num_hidden_layers
    num_key_value_heads num_kv_heads num_kv_shared_layers num_layers num_local_experts num_shared_experts
    original_max_position_embeddings padded_vocab_size partial_rotary_factor q_lora_rank qk_nope_head_dim
    qk_rope_head_dim rotary_pct seq_length shared_expert_intermediate_size shared_intermediate_size
    sliding_window sliding_window_pattern ssm_state_size state_size tie_word_embeddings top_k
    use_double_wide_mlp use_sliding_window v_head_dim vocab_size vocab_size_per_layer_input
"""
FIELDS = frozenset(_NAMES.split())
# Spellings that classes take besides their own names of fields, without saying so.
UNSAID = {"n_embed": "hidden_size"}
# How classes say that they cannot be made so.
REFUSALS = (
    StrictDataclassError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
PROBE = 48  # a value for these that divides and is divided as sizes are


def classes() -> dict[str, type]:
    """The configuration classes by type of model: vLLM's own come before those of transformers."""
    import transformers.models.auto.modeling_auto as auto
    from transformers import CONFIG_MAPPING
    from vllm.model_executor.models.registry import ModelRegistry
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    served = set(ModelRegistry.get_supported_archs())
    alike = {plain(stem(name)) for name in served}
    found: dict[str, type] = {kind: CONFIG_MAPPING[kind] for kind in CONFIG_MAPPING if plain(kind) in alike}
    for name in dir(auto):
        for kind, listed in getattr(auto, name).items() if name.endswith("_MAPPING_NAMES") else ():
            if served.intersection([listed] if isinstance(listed, str) else listed) and kind in CONFIG_MAPPING:
                found[kind] = CONFIG_MAPPING[kind]
    return found | {kind: _CONFIG_REGISTRY[kind] for kind in _CONFIG_REGISTRY}


def stem(architecture: str) -> str:
    """The name of an architecture without what it is for."""
    return re.split(r"For[A-Z]|Model$", architecture)[0]


def plain(name: str) -> str:
    """A name without what types of models and names of classes differ in."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def fields(cls: type) -> dict[str, Any]:
    """The defaults of a class, as its signature gives them: what it works out from other fields is not there."""
    return {
        name: value
        for name, value in sorted((name, found.default) for name, found in inspect.signature(cls).parameters.items())
        if name in FIELDS and json_like(value) and (name, value) != ("is_encoder_decoder", False)
    }


def json_like(value: Any) -> bool:
    """Whether it is a plain value, or a list of such."""
    if isinstance(value, (list, tuple)):
        return all(json_like(item) for item in value)
    return isinstance(value, (bool, int, float, str))


def names(cls: type) -> dict[str, str]:
    """By what other name a field that vLLM reads is kept: vLLM's name -> the name in config.json."""
    found = {name: own for name, own in getattr(cls, "attribute_map", {}).items() if name in FIELDS}
    accepted = inspect.signature(cls).parameters
    for spelling, name in UNSAID.items():
        if spelling not in accepted and spelling not in found and name not in found:
            with contextlib.suppress(*REFUSALS):
                if getattr(cls(**{spelling: PROBE}), name, None) == PROBE != getattr(cls(), name, None):
                    found[name] = spelling
    return dict(sorted((name, own) for name, own in found.items() if name != own))


def parts(cls: type, instance: Any) -> Iterator[tuple[str, Any, str]]:
    """The parts of a configuration that are configurations: name, the part itself and its type."""
    made = {name for name, value in vars(instance).items() if hasattr(value, "get_text_config")}
    for name in sorted({*(getattr(cls, "sub_configs", None) or {}), *made}):
        part = getattr(instance, name, None)
        if part is not None and hasattr(part, "model_type"):
            yield name, part, part.model_type


def period(instance: Any) -> int | None:
    """How often a class makes a layer see everything that makes windows of the others; None where it does not."""
    kinds = has(instance, "layer_types") or ()
    if set(kinds) == {"full_attention"} and has(instance, "sliding_window"):
        return 1
    if set(kinds) != {"full_attention", "sliding_attention"}:
        return None
    full = [number for number, kind in enumerate(kinds) if kind == "full_attention"]
    for every in range(2, 9):
        if full in (list(range(every - 1, len(kinds), every)), list(range(0, len(kinds), every))):
            return every
    return None


def changes(part: Any) -> dict[str, Any]:
    """What a part that another class has made differs in from one that its own class makes of nothing."""
    try:
        own = type(part)()
    except REFUSALS:  # it cannot be made without fields: nothing to compare with
        return {}
    told = {field: has(part, field) for field in sorted(FIELDS)}
    return {field: value for field, value in told.items() if json_like(value) and value != has(own, field)}


def has(config: Any, field: str) -> Any:
    """A field of a configuration; None where layers differ in it."""
    try:
        return getattr(config, field, None)
    except REFUSALS:  # AmbiguousGlobalPerLayerAttributeError
        return None


def text_part(instance: Any) -> str:
    """Where the language model is: names of parts joined by dots; empty for the configuration itself."""
    try:
        text = instance.get_text_config()
    except REFUSALS:  # several parts could be meant, and vLLM does not start either
        return ""
    for name, part, _ in () if text is instance else parts(type(instance), instance):
        if part is text:
            return name
        inner = next((key for key, deeper, _ in parts(type(part), part) if deeper is text), None)
        if inner:
            return f"{name}.{inner}"
    return ""


def table() -> dict[str, dict[str, Any]]:
    """The rows, by type of model."""
    rows: dict[str, dict[str, Any]] = {}
    waiting = sorted(classes().items())
    while waiting:
        kind, cls = waiting.pop()
        if kind in rows:
            continue
        row: dict[str, Any] = {"set": fields(cls), "names": names(cls)}
        try:
            instance = cls()
        except REFUSALS as error:
            print(f"{kind}: its parts are not known ({str(error)[:80]})")
        else:
            if every := period(instance):
                row["set"]["sliding_window_pattern"] = every
            row |= {"parts": {}, "text": text_part(instance), "absent": {}, "present": {}}
            for name, part, inner in parts(cls, instance):
                row["parts"][name] = inner or f"{kind}.{name}"
                waiting.insert(0, (row["parts"][name], type(part)))
                own = fields(type(part))
                if changes(part):  # then what the part works out from its fields is told, too
                    row["absent"][name] = {
                        field: value
                        for field in sorted(FIELDS)
                        if (json_like(value := has(part, field)) or value is None) and value != own.get(field)
                    }
                with contextlib.suppress(*REFUSALS):  # it takes no such part: then no file has it
                    other = getattr(cls(**{name: {"model_type": inner}}), name)
                    row["present"][name] = {field: value for field, value in changes(other).items() if field in own}
            for key in ("absent", "present"):
                row[key] = {name: set_ for name, set_ in row[key].items() if set_}
        rows[kind] = {key: value for key, value in row.items() if value}
    return rows


def written(rows: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """The file: a line for each type."""
    lines = [f"{json.dumps(kind)}: {json.dumps(row, separators=(',', ':'))}" for kind, row in sorted(rows.items())]
    source = {"by": "tests/tools/class_defaults.py", **versions}
    return f'{{"source": {json.dumps(source)},\n"types": {{\n' + ",\n".join(lines) + "\n}}\n"


def main() -> None:
    """Write the file."""
    import transformers
    import vllm

    versions = {"transformers": transformers.__version__, "vllm": vllm.__version__}
    TABLE.write_text(written(table(), versions), encoding="utf-8")


if __name__ == "__main__":
    main()
