"""config.json -> ModelSpec, on the configs of public models and on invented ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ModelConfigError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.context_length import max_model_len
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model import ModelSpec
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.weight_files import weights_from_headers
from hypothesis import given, settings
from hypothesis import strategies as st

FIXTURES = sorted((Path(__file__).parents[3] / "fixtures" / "models").glob("*.json"))
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@pytest.fixture(params=FIXTURES, ids=lambda path: path.stem)
def published(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(json.loads(request.param.read_text(encoding="utf-8")))


def test_there_are_enough_architectures() -> None:
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in FIXTURES]
    assert len({entry["config"]["model_type"] for entry in entries}) >= 25
    assert all(entry["source"].startswith("config.json of https://") for entry in entries)


def test_the_formula_counts_the_published_parameters(published: dict[str, Any]) -> None:
    config = {key: value for key, value in published["config"].items() if key != "quantization_config"}
    model = read_model(config)
    billions = model.weights.total_bytes / model.dtype_bytes / 1e9
    # The counts are rounded, and some include an output layer that is tied or a few percent of a vision tower.
    assert billions == pytest.approx(published["parameters_b"], rel=0.045)


def test_layers_and_length_of_published_models(published: dict[str, Any]) -> None:
    model = read_model(published["config"])
    assert dict(Counter(layer.kind for layer in model.layers)) == published["layers"]
    assert model.max_len == published["max_len"]
    assert model.known
    assert not model.warnings


@pytest.mark.parametrize(
    ("extra", "length"),
    [
        ({}, 131072),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 524288),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 262144),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 131072),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}}, 262144),
        ({"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 131072),
        ({"model_max_length": 8192}, 8192),
        ({"max_position_embeddings": None}, 2048),
        ({"seq_length": 32768}, 32768),
    ],
)
def test_longest_context(extra: dict[str, Any], length: int) -> None:
    assert max_model_len({**LLAMA, **extra}) == length


@pytest.mark.parametrize(
    ("raw", "method", "bits", "each", "roles"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 8, 1.0, {"attention", "mlp", "expert"}),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq", 4, 0.5195, {"attention", "mlp", "expert"}),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, "gptq", 4, 0.5156,
         {"attention", "mlp", "expert"}),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}, "mxfp4", 4, 0.53125,
         {"expert"}),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {
            "num_bits": 4, "group_size": 128, "symmetric": True, "type": "int"}}}}, "compressed-tensors", 4, 0.5156,
         {"attention", "mlp", "expert"}),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {
            "num_bits": 8, "type": "float"}}}, "ignore": ["lm_head"]}, "compressed-tensors", 8, 1.0,
         {"attention", "mlp", "expert"}),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt_fp4", 4, 0.5625,
         {"attention", "mlp", "expert"}),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", 4, 0.5166,
         {"attention", "mlp", "expert"}),
    ],
)  # fmt: skip
def test_quantisation(raw: dict[str, Any], method: str, bits: int, each: float, roles: set[str]) -> None:
    found = read_model({**LLAMA, "quantization_config": raw}).quantization
    assert found is not None
    assert (found.method, found.bits, found.roles) == (method, bits, roles)
    assert found.bytes_per_weight == pytest.approx(each, abs=1e-3)


def test_the_text_part_of_a_multimodal_config_counts() -> None:
    model = read_model(
        {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "text_config": LLAMA,
         "vision_config": {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096}},
        total_bytes=17 * 10**9,
    )  # fmt: skip
    assert len(model.layers) == 32
    assert model.tower is not None
    assert model.weights.tower_bytes == 17 * 10**9 - read_model(LLAMA).weights.total_bytes


def test_weights_from_headers() -> None:
    weights = weights_from_headers(
        {
            "__metadata__": {"format": "pt"},
            "model.layers.0.mlp.up_proj.weight": {"dtype": "BF16", "shape": [10, 20], "data_offsets": [0, 400]},
            "visual.blocks.0.attn.qkv.weight": {"dtype": "F32", "shape": [3, 5]},
            "lm_head.weight": {"dtype": "F8_E4M3", "shape": [7]},
        }
    )
    assert (weights.total_bytes, weights.tower_bytes, weights.source) == (400 + 60 + 7, 60, "headers")


def test_headers_beat_the_formula() -> None:
    model = read_model(LLAMA, headers={"a": {"dtype": "BF16", "shape": [7_000_000_000]}}, total_bytes=5)
    assert model.weights.total_bytes == 14_000_000_000


@pytest.mark.parametrize("elements", [1000, 10**12])
def test_headers_that_lie_are_told(elements: int) -> None:
    with pytest.raises(ModelConfigError, match=f"said to have {2 * elements} bytes, but by its configuration"):
        read_model(LLAMA, headers={"a": {"dtype": "BF16", "shape": [elements]}})


def test_an_unknown_architecture_is_a_warning() -> None:
    model = read_model({**LLAMA, "model_type": "frobnicator", "architectures": ["FrobnicatorForCausalLM"]})
    assert not model.known
    assert "FrobnicatorForCausalLM" in model.warnings[0]
    assert "wide" in model.warnings[0]


@pytest.mark.parametrize("config", [{}, {"hidden_size": 8}, {"num_hidden_layers": 2}, {"model_type": "resnet"}])
def test_what_is_no_language_model_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ModelConfigError):
        read_model(config)


@pytest.mark.parametrize(
    "extra",
    [
        {"num_key_value_heads": [8, 4]},
        {"kv_lora_rank": 512, "qk_rope_head_dim": "wide"},
        {"linear_num_value_heads": 32},
        {"linear_attn_config": {"kda_layers": [1]}},
        {"vocab_size": "many"},
    ],
)
def test_fields_that_do_not_go_together_are_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(ModelConfigError):
        read_model({**LLAMA, **extra})


def test_a_list_is_refused() -> None:
    with pytest.raises(ModelConfigError, match="mapping"):
        read_model([])  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "hidden_size": st.sampled_from([256, 2048, 4096]),
            "num_hidden_layers": st.integers(1, 40),
            "num_attention_heads": st.sampled_from([4, 8, 32]),
        },
        optional={
            "model_type": st.sampled_from(["llama", "gemma3", "qwen2", "mamba", "strange", "gpt_oss"]),
            "num_key_value_heads": st.sampled_from([1, 2, 4, None]),
            "vocab_size": st.integers(1, 300000),
            "sliding_window": st.sampled_from([None, 128, 4096]),
            "use_sliding_window": st.booleans(),
            "num_experts": st.sampled_from([0, 8, 64]),
            "moe_intermediate_size": st.sampled_from([128, 768]),
            "kv_lora_rank": st.sampled_from([None, 512]),
            "tie_word_embeddings": st.booleans(),
            "rope_scaling": st.sampled_from([None, {}, {"rope_type": "yarn", "factor": 4.0}, "odd"]),
            "quantization_config": st.sampled_from([None, {}, {"quant_method": "fp8"}, {"quant_method": "new"}]),
        },
    )
)
def test_no_config_with_sizes_crashes(config: dict[str, Any]) -> None:
    model = read_model(config)
    assert isinstance(model, ModelSpec)
    assert len(model.layers) == config["num_hidden_layers"]
    assert model.weights.total_bytes > 0


def test_an_unknown_type_of_a_known_architecture_is_taken_for_that() -> None:
    own = {**LLAMA, "model_type": "house_phi", "architectures": ["PhiForCausalLM"]}
    model = read_model(own)
    assert not model.gated  # as Phi's feed-forward part is
    (said,) = model.warnings
    assert said == (
        "architecture PhiForCausalLM is not one the weight and memory formulas were checked with: its layers are taken "
        "for those of phi, and the error band is wide (weights within 20%)"
    )
    assert "for those of a plain transformer" in read_model({**own, "architectures": ["HouseForCausalLM"]}).warnings[0]
