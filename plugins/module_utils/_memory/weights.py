"""What a model's weights take of a GPU; private to the collection."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .._releases.architectures import EMBEDDING_EVERYWHERE, HEAD_EVERYWHERE
from .._releases.regimes import Regime
from .._units import MIB
from .catalogue import GpuType
from .engine_options import EngineOptions, default_length, resolved_batch, run_dtype_bytes
from .kv_cache import pipeline_partition
from .model import ModelSpec, Quantization, Tensor
from .weight_files import stored_bytes

__all__ = ["allocated", "weight_bytes"]


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


def _ends(model: ModelSpec, stage: int, stages: int) -> int:
    """How many vocabulary-sized matrices a stage holds."""
    family = model.model_type.removesuffix("_text")
    embedding = stage == 0 or family in EMBEDDING_EVERYWHERE
    head = stage == stages - 1 or family in HEAD_EVERYWHERE
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
