"""Shapes that vLLM refuses, memory apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.catalogue import gpu_type
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.engine_options import EngineOptions
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model import ModelSpec
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.validity import refusals, tensor_sizes
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).parents[3] / "fixtures" / "models"
H100 = gpu_type("H100")


def model(name: str, **extra: Any) -> ModelSpec:
    return read_model({**json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))["config"], **extra})


LLAMA = "llama-3.1-8b-instruct"
FP8 = {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}
QUARK = {"quantization_config": {"quant_method": "quark", "global_quant_config": {"weight": FP8, "input_tensors": FP8}}}
GROUP = {
    "weights": {"num_bits": 4, "type": "int", "group_size": 128},
    "input_activations": {"num_bits": 8, "type": "float"},
}
W4A8 = {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": GROUP}}}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        (LLAMA, (1, 2, 4, 8, 16, 32)),
        ("qwen2.5-7b-instruct", (1, 2, 4)),  # 28 heads
        ("falcon-7b", (1,)),  # 71 heads
        ("gpt-oss-20b", (1, 2, 4, 8, 16, 32)),
        ("deepseek-v3", (1, 2, 4, 8, 16)),  # fp8 blocks of 128 in an expert width of 2048
        ("qwen3-235b-a22b-fp8", (1, 2, 4)),  # 1536 / 8 = 192 is no multiple of 128
    ],
)
def test_tensor_sizes(name: str, sizes: tuple[int, ...]) -> None:
    assert tensor_sizes(model(name), 32) == sizes


def test_experts_in_parallel_need_not_be_divided() -> None:
    assert 8 in tensor_sizes(model("qwen3-235b-a22b-fp8"), 8, expert_parallel=True)
    wish = EngineOptions(expert_parallel=True)
    assert refusals(model("qwen3-235b-a22b-fp8"), H100, 8, options=wish) == []
    assert refusals(model(LLAMA), H100, options=wish) == ["expert parallelism for a model without experts"]


@pytest.mark.parametrize(
    ("gpu", "name", "extra", "options", "words"),
    [
        ("V100", LLAMA, {}, EngineOptions(), "needs 7.5"),
        ("T4", LLAMA, {}, EngineOptions(), None),
        ("T4", LLAMA, {}, EngineOptions(dtype="bfloat16"), "bfloat16 needs 8.0"),
        ("T4", "gemma-3-1b-it", {}, EngineOptions(), "overflows in float16"),
        ("L4", "gemma-3-1b-it", {}, EngineOptions(dtype="half"), "use bfloat16"),
        ("T4", "gpt-oss-20b", {}, EngineOptions(), "mxfp4 weights needs 8.0"),
        ("A100", LLAMA, QUARK, EngineOptions(), "quark_w8a8_fp8 weights needs 8.9"),
        ("L40S", LLAMA, QUARK, EngineOptions(), None),
        ("L40S", LLAMA, W4A8, EngineOptions(), "w4a8_fp8 weights needs 9.0"),
        ("H100", LLAMA, W4A8, EngineOptions(), None),
        ("RX 7900", LLAMA, {}, EngineOptions(), "NVIDIA"),
        ("H100", LLAMA, {}, EngineOptions(max_model_len=10**6), "longest is 131072"),
        ("H100", LLAMA, {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}, EngineOptions(),
         None),
    ],
)  # fmt: skip
def test_hardware(gpu: str, name: str, extra: dict[str, Any], options: EngineOptions, words: str | None) -> None:
    found = refusals(model(name, **extra), gpu_type(gpu), options=options)
    assert (words is None and found == []) or any(words in reason for reason in found if words)


def test_quantisation_groups_stay_whole() -> None:
    awq = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}
    reasons = refusals(model("phi-4", **awq), H100, 8)  # 17920 / 8 is 17.5 groups
    assert any("quantisation group (128)" in reason for reason in reasons)


def test_fp8_blocks_stay_whole_in_the_attention() -> None:
    blocks = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    narrow = {"intermediate_size": 16384, "head_dim": 64, "num_attention_heads": 32, "num_key_value_heads": 32}
    spec = model(LLAMA, **narrow, **blocks)
    assert refusals(spec, H100, 16) == []
    assert "the heads' width per GPU (64) is not a multiple of the fp8 block (128)" in refusals(spec, H100, 32)
    kept = {"quantization_config": {**blocks["quantization_config"], "modules_to_not_convert": ["self_attn"]}}
    assert refusals(model(LLAMA, **narrow, **kept), H100, 32) == []


def test_stages_driver_and_context_parallelism() -> None:
    assert "64 pipeline stages for 32 layers" in refusals(model(LLAMA), H100, 1, 64)
    assert any("branch 580" in reason for reason in refusals(model(LLAMA), H100, driver="570.86.15"))
    assert refusals(model(LLAMA), H100, driver="580.95.05") == []
    assert any("at least 16" in reason for reason in refusals(model(LLAMA), H100, 8, context_parallel=2))
    assert refusals(model("deepseek-v3"), H100, 8, context_parallel=8) == []
    assert refusals(model(LLAMA), H100, 0) == ["parallel sizes start at 1"]


def test_models_that_vllm_cannot_cut_into_stages() -> None:
    mamba = model("mamba-2.8b-hf", architectures=["Mamba2ForCausalLM"])
    assert refusals(mamba, H100, 1, 2) == ["vLLM cannot cut Mamba2ForCausalLM into pipeline stages"]
    assert refusals(mamba, H100) == []
    assert refusals(model("mamba-2.8b-hf"), H100, 1, 2) == []


def test_a_version_that_is_not_covered_is_refused() -> None:
    assert any("newer" in reason for reason in refusals(model(LLAMA), H100, version="0.50.0"))


@given(st.sampled_from(sorted(path.stem for path in FIXTURES.glob("*.json"))), st.integers(1, 16))
def test_one_gpu_always_divides_and_sizes_agree(name: str, size: int) -> None:
    found = tensor_sizes(model(name), 16)
    assert found[0] == 1
    shape = [r for r in refusals(model(name), gpu_type("B200"), size) if "divid" in r or "multiple" in r]
    assert (size in found) == (not shape)
