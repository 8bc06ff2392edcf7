"""Which shapes vLLM refuses to run, apart from memory; private to the collection.

:func:`refusals` gives the reasons, in words that name what is there and what would do. The rules are vLLM 0.33's
(``config/model.py``, ``layers/linear.py``, ``layers/quantization/*``, ``engine/arg_utils.py``).
"""

from __future__ import annotations

from .._releases.architectures import METHOD_CAPABILITY, NO_FP16, NO_PIPELINE
from .._releases.regimes import Unknown, regime_of
from .._releases.requirements import COMPUTE_CAPABILITY, driver_floor
from .._releases.versions import DEFAULT_VERSION
from .catalogue import GpuType
from .engine_options import DEFAULT_OPTIONS, EngineOptions
from .model import LINEAR, MLA, ModelSpec, padded_vocabulary

__all__ = ["minimum_capability", "refusals", "tensor_sizes"]


def minimum_capability(model: ModelSpec) -> tuple[int, int]:
    """The least compute capability that this model's quantisation runs on."""
    method = model.quantization.method if model.quantization else ""
    return max(COMPUTE_CAPABILITY, METHOD_CAPABILITY.get(method, COMPUTE_CAPABILITY))


def _even(what: str, size: int, tensor: int) -> str | None:
    return f"{what} ({size}) cannot be divided by tensor parallel size {tensor}" if size % tensor else None


def _head_rules(model: ModelSpec, tensor: int) -> list[str | None]:
    """Attention heads, key/value heads, states."""
    reasons: list[str | None] = []
    if any(layer.kind != LINEAR for layer in model.layers) and model.heads:
        reasons.append(_even("the number of attention heads", model.heads, tensor))
    for heads in sorted({layer.kv_heads for layer in model.layers if layer.kv_heads and layer.kind != MLA}):
        smaller, larger = sorted((heads, tensor))
        if larger % smaller:
            reasons.append(f"{heads} key/value heads can be neither divided nor replicated over {tensor} GPUs")
    reasons.append(_quantized_heads(model, tensor))
    for layer in model.layers:
        if layer.state is not None:
            reasons.append(_even("the width of the linear-attention states", layer.state.recurrent, tensor))
            break
    return reasons


def _quantized_heads(model: ModelSpec, tensor: int) -> str | None:
    """Whether a GPU's share of the heads is whole fp8 blocks, as the output projection, which takes it, has them.

    vLLM lets merged layers, such as that of queries, keys and values, end within a block (``layers/linear.py``).
    """
    quantization = model.quantization
    if quantization is None or quantization.block is None or "attention" not in quantization.roles or tensor == 1:
        return None
    for size in sorted({layer.value_size for layer in model.layers if layer.value_size}):
        share = model.heads * size // tensor
        if share % quantization.block[1]:
            return f"the heads' width per GPU ({share}) is not a multiple of the fp8 block ({quantization.block[1]})"
    return None


def _width_rules(model: ModelSpec, tensor: int, expert_parallel: bool) -> list[str | None]:
    """Feed-forward widths, vocabulary, and what quantisation needs of them."""
    reasons = [_even("the padded vocabulary", padded_vocabulary(model.vocabulary), tensor)]
    widths = {"the feed-forward width": {layer.intermediate for layer in model.layers if layer.intermediate}}
    if model.moe is not None:
        if not expert_parallel:
            widths["the experts' width"] = {model.moe.intermediate}
        if model.moe.shared_intermediate:
            widths["the shared experts' width"] = {model.moe.shared_intermediate}
    for what, sizes in widths.items():
        for size in sorted(sizes):
            uneven = _even(what, size, tensor)
            reasons.append(uneven)
            if uneven is None:
                reasons.append(_quantized_width(model, what, size // tensor))
    return reasons


def _quantized_width(model: ModelSpec, what: str, share: int) -> str | None:
    """Whether a GPU's share of a width is whole blocks or groups of the quantisation."""
    quantization = model.quantization
    if quantization is None or not quantization.roles & {"mlp", "expert"}:
        return None
    if quantization.block is not None:
        block = max(quantization.block)
        if share % block:
            return f"{what} per GPU ({share}) is not a multiple of the fp8 block ({block})"
        return None
    group = quantization.group_size if quantization.bits == 4 and quantization.method != "mxfp4" else 0
    if group and share % group:
        return f"{what} per GPU ({share}) is not a multiple of the quantisation group ({group})"
    return None


def _hardware_rules(model: ModelSpec, gpu: GpuType, options: EngineOptions) -> list[str | None]:
    """Compute capability and data type."""
    have, need = gpu.compute_capability, minimum_capability(model)
    shown = f"{gpu.name} has compute capability {have[0]}.{have[1]}"
    reasons: list[str | None] = []
    if gpu.vendor != "nvidia":
        return [f"{gpu.name} is not an NVIDIA GPU; the collection installs vLLM's CUDA build"]
    if have < need:
        method = (
            f" with {model.quantization.method} weights" if model.quantization and need > COMPUTE_CAPABILITY else ""
        )
        reasons.append(f"{shown}, vLLM{method} needs {need[0]}.{need[1]}")
    half = options.dtype in ("float16", "half") or (options.dtype == "auto" and have < (8, 0))
    if options.dtype == "bfloat16" and have < (8, 0):
        reasons.append(f"{shown}, bfloat16 needs 8.0; use dtype float16")
    if half and model.model_type in NO_FP16:
        reasons.append(f"{model.model_type} overflows in float16, and {shown}" if have < (8, 0) else
                       f"{model.model_type} overflows in float16; use bfloat16")  # fmt: skip
    return reasons


def tensor_sizes(model: ModelSpec, largest: int, expert_parallel: bool = False) -> tuple[int, ...]:
    """The tensor-parallel sizes from 1 to ``largest`` that the model's shapes allow, in order."""
    return tuple(
        size
        for size in range(1, largest + 1)
        if not any((*_head_rules(model, size), *_width_rules(model, size, expert_parallel)))
    )


def refusals(
    model: ModelSpec,
    gpu: GpuType,
    tensor: int = 1,
    pipeline: int = 1,
    *,
    options: EngineOptions = DEFAULT_OPTIONS,
    version: str = DEFAULT_VERSION,
    driver: str | None = None,
    context_parallel: int = 1,
) -> list[str]:
    """Why vLLM would not run this model in this shape, memory apart; [] when it would.

    ``tensor`` and ``pipeline`` are the parallel sizes, ``options`` the engine's, ``driver`` the hosts' NVIDIA driver
    version (None: not checked), ``context_parallel`` the decode-context-parallel size.
    """
    if tensor < 1 or pipeline < 1:
        return ["parallel sizes start at 1"]
    reasons = [*_head_rules(model, tensor), *_width_rules(model, tensor, options.expert_parallel)]
    reasons += _hardware_rules(model, gpu, options)
    reasons += _engine_rules(model, pipeline, options, version, driver)
    if context_parallel > 1 and not model.mla and tensor // max(1, model.kv_heads) < context_parallel:
        reasons.append(
            f"decode context parallel size {context_parallel} needs a tensor parallel size of at least"
            f" {context_parallel * model.kv_heads} with {model.kv_heads} key/value heads"
        )
    return [reason for reason in reasons if reason]


def _engine_rules(
    model: ModelSpec, pipeline: int, options: EngineOptions, version: str, driver: str | None
) -> list[str | None]:
    """Stages, experts, length, driver."""
    reasons: list[str | None] = []
    if pipeline > 1 and model.architecture in NO_PIPELINE:
        reasons.append(f"vLLM cannot cut {model.architecture} into pipeline stages")
    if pipeline > len(model.layers):
        reasons.append(f"{pipeline} pipeline stages for {len(model.layers)} layers")
    if options.expert_parallel and model.moe is None:
        reasons.append("expert parallelism for a model without experts")
    if options.max_model_len and options.max_model_len > model.max_len:
        reasons.append(f"a context of {options.max_model_len} tokens; the model's longest is {model.max_len}")
    regime = regime_of(version)
    if isinstance(regime, Unknown):
        reasons.append(regime.reason)
    floor = driver_floor(version)
    branch = (driver or "").split(".")[0]
    if floor is not None and branch.isdigit() and int(branch) < floor:
        reasons.append(f"driver {driver}; the default wheel of vLLM {version} needs branch {floor} or newer")
    return reasons
