"""The buffers of adapters, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.account import Budget, memory_budget
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.catalogue import gpu_type
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.cuda import cuda_graph_bytes
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.engine_options import EngineOptions
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.lora import lora_band, lora_bytes
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model import ModelSpec
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.regimes import Unknown, regime_of
from ansible_collections.gpuhosts.vllm.plugins.module_utils._units import GIB

from tests.unit.fleets import facts

OPTIONS = EngineOptions(lora_slots=4, lora_rank=16)
EACH = 4 * 16 * 2  # bytes of one input or output: slots, rank, bfloat16


def model(name: str) -> ModelSpec:
    return read_model(facts(name)["config"])


# Llama 3.1 8B: hidden 4096, 32 heads and 8 key/value heads of 128, feed-forward 14336, vocabulary 128256.
QUERY, KEY, OUT, UP = 4096 + 4096, 4096 + 1024, 4096 + 4096, 4096 + 14336
LAYER = QUERY + 2 * KEY + OUT + 3 * UP
END = 128256 + 4096


def test_every_matrix_has_a_pair_for_each_slot() -> None:
    assert lora_bytes(model("llama-3.1-8b-instruct"), OPTIONS, 1, 1) == [EACH * (32 * LAYER + 2 * END)]


def test_as_many_bytes_as_vllm_allocates() -> None:
    """Summed over all lora_a_stacked and lora_b_stacked of vLLM 0.32.0+cpu, for the lab's tiny Llama."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "vocab_size": 2048,
    }
    assert lora_bytes(read_model(config), OPTIONS, 1, 1) == [2_981_888]


def test_tensor_parallelism_divides_one_side() -> None:
    layer = (4096 + 1024) + 2 * (4096 + 256) + (1024 + 4096) + 3 * (4096 + 3584)
    assert lora_bytes(model("llama-3.1-8b-instruct"), OPTIONS, 4, 1) == [EACH * (32 * layer + 2 * END)]


def test_each_stage_has_its_layers_and_one_end() -> None:
    stage = EACH * (16 * LAYER + END)
    assert lora_bytes(model("llama-3.1-8b-instruct"), OPTIONS, 1, 2) == [stage, stage]


def test_every_expert_has_its_own() -> None:
    """Mixtral 8x7B: as Llama 3.1 8B, with eight feed-forward parts, a router and a vocabulary of 32000."""
    attention, router = QUERY + 2 * KEY + OUT, 4096 + 8
    whole = EACH * (32 * (attention + router + 8 * 3 * UP) + 2 * (32000 + 4096))
    assert lora_bytes(model("mixtral-8x7b-instruct-v0.1"), OPTIONS, 1, 1) == [whole]
    halves = 4096 + 2048 + 2 * (4096 + 512) + 2048 + 4096
    experts = 4 * 3 * UP  # with expert parallelism a GPU has half of the experts, whole
    whole = EACH * (32 * (halves + router + experts) + 2 * (32000 + 4096))
    options = replace(OPTIONS, expert_parallel=True)
    assert lora_bytes(model("mixtral-8x7b-instruct-v0.1"), options, 2, 1) == [whole]


def test_without_slots_there_are_none() -> None:
    assert lora_bytes(model("llama-3.1-8b-instruct"), EngineOptions(), 1, 1) == [0]


@pytest.mark.parametrize(
    ("name", "band"),
    [("llama-3.1-8b-instruct", 0.05), ("mixtral-8x7b-instruct-v0.1", 0.25), ("deepseek-v3", 0.25)],
)
def test_what_is_not_made_of_the_usual_matrices_has_a_wide_band(name: str, band: float) -> None:
    assert lora_band(model(name)) == band


def budget(options: EngineOptions) -> Budget:
    found = memory_budget(model("llama-3.1-8b-instruct"), gpu_type("NVIDIA H100 80GB HBM3"), options=options)
    assert isinstance(found, Budget)
    return found


def test_the_account_has_them_among_the_weights() -> None:
    without, with_slots = budget(EngineOptions()), budget(OPTIONS)
    expected = EACH * (32 * LAYER + 2 * END) / GIB
    assert with_slots.weights - without.weights == pytest.approx(expected)
    assert with_slots.kv_cache < without.kv_cache - expected
    assert with_slots.band.weights - without.band.weights == pytest.approx(0.06 * expected, abs=0.005)


def test_graphs_are_captured_with_and_without_adapters() -> None:
    regime = regime_of("0.33.0")
    assert not isinstance(regime, Unknown)
    spec, gpu = model("llama-3.1-8b-instruct"), gpu_type("NVIDIA H100 80GB HBM3")
    once, twice = (cuda_graph_bytes(spec, gpu, regime, options) - 0.05 * GIB for options in (EngineOptions(), OPTIONS))
    assert twice == pytest.approx(2 * once, abs=2)
