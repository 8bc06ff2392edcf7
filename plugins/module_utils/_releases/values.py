"""What vLLM takes as the value of options whose parser lets everything through; private to the collection.

Read in vLLM 0.32 (``config/cache.py``, ``config/scheduler.py``, ``engine/arg_utils.py``, the attention backends and
``model_executor/layers/quantization/__init__.py``). An engine that is told something else starts, loads and then dies.
"""

from __future__ import annotations

__all__ = ["JSON_OBJECTS", "LEAST", "LORA_RANKS", "MULTIPLES", "PLUGGABLE", "QUANTIZATIONS"]

# The least number that makes sense; with less the engine refuses to start, or hangs at its first request.
LEAST: dict[str, float] = {
    "api-server-count": 1,
    "block-size": 16,
    "cpu-offload-gb": 0,
    "decode-context-parallel-size": 1,
    "kv-cache-memory-bytes": 1,
    "mamba-block-size": 1,
    "max-cpu-loras": 1,
    "max-logprobs": -1,
    "max-loras": 1,
    "max-num-batched-tokens": 1,
    "max-num-seqs": 1,
    "num-gpu-blocks-override": 1,
}
# The values of max-lora-rank (config/lora.py), ascending.
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# A block of the KV cache is a multiple of what the kernels of attention work on: 16 tokens at least.
MULTIPLES = {"block-size": 16}

# Options whose text is JSON, an object.
JSON_OBJECTS = frozenset(
    (
        "additional-config",
        "attention-config",
        "ec-transfer-config",
        "hf-overrides",
        "kv-events-config",
        "kv-transfer-config",
        "limit-mm-per-prompt",
        "media-io-kwargs",
        "mm-processor-kwargs",
        "override-generation-config",
        "profiler-config",
        "speculative-config",
    )
)

QUANTIZATIONS = (
    "auto_awq",
    "auto_gptq",
    "awq",
    "awq_marlin",
    "compressed-tensors",
    "deepseek_v4_fp8",
    "experts_int8",
    "fbgemm_fp8",
    "fp8",
    "fp8_per_block",
    "fp8_per_channel",
    "fp8_per_tensor",
    "fp_quant",
    "gpt_oss_mxfp4",
    "gptq",
    "gptq_marlin",
    "humming",
    "inc",
    "int8_per_channel_weight_only",
    "modelopt",
    "modelopt_fp4",
    "modelopt_mixed",
    "modelopt_mxfp8",
    "moe_wna16",
    "mxfp4",
    "mxfp8",
    "nvfp4_per_token",
    "online",
    "quark",
    "torchao",
)
# A plug-in of vLLM may bring values of its own; the engine is told to load it by the variable VLLM_PLUGINS.
PLUGGABLE = frozenset(("kv-cache-dtype", "quantization"))
