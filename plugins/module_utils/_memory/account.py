"""The memory account of one GPU under vLLM, as formulas without choices; private to the collection.

:func:`memory_budget` answers, for a model, a type of GPU, parallel sizes, engine options and a version of vLLM: how
much memory the weights, the profiling run, the CUDA graphs and the libraries take, what is left for the KV cache, how
many tokens that is, and by how much each of these may be wrong. It gives an :class:`Unknown` with the reason where
version, hardware or architecture are not covered, never a guess. All bytes are per GPU; GiB are 2**30 bytes.

What differs between versions of vLLM stands in one table, :data:`REGIMES`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .._errors import KvCacheError
from .catalogue import GIB, GpuType
from .kv_cache import KvOptions, KvPlan, KvRules, pipeline_partition, plan_kv_cache
from .model import (
    CHUNKED,
    ModelSpec,
    Quantization,
    Tensor,
    padded_vocabulary,
)
from .weight_files import stored_bytes

__all__ = [
    "DEFAULT_OPTIONS",
    "REGIMES",
    "Band",
    "Budget",
    "EngineOptions",
    "Measured",
    "Regime",
    "Stage",
    "Unknown",
    "activation_bytes",
    "batch_defaults",
    "boots_differ",
    "cold_compile_bytes",
    "context_bytes",
    "cuda_graph_bytes",
    "measured_kv_bytes",
    "memory_budget",
    "non_torch_bytes",
    "parse_version",
    "pinned_kv_bytes",
    "regime_of",
    "runner_of",
    "weight_bytes",
]

MIB = 1 << 20


# ---------------------------------------------------------------------------------------------- what versions do


@dataclass(frozen=True)
class Regime:
    """How one range of vLLM versions accounts for memory. Each number names its reason beside it in the table.

    ``since`` is (major, minor, patch); ``utilization`` the default of ``--gpu-memory-utilization``.
    ``sampler`` is the peak of the sampler's dummy run beyond the logits in the model's own type, in units of
    max_num_seqs * vocabulary * 4 bytes; ``sampler_buffer`` whether the Triton top-k/top-p kernel keeps a buffer of
    one row of the vocabulary per multiprocessor. ``sampler_band`` is its uncertainty, in the same units.
    ``graphs``: the estimate for CUDA graphs is subtracted (V1 runner). ``v2_runner`` is which models the second
    model runner serves: ``none``, ``plain`` (of ``v2_architectures``, dense and not quantised), ``listed`` (of
    ``v2_architectures``), ``dense`` (those, and what is neither hybrid nor a mixture of experts) or ``all``;
    ``v2_sampler`` is its sampler peak, ``v2_graphs`` whether it subtracts graphs, ``v2_encoder`` whether it profiles
    the vision tower. ``moe_workspace_kept``: the experts' workspace outlives the forward
    pass, so it adds to the sampler's peak. ``compile_tax``: the first boot pays for the compiler.
    ``non_torch`` in GiB is keyed by situation, see :func:`non_torch_bytes`. ``films_by_length``: a film with time
    stamps is profiled as long as the context; ``encoder_copies``: its outputs are kept twice.
    ``big_batch``: GPUs of 160 GiB and more get 16384 batched tokens, compute capability 10 graphs for 1024 tokens.
    ``mxfp4_tiles``: Triton's mxfp4 layout pads to larger tiles. ``short_longrope``: LongRoPE models default to the
    length before scaling. ``chunked_hybrid``: chunked attention has tables of its own. ``checkpoints`` as in
    :class:`KvOptions`.
    """

    since: tuple[int, int, int]
    utilization: float
    sampler: float
    sampler_band: float
    sampler_buffer: bool
    graphs: bool
    v2_runner: str
    v2_sampler: float
    v2_graphs: bool
    moe_workspace_kept: bool
    compile_tax: bool
    non_torch: Mapping[str, float]
    kv: KvRules
    films_by_length: bool = False
    encoder_copies: bool = False
    big_batch: bool = False
    mxfp4_tiles: bool = False
    v2_architectures: frozenset[str] = frozenset()
    v2_encoder: bool = False
    short_longrope: bool = False
    chunked_hybrid: bool = False
    checkpoints: Mapping[str, int] = field(default_factory=dict)


# Non-torch memory in GiB: what libraries allocate after the first snapshot, from the numbers that start-ups print
# (H100: 0.11 to 0.19; A100: 0.10; L40S: 0.16; A40: 0.25). "tp1": kernels and their modules on Hopper and newer,
# "tp1_old": on GPUs before. "nvlink": NCCL's channels and custom all-reduce over NVLink, and since 0.18 symmetric
# memory and FlashInfer's all-reduce workspaces (Hopper and newer have them); "nvlink_old": on GPUs before. "pcie": NCCL
# over PCIe. "pp": a pipeline stage without tensor parallelism, whose NCCL is up before the snapshot.
_LIBRARIES = {"tp1": 0.07, "tp1_old": 0.07, "nvlink": 0.55, "nvlink_old": 0.17, "pcie": 0.1, "pp": 0.07}
_LIBRARIES_0_13 = {**_LIBRARIES, "tp1": 0.13}
_LIBRARIES_0_18 = {**_LIBRARIES_0_13, "tp1": 0.25, "tp1_old": 0.1, "nvlink": 2.1, "nvlink_old": 0.55, "pcie": 0.35}
# 0.33 makes NCCL and cuBLAS before the snapshot (worker/gpu_worker.py, init_device); read, not measured.
_LIBRARIES_0_33 = {**_LIBRARIES_0_18, "tp1": 0.1, "tp1_old": 0.05, "nvlink": 1.0, "nvlink_old": 0.3, "pcie": 0.2}

_V0_8 = Regime(
    since=(0, 8, 0),
    utilization=0.9,  # config/cache.py
    # fp32 logits, a masked copy and its probabilities: FlashInfer's sampler, which the official images hold. Without
    # FlashInfer vLLM sorts as from 0.11.1 on, 6 units more: hence the band (v1/sample/ops/topk_topp_sampler.py).
    sampler=3.0,
    sampler_band=3.0,
    sampler_buffer=False,
    graphs=False,
    v2_runner="none",
    v2_sampler=0.0,
    v2_graphs=False,
    moe_workspace_kept=False,
    compile_tax=False,
    non_torch=_LIBRARIES,
    # v1/core/kv_cache_utils.py: no padding of hybrid groups, tokens = blocks // groups * block size, no null block.
    kv=KvRules(1.0, tokens_by_concurrency=False, null_block=False, in_flight=False, align_default=False),
    films_by_length=True,  # models/qwen3_vl.py, _MAX_FRAMES_PER_VIDEO
    encoder_copies=True,  # v1/worker/gpu_model_runner.py, profile_run: outputs are copied into padded ones
)
# config/model.py, _get_and_verify_max_len.
_V0_11 = replace(_V0_8, since=(0, 11, 0), short_longrope=True)
# FlashInfer's sampler became opt-in: fp32 logits (1), torch.sort's values (1) and int64 indices (2), the copies of both
# in its segmented radix sort (3), softmax and its cumulative sum (2). Start-ups of 0.11.2 to 0.16 print 4.84 GiB for
# S = 1024 and V = 128256.
_V0_11_1 = replace(_V0_11, since=(0, 11, 1), sampler=9.0, sampler_band=0.1)
# v1/core/kv_cache_utils.py: hybrid groups are padded when the larger is below 1.25 times the smaller.
_V0_12 = replace(_V0_11_1, since=(0, 12, 0), kv=replace(_V0_11_1.kv, padding_threshold=1.25))
# v1/worker/workspace.py: the experts' workspace is kept (not in 0.12, in 0.14); the encoder's outputs are not copied.
_V0_13 = replace(_V0_12, since=(0, 13, 0), moe_workspace_kept=True, encoder_copies=False, non_torch=_LIBRARIES_0_13)
# envs.py: VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE.
_V0_14 = replace(_V0_13, since=(0, 14, 0), chunked_hybrid=True)
# models/qwen3_vl.py, get_max_video_tokens: a film is two frames of the video processor's size.
_V0_16 = replace(_V0_14, since=(0, 16, 0), films_by_length=False)
# v1/sample/ops/topk_topp_triton.py: top-k/top-p in place, one row of the vocabulary per multiprocessor as buffer; left
# are fp32 logits, probabilities and exponential noise. third_party/triton_kernels: larger tiles.
_V0_17 = replace(_V0_16, since=(0, 17, 0), sampler=3.0, sampler_buffer=True, mxfp4_tiles=True)
# v1/core/kv_cache_utils.py: padded below 1.5 times.
_V0_18 = replace(
    _V0_17,
    since=(0, 18, 0),
    non_torch=_LIBRARIES_0_18,
    kv=replace(_V0_17.kv, padding_threshold=1.5),
)
# v1/worker/gpu_worker.py: the CUDA graphs' estimate is subtracted (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS).
# transformers 5 moves the length before scaling out of the place where vLLM looks for it.
_V0_20 = replace(_V0_18, since=(0, 20, 0), utilization=0.92, graphs=True, sampler_band=0.2, short_longrope=False)
# v1/core/kv_cache_utils.py: the logged tokens are int(concurrency * length). envs.py: VLLM_USE_FLASHINFER_SAMPLER is on
# again; FlashInfer's kernels have no buffer.
_V0_21 = replace(_V0_20, since=(0, 21, 0), sampler_buffer=False, kv=replace(_V0_20.kv, tokens_by_concurrency=True))
# config/vllm.py: the second runner, for these models if they are dense and not quantised. Its dummy sampler run skips
# top-k, top-p and the fp32 pass, its profile_cudagraph_memory returns 0, its profile_run leaves the vision tower out.
# third_party/triton_kernels: the tiles before 0.17.
_V0_22 = replace(
    _V0_21, since=(0, 22, 0), v2_runner="plain", v2_architectures=frozenset({"Qwen3ForCausalLM"}), mxfp4_tiles=False
)
# Start-ups of 0.23 and newer lose memory on the first boot, when torch.compile's cache is cold.
_V0_23 = replace(
    _V0_22,
    since=(0, 23, 0),
    compile_tax=True,
    v2_architectures=frozenset({"Qwen3ForCausalLM", "LlamaForCausalLM", "MistralForCausalLM"}),
)
_V2_MIXTURES = frozenset({"DeepseekV2ForCausalLM", "Qwen2MoeForCausalLM", "GraniteMoeForCausalLM"})
_V0_24 = replace(_V0_23, since=(0, 24, 0), v2_runner="listed", v2_architectures=_V0_23.v2_architectures | _V2_MIXTURES)
_V0_25 = replace(_V0_24, since=(0, 25, 0), v2_runner="dense", v2_architectures=_V2_MIXTURES)
# config/model.py: prefix caching is on for hybrid models. kv_cache_interface.py: windows keep every batch in flight.
_V0_26 = replace(_V0_25, since=(0, 26, 0), kv=replace(_V0_25.kv, in_flight=True, align_default=True))
_V0_27 = replace(_V0_26, since=(0, 27, 0), v2_encoder=True)
# engine/arg_utils.py: GPUs of 160 GiB and more get 16384 batched tokens. config/vllm.py: larger graphs.
_V0_28 = replace(_V0_27, since=(0, 28, 0), big_batch=True, v2_architectures=_V2_MIXTURES | {"DeepseekV4ForCausalLM"})
# config/vllm.py: the second runner for all, which now measures graphs. kv_cache_utils.py: null block.
_V0_29 = replace(_V0_28, since=(0, 29, 0), v2_runner="all", v2_graphs=True, kv=KvRules(), sampler_band=0.5)
# mamba/mamba_mixer2.py, get_kv_cache_spec.
_V0_32 = replace(_V0_29, since=(0, 32, 0), checkpoints={"mamba2": 1})
# v1/worker/gpu/model_runner.py, _dummy_sampler_run: a second pass profiles the fp32 logits too; read, not measured.
# mamba/gdn/qwen_gdn_linear_attn.py: FlashInfer's prefill kernel saves checkpoints.
_V0_33 = replace(
    _V0_32,
    since=(0, 33, 0),
    v2_sampler=1.125,
    non_torch=_LIBRARIES_0_33,
    checkpoints={"mamba2": 1, "gdn": 64},
)

REGIMES: tuple[Regime, ...] = (
    _V0_8,
    _V0_11,
    _V0_11_1,
    _V0_12,
    _V0_13,
    _V0_14,
    _V0_16,
    _V0_17,
    _V0_18,
    _V0_20,
    _V0_21,
    _V0_22,
    _V0_23,
    _V0_24,
    _V0_25,
    _V0_26,
    _V0_27,
    _V0_28,
    _V0_29,
    _V0_32,
    _V0_33,
)
NEWEST = (0, 33)  # the last (major, minor) that was read


def parse_version(text: str | None) -> tuple[int, int, int] | None:
    """(major, minor, patch) of a version as people write it (``0.19.1``, ``v0.33.0``); None when it is none.

    A version without a patch number (``0.11``, ``0.11.x``) means the last of them: 99.
    """
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text or "")
    return (int(found.group(1)), int(found.group(2)), int(found.group(3) or 99)) if found else None


def regime_of(version: str | None) -> Regime | Unknown:
    """The regime of a version of vLLM, or why there is none (too old, newer than what was read, not a version)."""
    parsed = parse_version(version)
    if parsed is None:
        return Unknown("the version of vLLM is not known")
    if parsed < REGIMES[0].since or re.search(r"\bV0\b", version or ""):
        return Unknown(f"vLLM {version} runs the V0 engine, whose memory account is not covered")
    if parsed[:2] > NEWEST:
        return Unknown(f"vLLM {version} is newer than {NEWEST[0]}.{NEWEST[1]}, the last version that was read")
    return [regime for regime in REGIMES if regime.since <= parsed][-1]


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


def default_length(model: ModelSpec, regime: Regime, options: EngineOptions) -> int:
    """The context in tokens: the wish, or what vLLM takes without one."""
    return options.max_model_len or (model.original_len if regime.short_longrope else model.max_len)


# ---------------------------------------------------------------------------------------------- options and results


@dataclass(frozen=True)
class EngineOptions:
    """Options of ``vllm serve`` that memory depends on; None is the default of the version.

    ``max_model_len`` in tokens (``auto_length``: what fits). ``quantization`` is a method that vLLM applies while
    loading (``fp8``); files that are quantised already say so in the model's config. ``kv_cache_memory_bytes`` pins
    the cache. ``dtype`` as in vLLM. ``mm_limit_zero``: the vision tower is not profiled (text only).
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


DEFAULT_OPTIONS = EngineOptions()


@dataclass(frozen=True)
class Unknown:
    """No prediction, and why."""

    reason: str


@dataclass(frozen=True)
class Band:
    """By how much the parts of a budget may be wrong: half widths in GiB, one sigma each, and their square sum.

    ``measured`` is that of a KV cache which was measured, and then is not what the others leave.
    """

    total: float
    weights: float
    activations: float
    cuda_graphs: float
    non_torch: float
    measured: float | None = None

    @property
    def kv_cache(self) -> float:
        """Half width of what is left for the cache, in GiB."""
        if self.measured is not None:
            return self.measured
        return math.sqrt(
            self.total**2 + self.weights**2 + self.activations**2 + self.cuda_graphs**2 + self.non_torch**2
        )


@dataclass(frozen=True)
class Measured:
    """What an engine had for its KV cache that was like the planned one, in bytes per GPU.

    With ``replaces`` it takes the place of the prediction; else it can only lower it, because it may be of a boot or a
    context length that leaves more than those that are planned.
    """

    kv_bytes: int
    replaces: bool


@dataclass(frozen=True)
class Stage:
    """The account of one pipeline stage, in bytes per GPU; ``kv_cache`` may be negative (it does not fit)."""

    weights: int
    activations: int
    cuda_graphs: int
    non_torch: int
    cold_compile: int
    kv_cache: int


@dataclass(frozen=True)
class Budget:
    """The account of one GPU of an instance, in GiB, as vLLM's start-up log will print it.

    ``total`` is torch's total, ``requested`` what vLLM may take of it, the parts are those of the first stage.
    ``kv_cache`` is what the first boot grants (the promise) and ``kv_cache_warm`` what later boots grant, when the
    compiler's cache is there; ``kv_cache_tokens`` and ``max_concurrency`` belong to the promise,
    ``kv_cache_tokens_warm`` to the other. ``limiting_kv_bytes`` is the promise of the stage with the least blocks,
    in bytes. ``refusal`` is the message that vLLM would stop with on the first boot, None when it starts;
    ``refusal_warm`` the same on later boots. ``needed_kv`` is what one request of ``max_model_len`` tokens takes,
    in GiB. ``confidence`` is ``high``, ``medium`` or ``low``, or ``calibrated``: the KV cache was measured.
    """

    total: float
    requested: float
    weights: float
    activations: float
    cuda_graphs: float
    non_torch: float
    cold_compile: float
    kv_cache: float
    kv_cache_warm: float
    kv_cache_tokens: int
    kv_cache_tokens_warm: int
    max_concurrency: float
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    needed_kv: float
    limiting_kv_bytes: int
    band: Band
    confidence: str
    refusal: str | None
    refusal_warm: str | None
    stages: tuple[Stage, ...]
    plan: KvPlan | None
    warnings: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether vLLM is expected to start."""
        return self.refusal is None


# ---------------------------------------------------------------------------------------------- weights


def allocated(size: float) -> int:
    """What PyTorch's caching allocator counts for a tensor of ``size`` bytes.

    Large requests come in segments of a multiple of 2 MiB, and a rest of at most 1 MiB is not split off
    (``c10/cuda/CUDACachingAllocator.cpp``: kRoundLarge, kSmallSize, kMinLargeAlloc).
    """
    size = int(size)
    if size < 10 * MIB:
        return -(-size // 512) * 512
    segment = -(-size // (2 * MIB)) * 2 * MIB
    return segment if segment - size <= MIB else -(-size // 512) * 512


def run_dtype_bytes(options: EngineOptions) -> int:
    """Bytes of an unquantised weight as vLLM runs it: ``auto`` turns fp32 files into 16 bits (``config/model.py``)."""
    return 4 if options.dtype in ("float32", "float") else 2


def _online_quantization(model: ModelSpec, options: EngineOptions) -> Quantization | None:
    """The quantisation in effect: that of the files, or what vLLM applies while loading."""
    if model.quantization is not None or not options.quantization:
        return model.quantization
    method = options.quantization.lower()
    if method.startswith(("fp8", "experts_int8", "int8")):
        return Quantization("fp8", 8, 1.0, frozenset({"attention", "mlp", "expert"}))
    if method.startswith("bitsandbytes"):
        # nf4 without double quantisation: half a byte and an fp32 scale per 64 weights (bitsandbytes_loader.py).
        return Quantization("bitsandbytes", 4, 0.5 + 4 / 64, frozenset({"attention", "mlp", "expert"}))
    return None


def _tensor_bytes(tensor: Tensor, tensor_parallel: int, dtype_bytes: int, quantization: Quantization | None) -> float:
    each = float(dtype_bytes)
    if quantization is not None and tensor.role in quantization.roles:
        each = quantization.bytes_per_weight
    return tensor.elements(tensor_parallel) * each


def _up(size: float, step: int) -> float:
    """The size rounded up to a multiple of the step."""
    return math.ceil(size / step) * step


def _mxfp4_growth(model: ModelSpec, gpu: GpuType, regime: Regime, tensor_parallel: int) -> float:
    """By what factor the experts of an mxfp4 model grow from file to GPU (``quantization/mxfp4.py``).

    Marlin (before Hopper) pads the expert width to a multiple of 128 and the hidden size to 256, FlashInfer's kernels
    (compute capability 10) both to 256. For Triton's (Hopper) the width is padded to 64; then values and scales are
    swizzled into tiles (``triton_kernels/tensor_details/layout_details/hopper_{value,scale}.py``), while the scales as
    loaded stay with the layer.
    """
    moe = model.moe
    if moe is None or model.quantization is None or "mxfp4" not in model.quantization.method:
        return 1.0
    width, hidden = moe.intermediate / tensor_parallel, model.hidden
    if gpu.compute_capability[0] != 9:
        step = 256 if gpu.compute_capability[0] == 10 else 128
        return _up(width, step) * _up(hidden, 256) / (width * hidden)
    padded = _up(width, 64)
    rows, columns = (64, 128) if regime.mxfp4_tiles else (16, 64)
    size = 0.0
    for outputs, inputs in ((2 * padded, hidden), (hidden, padded)):
        size += _up(outputs, rows) * _up(inputs, columns) / 2  # values
        size += _up(outputs, 256) * _up(inputs / 32, 2) + outputs * inputs / 32  # scales, twice
    return size / (3 * width * hidden * (1 / 2 + 1 / 32))


def weight_bytes(
    model: ModelSpec,
    gpu: GpuType,
    regime: Regime,
    options: EngineOptions,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
) -> tuple[int, ...]:
    """Bytes that vLLM's "Model loading took" prints, for every pipeline stage.

    The files' bytes (or the formula's) are divided: sharded tensors by the tensor-parallel size, key/value heads at
    most by their number, routers and norms not at all, vision towers in part. Embeddings sit on the first stage (and
    on the last when tied), the output layer on the last, towers on all. Added: the allocator's rounding of every
    tensor, the rotary tables, MLA's absorbed matrices, padding of mxfp4 experts.
    """
    dtype = run_dtype_bytes(options)
    quantization = _online_quantization(model, options)
    growth = _mxfp4_growth(model, gpu, regime, tensor_parallel)
    partition = pipeline_partition(len(model.layers), pipeline_parallel)
    stages: list[float] = []
    stored: list[float] = []
    first = 0
    for stage, count in enumerate(partition):
        size = files = 0.0
        for layer in model.layers[first : first + count]:
            for tensor in layer.tensors:
                size += allocated(_tensor_bytes(tensor, tensor_parallel, dtype, quantization)
                                  * (growth if tensor.role == "expert" else 1.0))  # fmt: skip
                files += stored_bytes(tensor, model.dtype_bytes, model.quantization)
        first += count
        if model.tower is not None and stage == 0:
            # Input buffers of the tapped layers (models/qwen3_vl.py, deepstack_input_embeds).
            tokens = resolved_batch(gpu, regime, options, default_length(model, regime, options))[0]
            size += (model.tower.outputs - 1) * tokens * model.hidden * dtype
        ends = _ends(model, stage, pipeline_parallel)
        size += ends * allocated(model.embedding.elements(tensor_parallel) * dtype)
        size += model.rope_elements * dtype
        files += _stored_ends(model, stage, pipeline_parallel) * model.vocabulary * model.hidden * model.dtype_bytes
        stages.append(size)
        stored.append(files)
    return _with_files(model, stages, stored, tensor_parallel, dtype, growth)


# Models of vLLM 0.33 whose pipeline stages all hold the input embedding, and those that all hold the output layer too
# (seen by building the middle one of three stages); the others hold them on the first and the last stage only.
_HEAD_EVERYWHERE = frozenset(
    {"gpt_oss", "gptj", "granitemoe", "granitemoehybrid", "granitemoeshared", "jamba", "mamba2", "mixtral",
     "nemotron_h", "olmoe", "phimoe", "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_vl_moe", "stablelm"}
)  # fmt: skip
_EMBEDDING_EVERYWHERE = _HEAD_EVERYWHERE | {
    "cohere", "cohere2", "cohere2_moe", "falcon", "falcon_mamba", "gemma", "gemma2", "gemma3", "gemma3n", "gemma4",
    "gpt2", "lfm2", "lfm2_moe", "mamba", "minicpm3", "opt", "qwen3_5", "qwen3_5_moe", "zamba2",
}  # fmt: skip


def _ends(model: ModelSpec, stage: int, stages: int) -> int:
    """How many vocabulary-sized matrices a stage holds."""
    family = model.model_type.removesuffix("_text")
    embedding = stage == 0 or family in _EMBEDDING_EVERYWHERE
    head = stage == stages - 1 or family in _HEAD_EVERYWHERE
    return int(embedding or head) if model.tied_embeddings else int(embedding) + int(head)


def _stored_ends(model: ModelSpec, stage: int, stages: int) -> int:
    """How many of them the files have for this stage."""
    return int(stage == 0) + int(stage == stages - 1 and not model.tied_embeddings)


# vLLM shards the blocks of a vision tower like any other (`--mm-encoder-tp-mode weights`, its default); patch and
# position embeddings, connectors and their buffers stay whole. On two and four GPUs start-ups show 0.45 to 0.55 GiB of
# Qwen2.5-VL's 1.26 (TP 4) and 0.56 of Kimi-VL's 0.82 (TP 2): about 0.3 of a tower does not divide.
TOWER_REPLICATED = 0.3


def _with_files(
    model: ModelSpec, stages: Sequence[float], stored: Sequence[float], tensor_parallel: int, dtype: int, growth: float
) -> tuple[int, ...]:
    """The stages corrected by what the files hold beyond the formula (biases, scales, towers).

    Files larger than the formula of an mxfp4 model hold the padding already. Files that have little to do with the
    formula (a quantisation that the config does not tell, an architecture of its own) scale it.
    """
    text = model.weights.total_bytes - model.weights.tower_bytes
    rest = text - sum(stored)
    if abs(rest) > 0.3 * sum(stored) > 0:
        stages, rest = [size * text / sum(stored) for size in stages], 0.0
    if growth > 1 and rest > 0.01 * text:
        rest = 0.0
    widen = dtype / model.dtype_bytes if model.quantization is None else 1.0
    share = TOWER_REPLICATED + (1 - TOWER_REPLICATED) / tensor_parallel
    tower = model.weights.tower_bytes * dtype / model.dtype_bytes * share
    sized = []
    for stage, size in enumerate(stages):
        part = stored[stage] / sum(stored) if sum(stored) else 1.0 / len(stages)
        sized.append(int(size + rest * widen * part / tensor_parallel + tower))
    return tuple(sized)


# ---------------------------------------------------------------------------------------------- activations


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


# cuBLAS' workspace comes from PyTorch's allocator at the first matrix product: 32 MiB on Hopper and newer, else
# 8.125 MiB (aten/src/ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize).
_CUBLAS_HOPPER, _CUBLAS = 32 * MIB, int(8.125 * MIB)
# Small persistent buffers that the first forward pass makes (attention metadata, positions, slot mappings, Triton
# scratch): the rest of the measured dense peaks of 0.19 beyond the tensors below, alike for hidden sizes 2048 to 4096.
_FORWARD_REST = 48 * MIB


def _workspace(model: ModelSpec, tokens: int, tensor_parallel: int, element: int, kept: bool) -> int:
    """The experts' two work buffers (``fused_moe.py``: ``workspace_shapes``, or intermediate caches 1/3 and 2 before).

    Marlin and the mxfp4 kernels take theirs inside the kernel call, where the sampler's peak does not see them.
    """
    moe = model.moe
    if moe is None or (model.quantization is not None and model.quantization.bits < 8):
        return 0
    tokens = min(tokens, 32768)  # VLLM_FUSED_MOE_CHUNK_SIZE
    width = moe.intermediate // tensor_parallel
    columns = max(2 * width, model.hidden) + (max(width, model.hidden) if kept else width)
    return tokens * moe.experts_per_token * columns * element


def _forward_peak(model: ModelSpec, tokens: int, tensor_parallel: int, element: int) -> int:
    """Peak of one layer's tensors in the compiled forward pass.

    Residual and normed input, and the wider of the attention (query and output beside the hidden state) and the
    feed-forward part (gate and up, and their product).
    """
    query = model.heads * model.head_size / tensor_parallel
    widths = [layer.intermediate for layer in model.layers if layer.intermediate]
    if model.moe is not None and model.moe.shared_intermediate:
        widths.append(model.moe.shared_intermediate)
    dense = max(widths, default=0) / tensor_parallel
    feed = (3 if model.gated else 2) * dense
    return int(tokens * element * (2 * model.hidden + max(feed, 2 * query + model.hidden)))


def _encoder_bytes(
    model: ModelSpec, regime: Regime, tokens: int, length: int, tensor_parallel: int, element: int
) -> tuple[int, int]:
    """What profiling a vision tower takes: (bytes kept while the language model is profiled, peak of the tower itself).

    Source: ``gpu_model_runner.py`` ``profile_run``: inputs and outputs of the tower for a full encoder budget (the
    larger of the batch and one item's tokens) stay alive. Inside the tower a layer holds its input and the widest
    feed-forward part of every patch; that part is sharded.
    """
    tower = model.tower
    if tower is None:
        return 0, 0
    budget, copies = max(tokens, tower.tokens), 1
    if tower.film_tokens and (regime.films_by_length or not tower.time_stamps):
        # The longest film of full-size frames that the context holds (models/qwen2_vl.py, _get_max_video_frames).
        film = min(tower.film_tokens, length // tower.tokens * tower.tokens)
        if film > budget:
            budget, copies = film, 2 if tower.time_stamps and regime.encoder_copies else 1
    kept = budget * (copies * tower.outputs * model.hidden * element + tower.pixel_bytes)
    working = tower.patches * element * (tower.hidden + tower.working / tensor_parallel)
    return kept, int(budget * (working + tower.pixel_bytes))


def activation_bytes(
    model: ModelSpec,
    gpu: GpuType,
    regime: Regime,
    options: EngineOptions,
    parallel: tuple[int, int] = (1, 1),
    stage: int = 0,
) -> int:
    """Peak of the profiling run in bytes, above the weights ("torch peak memory increase").

    The larger of the forward pass over max_num_batched_tokens and the sampler over max_num_seqs, plus what stays
    during both. ``parallel`` is (tensor, pipeline). The sampler's peak does not shrink with tensor parallelism:
    every rank gathers all logits. It runs on the last stage only.
    """
    tensor, pipeline = parallel
    element = run_dtype_bytes(options)
    length = default_length(model, regime, options)
    tokens, seqs = resolved_batch(gpu, regime, options, length)
    cublas = _CUBLAS_HOPPER if gpu.compute_capability[0] >= 9 else _CUBLAS
    second = runner_of(model, regime) == 2
    workspace = _workspace(model, tokens, tensor, element, regime.moe_workspace_kept)
    between = 2 * tokens * model.hidden * element if pipeline > 1 else 0  # hidden state and residual of another stage
    kept, tower = (0, 0)
    if not options.mm_limit_zero and not stage and (regime.v2_encoder or not second):
        kept, tower = _encoder_bytes(model, regime, tokens, length, tensor, element)
    hidden = tokens * model.hidden * element
    forward = _forward_peak(model, tokens, tensor, element) + hidden + workspace + _FORWARD_REST
    sampler = 0
    if stage == pipeline - 1 and not model.pooling:
        logits = seqs * padded_vocabulary(model.vocabulary) * 4
        units = (regime.v2_sampler if second else regime.sampler) + element / 4
        sampler = int(units * logits) + hidden + 2 * seqs * model.hidden * element
        if regime.sampler_buffer and not second:
            rows = min(gpu.multiprocessors, 1 << max(0, seqs - 1).bit_length())
            sampler += rows * padded_vocabulary(model.vocabulary) * 4
        if regime.moe_workspace_kept:
            sampler += workspace
    return max(max(forward, sampler) + between + kept, tower) + cublas


def cuda_graph_bytes(
    model: ModelSpec, gpu: GpuType, regime: Regime, options: EngineOptions, parallel: tuple[int, int] = (1, 1)
) -> int:
    """The estimate for CUDA graphs that vLLM subtracts, in bytes; 0 where it subtracts none.

    About 0.021 GiB per layer for the full list of 51 capture sizes, in proportion for shorter lists, and 0.05 GiB
    of pool: an empirical rule over start-ups of 0.19 and newer, since vLLM measures it by capturing two graphs.
    """
    subtracts = regime.v2_graphs if runner_of(model, regime) == 2 else regime.graphs
    if not subtracts or options.enforce_eager:
        return 0
    length = default_length(model, regime, options)
    tokens, seqs = resolved_batch(gpu, regime, options, length)
    # config/vllm.py, _set_cudagraph_sizes; models/config.py, GptOssForCausalLMConfig.
    largest = min(2 * seqs, 1024 if regime.big_batch and gpu.compute_capability[0] == 10 else 512, tokens)
    if model.model_type == "gpt_oss":
        largest = min(1024, tokens)
    sizes = len([n for n in (1, 2, 4) if n <= largest]) + len(range(8, min(largest, 255) + 1, 8))
    sizes += len(range(256, largest + 1, 16))
    layers = pipeline_partition(len(model.layers), parallel[1])[0]
    return int((0.021 * layers * sizes / 51 + 0.05) * GIB)


def non_torch_bytes(
    gpu: GpuType, regime: Regime, parallel: tuple[int, int] = (1, 1), nvlink: bool | None = None
) -> int:
    """What libraries (CUDA modules, NCCL, all-reduce) allocate outside PyTorch after the first snapshot, in bytes.

    ``nvlink`` says whether the tensor-parallel GPUs are joined by NVLink; None takes the type's usual answer.
    """
    tensor, pipeline = parallel
    recent = gpu.compute_capability[0] >= 9
    if tensor == 1 and pipeline > 1:
        key = "pp"
    elif tensor == 1:
        key = "tp1" if recent else "tp1_old"
    elif not (gpu.nvlink if nvlink is None else nvlink):
        key = "pcie"
    else:
        key = "nvlink" if recent else "nvlink_old"
    return int(regime.non_torch[key] * GIB)


def boots_differ(regime: Regime, options: EngineOptions) -> bool:
    """Whether the first boot, which compiles, is granted less than later ones."""
    return regime.compile_tax and not options.enforce_eager


def cold_compile_bytes(model: ModelSpec, regime: Regime, options: EngineOptions, tensor_parallel: int = 1) -> int:
    """What the first boot loses to the compiler since 0.23: three times the largest merged gate/up matrix.

    Later boots find torch.compile's cache and get it back. Mixtures of experts may lose more (not covered).
    """
    if not boots_differ(regime, options):
        return 0
    widest = max((layer.intermediate for layer in model.layers), default=0)
    up = 2 if model.gated else 1
    return int(3 * up * widest * model.hidden * run_dtype_bytes(options) / tensor_parallel)


# ---------------------------------------------------------------------------------------------- the account


def _refuse_hardware(gpu: GpuType) -> str | None:
    if gpu.total_gib is None:
        return f"the memory of the GPU {gpu.name!r} is not known"
    if gpu.unified_memory:
        return f"{gpu.name} shares its memory with the host; what is free there cannot be computed"
    return None


def _confidence(band: Band, kv_gib: float, model: ModelSpec, gpu: GpuType) -> str:
    """``high`` below 2 % of the cache, ``medium`` below 10 %, else ``low``; never high for what is not known.

    ``calibrated`` is a cache that was measured.
    """
    if band.measured is not None:
        return "calibrated"
    share = band.kv_cache / kv_gib if kv_gib > 0 else 1.0
    if share > 0.1 or not model.known:
        return "low"
    return "medium" if share > 0.02 or not gpu.known else "high"


def _band(
    model: ModelSpec,
    gpu: GpuType,
    regime: Regime,
    options: EngineOptions,
    first: Stage,
    parallel: tuple[int, int],
    utilization: float,
) -> Band:
    """Uncertainty of every part, in GiB (one sigma), by how it is known."""
    certain = {"headers": 0.003, "size": 0.003, "formula": 0.01}[model.weights.source]
    weights = first.weights / GIB * (certain if model.known else 0.1) + 0.02
    length = default_length(model, regime, options)
    seqs = resolved_batch(gpu, regime, options, length)[1]
    unit = seqs * model.vocabulary * 4 / GIB
    activations = 0.03 * first.activations / GIB + 0.03 + regime.sampler_band * unit
    if model.tower is not None:
        activations += 0.3
    spread = {1: 0.06}.get(parallel[0], 0.1 if gpu.compute_capability[0] >= 9 else 0.15)
    return Band(
        gpu.total_band_gib * utilization,
        weights,
        activations,
        0.5 * first.cuda_graphs / GIB,
        spread + (0.5 if regime.since >= (0, 33, 0) and parallel[0] > 1 else 0.0),
    )


def _stages(model: ModelSpec, gpu: GpuType, regime: Regime, options: EngineOptions, parallel: tuple[int, int],
            requested: int, nvlink: bool | None) -> tuple[Stage, ...]:  # fmt: skip
    tensor, pipeline = parallel
    graphs = cuda_graph_bytes(model, gpu, regime, options, parallel)
    libraries = non_torch_bytes(gpu, regime, parallel, nvlink)
    cold = cold_compile_bytes(model, regime, options, tensor)
    stages = []
    for number, weights in enumerate(weight_bytes(model, gpu, regime, options, tensor, pipeline)):
        peak = activation_bytes(model, gpu, regime, options, parallel, number)
        left = requested - weights - peak - graphs - libraries
        if options.kv_cache_memory_bytes:
            left = options.kv_cache_memory_bytes
            stages.append(Stage(weights, peak, graphs, libraries, 0, left))
            continue
        stages.append(Stage(weights, peak, graphs, libraries, cold, left - cold))
    return tuple(stages)


def _block_size(model: ModelSpec, gpu: GpuType, options: EngineOptions) -> int:
    """Tokens per block that the attention kernels ask for (``platforms/cuda.py``: the first backend that fits).

    MLA: FlashInfer's takes 32 (compute capability 10); Hopper has FlashAttention's (16), and FlashMLA (64) for fp8.
    Sparse attention takes 64.
    """
    if any(layer.indexer for layer in model.layers):
        return 64
    if model.mla and gpu.compute_capability[0] in (9, 10):
        return 32 if gpu.compute_capability[0] == 10 else 64 if options.kv_cache_dtype.startswith("fp8") else 16
    return 16


def kv_options(
    model: ModelSpec, gpu: GpuType, regime: Regime, options: EngineOptions, parallel: tuple[int, int]
) -> KvOptions:
    """The options of the KV planner that these engine options amount to."""
    length = default_length(model, regime, options)
    tensor, pipeline = parallel
    second = runner_of(model, regime) == 2
    batches = (pipeline + 1 if second else 2 if pipeline == 1 else pipeline) if options.async_scheduling else pipeline
    chunked = any(layer.kind == CHUNKED for layer in model.layers)
    return KvOptions(
        max_model_len=length,
        block_size=options.block_size or _block_size(model, gpu, options),
        dtype=options.kv_cache_dtype,
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


# Of a KV cache that was measured, in GiB, one sigma. Two of them are the 150 MiB that vLLM itself keeps back when it
# suggests a size from a measurement, because profiling "may slightly underestimate the memory consumption"
# (v1/worker/gpu_worker.py, compile_or_warm_up_model). Two boots of one model on an H100 differed by one block of 2 MiB.
_MEASURED_BAND = 75 * MIB / GIB
_ADJUSTED = ("weights", "activations", "cuda_graphs", "non_torch")


def _calibrated(stage: Stage, band: Band, measured: Measured | None) -> tuple[Stage, Band]:
    """The account with the KV cache that was measured.

    The other parts take up the difference by their variances, which is the least-squares adjustment of an account whose
    sum is known; so it still sums up to what was requested. More than the error band allows is not believed, and
    neither is what would leave a part below nothing.
    """
    if measured is None:
        return stage, band
    gain = measured.kv_bytes - stage.kv_cache
    if gain > (2 * band.kv_cache * GIB if measured.replaces else 0):
        return stage, band
    variances = {part: getattr(band, part) ** 2 for part in _ADJUSTED}
    parts = {part: getattr(stage, part) - round(gain * variances[part] / sum(variances.values())) for part in _ADJUSTED}
    if min(parts.values()) < 0:
        return stage, band
    adjusted = replace(stage, **parts, kv_cache=measured.kv_bytes)
    return adjusted, replace(band, measured=_MEASURED_BAND) if measured.replaces else band


def measured_kv_bytes(
    model: ModelSpec,
    gpu: GpuType,
    *,
    blocks: int,
    tokens: int,
    tensor: int,
    options: EngineOptions,
    version: str,
) -> int | None:
    """The bytes per GPU of a KV cache of so many blocks; None where the KV planner makes other tokens of them."""
    regime = regime_of(version)
    if isinstance(regime, Unknown):
        return None
    wanted = kv_options(model, gpu, regime, options, (tensor, 1))
    try:
        plan = plan_kv_cache(model, [0], wanted, regime.kv, blocks=blocks)
    except KvCacheError:
        return None
    return blocks * plan.block_bytes[0] if plan.block_bytes and plan.tokens == tokens else None


@dataclass(frozen=True)
class _Granted:
    """What the KV planner made of the stages' bytes: a plan, or a refusal."""

    plan: KvPlan | None = None
    refusal: str | None = None
    needed: int = 0


def _grant(model: ModelSpec, stages: Sequence[Stage], wanted: KvOptions, regime: Regime, warm: bool) -> _Granted:
    bytes_left = [stage.kv_cache + (stage.cold_compile if warm else 0) for stage in stages]
    try:
        plan = plan_kv_cache(model, bytes_left, wanted, regime.kv)
    except KvCacheError as error:
        return _Granted(None, str(error), error.needed_bytes)
    return _Granted(plan, None, max(plan.needed_bytes, default=0))


def memory_budget(
    model: ModelSpec,
    gpu: GpuType,
    *,
    tensor: int = 1,
    pipeline: int = 1,
    options: EngineOptions = DEFAULT_OPTIONS,
    version: str = "0.33.0",
    nvlink: bool | None = None,
    measured: Measured | None = None,
) -> Budget | Unknown:
    """The account of one GPU for this model on ``tensor`` times ``pipeline`` GPUs of this type.

    ``options`` are the engine's, ``version`` is vLLM's, ``nvlink`` whether the tensor-parallel GPUs are joined by
    NVLink (None: usual for the type), ``measured`` what an engine like it had (not for pipelines or a pinned cache).
    Gives an :class:`Unknown` where the version or the hardware is not covered. A model that does not fit gives a budget
    whose ``refusal`` is what vLLM would say. Nothing is raised for it.
    """
    regime = regime_of(version)
    if isinstance(regime, Unknown):
        return regime
    reason = _refuse_hardware(gpu)
    if reason:
        return Unknown(reason)
    utilization = options.gpu_memory_utilization or regime.utilization
    requested = math.ceil(gpu.total_bytes * utilization)
    parallel = (tensor, pipeline)
    stages = _stages(model, gpu, regime, options, parallel, requested, nvlink)
    first, band = _calibrated(stages[0], _band(model, gpu, regime, options, stages[0], parallel, utilization), measured)
    stages = (first, *stages[1:])
    out_of_memory = _out_of_memory(gpu, stages) or _not_free(gpu, regime, options, requested, tensor, nvlink)
    if gpu.vendor != "nvidia" and out_of_memory is None and min(s.kv_cache for s in stages) > 0:
        return Unknown(f"{gpu.name} is not an NVIDIA GPU; only what cannot fit at all is told")
    wanted = kv_options(model, gpu, regime, options, parallel)
    cold = _grant(model, stages, wanted, regime, warm=False)
    warm = _grant(model, stages, wanted, regime, warm=True)
    tokens, seqs = resolved_batch(gpu, regime, options, wanted.max_model_len)
    plan = cold.plan
    return Budget(
        total=gpu.total_bytes / GIB,
        requested=requested / GIB,
        weights=first.weights / GIB,
        activations=first.activations / GIB,
        cuda_graphs=first.cuda_graphs / GIB,
        non_torch=first.non_torch / GIB,
        cold_compile=first.cold_compile / GIB,
        kv_cache=first.kv_cache / GIB,
        kv_cache_warm=(first.kv_cache + first.cold_compile) / GIB,
        kv_cache_tokens=plan.tokens if plan else 0,
        kv_cache_tokens_warm=warm.plan.tokens if warm.plan else 0,
        max_concurrency=plan.concurrency if plan else 0.0,
        max_model_len=plan.max_model_len if plan else wanted.max_model_len,
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
        needed_kv=cold.needed / GIB,
        limiting_kv_bytes=min(stage.kv_cache for stage in stages),
        band=band,
        confidence=_confidence(band, min(stage.kv_cache for stage in stages) / GIB, model, gpu),
        refusal=out_of_memory or cold.refusal,
        refusal_warm=out_of_memory or warm.refusal,
        stages=stages,
        plan=plan,
        warnings=model.warnings,
    )


def _out_of_memory(gpu: GpuType, stages: Sequence[Stage]) -> str | None:
    """CUDA's own refusal: weights or the profiling run that do not fit the GPU at all, whatever the utilisation."""
    free = gpu.total_bytes - int(0.3 * GIB)  # the CUDA context
    for stage in stages:
        if stage.weights > free:
            return (
                f"CUDA out of memory while loading: the weights take {stage.weights / GIB:.2f} GiB per GPU,"
                f" {free / GIB:.2f} GiB are free"
            )
    return None


def context_bytes(gpu: GpuType, regime: Regime, tensor_parallel: int, nvlink: bool | None = None) -> int:
    """The least that processes hold of the GPU before vLLM's first snapshot, outside its account.

    The CUDA context (0.3 to 0.6 GiB), and NCCL's over NVLink on Hopper and newer (1.5 to 2 GiB), as start-ups print
    ("Free memory on device (77.18/79.19 GiB) on startup").
    """
    joined = gpu.nvlink if nvlink is None else nvlink
    large = tensor_parallel > 1 and joined and gpu.compute_capability[0] >= 9 and regime.since >= (0, 18, 0)
    return int((1.5 if large else 0.3) * GIB)


def _not_free(
    gpu: GpuType, regime: Regime, options: EngineOptions, requested: int, tensor_parallel: int, nvlink: bool | None
) -> str | None:
    """The refusal when the utilisation asks for more than is ever free at the start (``request_memory``)."""
    free = gpu.total_bytes - context_bytes(gpu, regime, tensor_parallel, nvlink)
    if options.kv_cache_memory_bytes or requested <= free:
        return None
    return (
        f"Free memory on device ({free / GIB:.2f}/{gpu.total_bytes / GIB:.2f} GiB) on startup is less than desired GPU"
        f" memory utilization ({requested / gpu.total_bytes:.2f}, {requested / GIB:.2f} GiB). Decrease GPU memory"
        " utilization or reduce GPU memory used by other processes."
    )


def pinned_kv_bytes(budget: Budget, margin_gib: float | None = None) -> int:
    """The value for ``--kv-cache-memory-bytes`` that every boot can grant: the promise minus a margin, in bytes.

    ``margin_gib`` defaults to twice the budget's band (two sigma). The least stage decides. Never negative.
    """
    margin = 2 * budget.band.kv_cache if margin_gib is None else margin_gib
    return max(0, int(budget.limiting_kv_bytes - margin * GIB))
