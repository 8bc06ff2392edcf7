"""params.json of Mistral's own format."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.mistral_format import is_params, translated
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model

# Mistral 7B v0.3, as its params.json has it.
PARAMS: dict[str, Any] = {
    "dim": 4096,
    "n_layers": 32,
    "head_dim": 128,
    "hidden_dim": 14336,
    "n_heads": 32,
    "n_kv_heads": 8,
    "norm_eps": 1e-05,
    "vocab_size": 32768,
    "rope_theta": 1000000.0,
}
CONFIG: dict[str, Any] = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32768,
    "sliding_window": None,
}
MIXED = ["full_attention", "sliding_attention"]
FP8 = {"quant_method": "fp8", "activation_scheme": "static"}
VISION = {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096, "num_attention_heads": 16}


def test_it_is_the_same_model() -> None:
    model, known = read_model(PARAMS), read_model(CONFIG)
    assert model.layers == known.layers
    assert model.weights == known.weights
    assert (model.architecture, model.max_len, model.known) == ("MistralForCausalLM", 128_000, True)


def test_a_config_is_no_params() -> None:
    assert is_params(PARAMS)
    assert not is_params(CONFIG)
    assert not is_params({**CONFIG, "dim": 4096, "n_layers": 32})


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"max_seq_len": 32768}, {"max_position_embeddings": 32768}),
        ({"tied_embeddings": True}, {"tie_word_embeddings": True}),
        ({"moe": {"num_experts": 8, "num_experts_per_tok": 2}}, {"n_routed_experts": 8, "num_experts_per_tok": 2}),
        ({"sliding_window": [None, 1024]}, {"sliding_window": 1024, "layer_types": MIXED * 16}),
        ({"quantization": {"qformat_weight": "fp8_e4m3"}}, {"quantization_config": FP8}),
        ({"model_type": "mamba"}, {"architectures": ["Mamba2ForCausalLM"]}),
    ],
)
def test_words_of_its_own(extra: dict[str, Any], expected: dict[str, Any]) -> None:
    assert expected.items() <= translated({**PARAMS, **extra}).items()


def test_yarn() -> None:
    rope = translated({**PARAMS, "yarn": {"factor": 16, "original_max_position_embeddings": 16384}})["rope_parameters"]
    assert (rope["rope_type"], rope["factor"], rope["original_max_position_embeddings"]) == ("yarn", 16, 16384)


def test_a_model_that_sees_has_its_encoder_as_a_part() -> None:
    model = read_model({**PARAMS, "vision_encoder": VISION})
    assert model.architecture == "PixtralForConditionalGeneration"
    assert model.weights.tower_bytes == 2 * 24 * (4 * 1024**2 + 3 * 1024 * 4096)


def test_a_model_that_hears() -> None:
    encoder = {"dim": 1280, "n_layers": 32, "hidden_dim": 5120, "n_heads": 20}
    model = read_model({**PARAMS, "multimodal": {"whisper_model_args": {"encoder_args": encoder}}})
    assert model.architecture == "VoxtralForConditionalGeneration"
    assert model.weights.tower_bytes == 2 * 32 * (4 * 1280**2 + 2 * 1280 * 5120)


def test_experts_beside_shared_ones_are_deepseeks() -> None:
    moe = {"num_experts": 128, "num_experts_per_tok": 4, "expert_hidden_dim": 4096, "num_shared_experts": 1}
    latent = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "q_lora_rank": 1536}
    model = read_model({**PARAMS, **latent, "moe": moe})
    assert model.mla
    assert model.moe is not None
    assert (model.moe.experts, model.moe.shared_intermediate) == (128, 4096)
