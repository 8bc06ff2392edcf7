"""Configurations that leave things to their classes, or say them in words of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.class_defaults import (
    completed,
    known_types,
    overridden,
    text_part,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.dialects import common_fields
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.kv_cache import (
    KvOptions,
    layer_specs,
    plan_kv_cache,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model import NONE, ModelSpec
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model
from ansible_collections.gpuhosts.vllm.plugins.module_utils._units import GIB

from tests.tools.class_defaults import FIELDS, TABLE

CASES = Path(__file__).parents[3] / "fixtures" / "cases"


def case(name: str, **changes: Any) -> dict[str, Any]:
    """A configuration of the cases."""
    return dict(json.loads((CASES / f"{name}.json").read_text(encoding="utf-8")), **changes)


def token_bytes(model: ModelSpec) -> int:
    """Bytes per token of all layers, in 16 bits."""
    specs = layer_specs(model, KvOptions(max_model_len=model.max_len))
    return sum(spec.page_bytes // spec.block_size for _, spec in specs)


@pytest.mark.parametrize(
    ("name", "billions", "per_token"),
    [
        # Parameters as the models' cards have them; 2 x layers x key/value heads x size of a head x 2 bytes.
        ("bloom", 7.07, 2 * 30 * 32 * 128 * 2),
        ("dbrx", 131.6, 2 * 40 * 8 * 128 * 2),
        ("gemma3-4b-class-defaults", 4.3, 2 * 34 * 4 * 256 * 2),
        ("llava-class-defaults", 7.06, 2 * 32 * 32 * 128 * 2),
        ("pixtral", 12.7, 2 * 40 * 8 * 128 * 2),
        ("whisper", 1.54, 2 * 2 * 32 * 20 * 64 * 2),  # the decoder's own tokens, and those of the encoder
        ("bge-m3", 0.567, 0),  # its tokens see each other both ways: nothing is kept
        ("qwen3-embedding", 0.596, 2 * 28 * 8 * 128 * 2),
    ],
)
def test_cases_are_sized(name: str, billions: float, per_token: int) -> None:
    model = read_model(case(name))
    assert model.weights.total_bytes / model.dtype_bytes / 1e9 == pytest.approx(billions, rel=0.045)
    assert token_bytes(model) == per_token


def test_the_towers_of_models_that_see_are_counted() -> None:
    # Pixtral's encoder: 24 layers of attention (4 h^2) and a gated part (3 h i), all of them class defaults.
    assert read_model(case("pixtral")).weights.tower_bytes == 2 * 24 * (4 * 1024**2 + 3 * 1024 * 4096)
    assert read_model(case("llava-class-defaults")).weights.tower_bytes == 2 * 24 * (4 * 1024**2 + 2 * 1024 * 4096)


def test_an_encoder_gets_as_many_tokens_of_the_cache_as_a_batch_has() -> None:
    model = read_model(case("whisper"))
    options = KvOptions(max_model_len=448, max_num_batched_tokens=2048)
    plan = plan_kv_cache(model, [10 * GIB], options)
    assert plan.needed_bytes == ((448 + 2048) * token_bytes(model) // 2,)
    assert [group.spec.kind for group in plan.groups] == ["full", "cross"]


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bloom", "hidden_size": 64, "n_layer": 4, "n_head": 16},
        {"model_type": "bloom", "n_embed": 64, "num_hidden_layers": 4, "num_attention_heads": 16},
        {"model_type": "gpt2", "n_embd": 64, "n_layer": 4, "n_head": 16, "vocab_size": 250880},
    ],
)
def test_a_field_has_two_names(config: dict[str, Any]) -> None:
    full = completed(config)
    assert [full[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")] == [64, 4, 16]
    assert full["vocab_size"] == 250880


def test_what_is_said_to_be_nothing_is_no_default() -> None:
    assert completed({"model_type": "mistral"})["sliding_window"] == 4096
    assert completed({"model_type": "mistral", "sliding_window": None})["sliding_window"] is None


def test_a_part_that_is_missing_is_what_its_whole_makes_of_it() -> None:
    whole = completed({"model_type": "paligemma"})
    assert (whole["text_config"]["num_hidden_layers"], whole["text_config"]["num_key_value_heads"]) == (18, 1)
    partial = completed({"model_type": "paligemma", "text_config": {"model_type": "gemma", "num_hidden_layers": 20}})
    assert (partial["text_config"]["num_hidden_layers"], partial["text_config"]["num_attention_heads"]) == (20, 16)


def test_fields_of_a_part_that_stand_one_level_above_are_its() -> None:
    flat = completed({"model_type": "qwen2_vl", "hidden_size": 1536, "num_hidden_layers": 28, "vision_config": {}})
    text = text_part(flat)
    assert text is not None
    assert (text["hidden_size"], text["num_hidden_layers"]) == (1536, 28)
    assert flat["vision_config"]["embed_dim"] == 1280


def test_the_language_model_is_found_where_it_is() -> None:
    inner = text_part(completed({"model_type": "qwen2_5_omni"}))
    assert inner is not None
    assert inner["model_type"] == "qwen2_5_omni_text"
    assert text_part({"model_type": "of_nobody", "text_config": {"hidden_size": 1}}) is None


def test_a_type_that_is_not_known_is_left_alone() -> None:
    config = {"model_type": "of_nobody", "hidden_size": 8}
    assert completed(config) == config
    assert "of_nobody" not in known_types()


def test_the_table_has_what_vllm_serves() -> None:
    assert len(known_types()) > 250
    assert {"llama", "qwen3", "whisper", "siglip_vision_model", "kimi_vl", "deepseek_v32"} <= known_types()


@pytest.mark.parametrize("key", ["num_key_value_heads", "num_kv_heads", "n_head_kv"])
def test_a_count_that_is_null_is_looked_for_in_the_parts(key: str) -> None:
    config = {"model_type": "of_nobody", "hidden_size": 512, "num_attention_heads": 8, "num_hidden_layers": 2}
    assert read_model({**config, key: None, "attention": {"kv_n_heads": 2}}).kv_heads == 2
    assert read_model({**config, key: None}).kv_heads == 8


def test_overrides_of_a_part_change_single_fields_of_it() -> None:
    config = {
        "text_config": {"hidden_size": 8, "vocab_size": 16},
        "rope_parameters": {"rope_type": "yarn", "factor": 4},
    }
    changed = overridden(config, {"text_config": {"vocab_size": 32}, "rope_parameters": {"rope_type": "default"}})
    assert changed == {
        "text_config": {"hidden_size": 8, "vocab_size": 32},
        "rope_parameters": {"rope_type": "default"},
    }


def test_the_table_hangs_together() -> None:
    """Every part is of a type that is in it, and what names stand for is read by somebody."""
    rows = json.loads(TABLE.read_text(encoding="utf-8"))["types"]
    assert {kind for row in rows.values() for kind in row.get("parts", {}).values()} <= set(rows)
    assert {name for row in rows.values() for name in row.get("names", {})} <= FIELDS
    sources = "".join(path.read_text(encoding="utf-8") for path in TABLE.parents[1].glob("_memory/*.py"))
    unread = {name for row in rows.values() for name in row.get("set", {}) if f'"{name}"' not in sources}
    assert not unread


def test_layers_that_differ_in_heads_and_width() -> None:
    blocks = [
        {"attention": {"n_heads_in_group": 8}, "ffn": {"ffn_mult": 2.625}},
        {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.3125}},
        {"attention": {"n_heads_in_group": 16}, "ffn": {"no_op": True}},
    ]
    config = {"hidden_size": 8192, "num_attention_heads": 64, "num_hidden_layers": 3, "vocab_size": 128256}
    model = read_model({"model_type": "nemotron-nas", **config, "block_configs": blocks})
    assert [layer.kv_heads for layer in model.layers] == [8, 0, 4]
    assert [layer.intermediate for layer in model.layers] == [14336, 7168, 0]
    assert [layer.kind for layer in model.layers] == ["full", NONE, "full"]


def test_two_attentions_and_one_mixture_in_a_layer() -> None:
    model = read_model({"model_type": "longcat_flash", "num_layers": 2, "expert_ffn_hidden_size": 2048})
    assert [layer.moe for layer in model.layers] == [False, True, False, True]
    assert all(layer.intermediate == 12288 for layer in model.layers)


def test_an_older_cohere_asr_says_its_decoder_apart() -> None:
    decoder = {"hidden_size": 1024, "num_layers": 8, "num_attention_heads": 8, "inner_size": 4096}
    text = common_fields({"model_type": "cohere_asr", "transf_decoder": {"config_dict": decoder}})
    assert (text["num_hidden_layers"], text["num_key_value_heads"], text["intermediate_size"]) == (8, 8, 4096)


def test_a_model_that_its_configuration_makes_see_both_ways_keeps_nothing() -> None:
    config = case("qwen3-embedding", is_causal=False)
    assert {layer.kind for layer in read_model(config).layers} == {NONE}
