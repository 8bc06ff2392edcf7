"""What CUDA takes of a GPU: its context, libraries, graphs and the compiler; private to the collection."""

from __future__ import annotations

from .._releases.regimes import Regime
from .._units import GIB
from .catalogue import GpuType
from .engine_options import EngineOptions, default_length, resolved_batch, run_dtype_bytes, runner_of
from .kv_cache import pipeline_partition
from .model import ModelSpec

__all__ = [
    "boots_differ",
    "cold_compile_bytes",
    "context_bytes",
    "cuda_graph_bytes",
    "non_torch_bytes",
]


def context_bytes(gpu: GpuType, regime: Regime, tensor_parallel: int, nvlink: bool | None = None) -> int:
    """The least that processes hold of the GPU before vLLM's first snapshot, outside its account.

    The CUDA context (0.3 to 0.6 GiB), and NCCL's over NVLink on Hopper and newer (1.5 to 2 GiB), as start-ups print
    ("Free memory on device (77.18/79.19 GiB) on startup").
    """
    joined = gpu.nvlink if nvlink is None else nvlink
    large = tensor_parallel > 1 and joined and gpu.compute_capability[0] >= 9 and regime.since >= (0, 18, 0)
    return int((1.5 if large else 0.3) * GIB)


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
    # With adapters each is captured a second time, for batches that use one (config/compilation.py,
    # cudagraph_specialize_lora).
    captures = 2 if options.lora_slots else 1
    return int((captures * 0.021 * layers * sizes / 51 + 0.05) * GIB)


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
