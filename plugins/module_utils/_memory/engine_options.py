"""Options of an engine that memory depends on, and what a release of vLLM makes of them; private to the collection."""

from __future__ import annotations

from dataclasses import dataclass

from .._releases.regimes import Regime
from .catalogue import GpuType
from .kv_cache import KvOptions
from .model import CHUNKED, ModelSpec

__all__ = [
    "DEFAULT_OPTIONS",
    "EngineOptions",
    "batch_defaults",
    "cache_dtype",
    "default_length",
    "kv_options",
    "resolved_batch",
    "run_dtype_bytes",
    "runner_of",
]


@dataclass(frozen=True)
class EngineOptions:
    """Options of ``vllm serve`` that memory depends on; None is the default of the version.

    ``max_model_len`` in tokens (``auto_length``: what fits). ``quantization`` is a method that vLLM applies while
    loading (``fp8``); files that are quantised already say so in the model's config. ``kv_cache_memory_bytes`` pins
    the cache. ``dtype`` as in vLLM. ``mm_limit_zero``: the vision tower is not profiled (text only). ``lora_slots`` and
    ``lora_rank`` are max-loras and max-lora-rank of adapters (0: none).
    """

    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    max_model_len: int | None = None
    auto_length: bool = False
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    gpu_memory_utilization: float | None = None
    enforce_eager: bool = False
    quantization: str | None = None
    block_size: int | None = None
    kv_cache_memory_bytes: int | None = None
    prefix_caching: bool = True
    hybrid_manager: bool = True
    expert_parallel: bool = False
    mm_limit_zero: bool = False
    async_scheduling: bool = True
    lora_slots: int = 0
    lora_rank: int = 0


DEFAULT_OPTIONS = EngineOptions()


def run_dtype_bytes(options: EngineOptions) -> int:
    """Bytes of an unquantised weight as vLLM runs it: ``auto`` turns fp32 files into 16 bits (``config/model.py``)."""
    return 4 if options.dtype in ("float32", "float") else 2


def default_length(model: ModelSpec, regime: Regime, options: EngineOptions) -> int:
    """The context in tokens: the wish, or what vLLM takes without one."""
    return options.max_model_len or (model.original_len if regime.short_longrope else model.max_len)


def runner_of(model: ModelSpec, regime: Regime) -> int:
    """Which model runner vLLM takes by default: 1 or 2 (``config/vllm.py``, ``use_v2_model_runner``)."""
    if regime.v2_runner == "all":
        return 2
    if model.pooling or model.hybrid:
        return 1
    listed = model.architecture in regime.v2_architectures
    dense = model.moe is None
    chosen = {
        "plain": listed and dense and model.quantization is None,
        "listed": listed,
        "dense": listed or dense,
    }
    return 2 if chosen.get(regime.v2_runner) else 1


def batch_defaults(gpu: GpuType, regime: Regime) -> tuple[int, int]:
    """The default (max_num_batched_tokens, max_num_seqs) of an API server on this GPU (``engine/arg_utils.py``)."""
    # The check is against NVML's total, which is above torch's by the driver's share (0.5 to 1 %).
    total = (gpu.total_gib or 0.0) * 1.006
    if regime.big_batch and total >= 160:
        return 16384, 1024
    if total >= 70 and "a100" not in gpu.name.lower() and "a800" not in gpu.name.lower() and not gpu.unified_memory:
        return 8192, 1024
    return 2048, 256


def resolved_batch(gpu: GpuType, regime: Regime, options: EngineOptions, max_len: int) -> tuple[int, int]:
    """The (max_num_batched_tokens, max_num_seqs) in effect: sequences times length and tokens bound each other."""
    tokens, seqs = batch_defaults(gpu, regime)
    seqs = options.max_num_seqs or seqs
    tokens = options.max_num_batched_tokens or max(1, min(tokens, seqs * max_len))
    return tokens, min(seqs, tokens)


def cache_dtype(model: ModelSpec, regime: Regime, options: EngineOptions) -> str:
    """The type of the KV cache: ``auto`` is what the files ask for, if they do (``resolve_kv_cache_dtype_string``)."""
    if options.kv_cache_dtype != "auto":
        return options.kv_cache_dtype
    modelopt = model.quantization is not None and model.quantization.method.startswith("modelopt")
    return "auto" if modelopt and not regime.modelopt_cache else model.kv_dtype


def _block_size(model: ModelSpec, gpu: GpuType, dtype: str) -> int:
    """Tokens per block that the attention kernels ask for (``platforms/cuda.py``: the first backend that fits).

    MLA: FlashInfer's takes 32 (compute capability 10); Hopper has FlashAttention's (16), and FlashMLA (64) for fp8.
    Sparse attention takes 64.
    """
    if any(layer.indexer for layer in model.layers):
        return 64
    if model.mla and gpu.compute_capability[0] in (9, 10):
        return 32 if gpu.compute_capability[0] == 10 else 64 if dtype.startswith("fp8") else 16
    return 16


def kv_options(
    model: ModelSpec, gpu: GpuType, regime: Regime, options: EngineOptions, parallel: tuple[int, int]
) -> KvOptions:
    """The options of the KV planner that these engine options amount to."""
    length = default_length(model, regime, options)
    dtype = cache_dtype(model, regime, options)
    tensor, pipeline = parallel
    second = runner_of(model, regime) == 2
    batches = (pipeline + 1 if second else 2 if pipeline == 1 else pipeline) if options.async_scheduling else pipeline
    chunked = any(layer.kind == CHUNKED for layer in model.layers)
    return KvOptions(
        max_model_len=length,
        block_size=options.block_size or _block_size(model, gpu, dtype),
        dtype=dtype,
        model_bytes=run_dtype_bytes(options),
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        max_num_batched_tokens=resolved_batch(gpu, regime, options, length)[0],
        concurrent_batches=batches,
        mamba_align=regime.kv.align_default and options.prefix_caching,
        checkpoints={f: n for f, n in regime.checkpoints.items() if f != "gdn" or gpu.compute_capability[0] >= 9},
        hybrid_manager=options.hybrid_manager and (regime.chunked_hybrid or not chunked),
        auto_length=options.auto_length,
    )
