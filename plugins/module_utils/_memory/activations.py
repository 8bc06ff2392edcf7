"""What vLLM's profiling run takes of a GPU above the weights; private to the collection."""

from __future__ import annotations

from .._releases.regimes import Regime
from .._units import MIB
from .catalogue import GpuType
from .engine_options import EngineOptions, default_length, resolved_batch, run_dtype_bytes, runner_of
from .model import ModelSpec, padded_vocabulary

__all__ = ["activation_bytes"]

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
