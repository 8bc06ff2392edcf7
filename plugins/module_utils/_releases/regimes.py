"""How releases of vLLM account for memory, as one table, :data:`REGIMES`; private to the collection.

File names in comments are vLLM's own. ``_memory`` has the formulas that read the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .versions import parse_version

__all__ = [
    "REGIMES",
    "KvRules",
    "Regime",
    "Unknown",
    "regime_of",
]


@dataclass(frozen=True)
class Unknown:
    """No prediction, and why."""

    reason: str


@dataclass(frozen=True)
class KvRules:
    """Where versions of vLLM plan differently.

    ``padding_threshold``: hybrid layers are padded to the larger count when it is less than this many times the
    smaller one. ``tokens_by_concurrency``: the logged tokens are concurrency times length rather than blocks times
    block size. ``null_block``: one block is held back before the check that a request fits.
    ``in_flight``: a sliding window keeps the tokens of every batch in flight, not of one.
    ``align_default``: hybrid models have prefix caching, hence two states per request.
    """

    padding_threshold: float = 1.5
    tokens_by_concurrency: bool = True
    null_block: bool = True
    in_flight: bool = True
    align_default: bool = True


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
    ``non_torch`` in GiB is keyed by situation, see ``_memory/cuda.py``. ``films_by_length``: a film with time
    stamps is profiled as long as the context; ``encoder_copies``: its outputs are kept twice.
    ``big_batch``: GPUs of 160 GiB and more get 16384 batched tokens, compute capability 10 graphs for 1024 tokens.
    ``mxfp4_tiles``: Triton's mxfp4 layout pads to larger tiles. ``short_longrope``: LongRoPE models default to the
    length before scaling. ``chunked_hybrid``: chunked attention has tables of its own.
    ``modelopt_cache``: a KV cache of type ``auto`` is what a checkpoint of ModelOpt asks for. ``checkpoints`` as in
    ``_memory/kv_cache.py``, ``KvOptions``.
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
    modelopt_cache: bool = False
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
# envs.py: VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE; engine/arg_utils.py: resolve_kv_cache_dtype_string.
_V0_14 = replace(_V0_13, since=(0, 14, 0), chunked_hybrid=True, modelopt_cache=True)
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
