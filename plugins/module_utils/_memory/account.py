"""The memory account of one GPU under vLLM, as formulas without choices; private to the collection.

:func:`memory_budget` answers, for a model, a type of GPU, parallel sizes, engine options and a version of vLLM: how
much memory the weights, the profiling run, the CUDA graphs and the libraries take, what is left for the KV cache, how
many tokens that is, and by how much each of these may be wrong. It gives an :class:`Unknown` with the reason where
version, hardware or architecture are not covered, never a guess. All bytes are per GPU; GiB are 2**30 bytes.

What differs between versions of vLLM stands in one table, ``_releases.regimes``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .._errors import KvCacheError
from .._releases.regimes import Regime, Unknown, regime_of
from .._releases.versions import DEFAULT_VERSION
from .._units import GIB, MIB
from .activations import activation_bytes
from .catalogue import GpuType
from .cuda import cold_compile_bytes, context_bytes, cuda_graph_bytes, non_torch_bytes
from .engine_options import DEFAULT_OPTIONS, EngineOptions, default_length, kv_options, resolved_batch
from .kv_cache import KvOptions, KvPlan, plan_kv_cache
from .lora import lora_band, lora_bytes
from .model import ModelSpec
from .model_config import UNKNOWN_BAND
from .weights import weight_bytes

__all__ = [
    "Band",
    "Budget",
    "Measured",
    "Stage",
    "measured_kv_bytes",
    "memory_budget",
    "pinned_kv_bytes",
]


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
    weights = first.weights / GIB * (certain if model.known else UNKNOWN_BAND) + 0.02
    weights += lora_band(model) * lora_bytes(model, options, *parallel)[0] / GIB
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
    adapters = lora_bytes(model, options, tensor, pipeline)
    for number, files in enumerate(weight_bytes(model, gpu, regime, options, tensor, pipeline)):
        weights = files + adapters[number]  # vLLM allocates these with the weights, and tells them together
        peak = activation_bytes(model, gpu, regime, options, parallel, number)
        left = requested - weights - peak - graphs - libraries
        if options.kv_cache_memory_bytes:
            left = options.kv_cache_memory_bytes
            stages.append(Stage(weights, peak, graphs, libraries, 0, left))
            continue
        stages.append(Stage(weights, peak, graphs, libraries, cold, left - cold))
    return tuple(stages)


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
    version: str = DEFAULT_VERSION,
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
    pinned = bool(options.kv_cache_memory_bytes)
    out_of_memory = _out_of_memory(gpu, stages, pinned) or _not_free(gpu, regime, options, requested, tensor, nvlink)
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


def _out_of_memory(gpu: GpuType, stages: Sequence[Stage], pinned: bool) -> str | None:
    """CUDA's own refusal: weights, or a cache of a ``pinned`` size, that the GPU does not have at all."""
    free = gpu.total_bytes - int(0.3 * GIB)  # the CUDA context
    for stage in stages:
        if stage.weights > free:
            return (
                f"CUDA out of memory while loading: the weights take {stage.weights / GIB:.2f} GiB per GPU,"
                f" {free / GIB:.2f} GiB are free"
            )
        taken = stage.weights + stage.activations + stage.cuda_graphs + stage.non_torch
        if pinned and taken + stage.kv_cache > free:
            return (
                f"CUDA out of memory: a KV cache of {stage.kv_cache / GIB:.2f} GiB beside {taken / GIB:.2f} GiB per"
                f" GPU, {free / GIB:.2f} GiB are free"
            )
    return None


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
