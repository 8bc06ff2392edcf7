"""The KV cache's type that a checkpoint asks for."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.engine_options import EngineOptions, cache_dtype
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.quantization import read_kv_dtype
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.regimes import Regime, regime_of


def regime(version: str) -> Regime:
    found = regime_of(version)
    assert isinstance(found, Regime)
    return found


LLAMA = {"model_type": "llama", "vocab_size": 32000}
FLOAT8 = {"num_bits": 8, "type": "float", "dynamic": False}
LEGACY = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}


@pytest.mark.parametrize(
    ("raw", "dtype"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": FLOAT8}, "fp8"),
        ({"quant_method": "modelopt", "kv_cache_scheme": {**FLOAT8, "num_bits": 4}}, "nvfp4"),
        ({"quant_method": "modelopt", "kv_cache_scheme": {**FLOAT8, "dynamic": True}}, "auto"),
        ({"quant_method": "modelopt_fp4", "quantization": {"kv_cache_quant_algo": "FP8"}}, "fp8_e4m3"),
        ({"quant_method": "modelopt_fp4", "kv_cache_quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "modelopt", "kv_cache_quant_algo": "INT3"}, "auto"),
        (LEGACY, "fp8_e4m3"),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": FLOAT8}, "fp8"),
        ({"quant_method": "compressed_tensors", "kv_cache_scheme": {**FLOAT8, "strategy": "attn_head"}}, "fp8"),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": None}, "auto"),
        ({"quant_method": "fp8", "kv_cache_scheme": FLOAT8}, "auto"),
        (None, "auto"),
    ],
)
def test_what_auto_becomes(raw: dict[str, Any] | None, dtype: str) -> None:
    assert read_kv_dtype({"quantization_config": raw}) == dtype
    model = read_model({**LLAMA, "quantization_config": raw})
    assert cache_dtype(model, regime("0.33.0"), EngineOptions()) == dtype
    assert cache_dtype(model, regime("0.33.0"), EngineOptions(kv_cache_dtype="bfloat16")) == "bfloat16"


def test_earlier_releases_heed_compressed_tensors_only() -> None:
    modelopt = read_model({**LLAMA, "quantization_config": LEGACY})
    assert cache_dtype(modelopt, regime("0.13.0"), EngineOptions()) == "auto"
    scheme = {"quant_method": "compressed-tensors", "kv_cache_scheme": FLOAT8}
    assert cache_dtype(read_model({**LLAMA, "quantization_config": scheme}), regime("0.10.0"), EngineOptions()) == "fp8"


def test_weights_by_modelopts_own_file() -> None:
    quantization = read_model({**LLAMA, "quantization_config": LEGACY}).quantization
    assert quantization is not None
    assert (quantization.method, quantization.bytes_per_weight) == ("modelopt", 1.0)
