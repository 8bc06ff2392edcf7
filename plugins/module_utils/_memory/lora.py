"""What the buffers of LoRA adapters take of a GPU; private to the collection.

vLLM allocates them with the weights, whether an adapter is there or not (lora/model_manager.py,
``_create_lora_modules``): every linear layer, mixture of experts, input embedding and output layer gets, for each of
``max-loras`` slots, a matrix A of ``max-lora-rank`` times the layer's inputs and a matrix B of its outputs times
``max-lora-rank``, in the type of the model (lora/layers/base_linear.py, column_parallel_linear.py, fused_moe.py,
logits_processor.py, vocab_parallel_embedding.py). Merged layers have a pair for each part: query, key and value.

Of tensor parallelism only that side is divided which the layer itself divides: the outputs of query, key, value, gate
and up, the inputs of the others. The other side is ``hidden`` wide in both cases.
"""

from __future__ import annotations

from .engine_options import EngineOptions, run_dtype_bytes
from .kv_cache import pipeline_partition
from .model import Layer, ModelSpec

__all__ = ["lora_band", "lora_bytes"]


def lora_bytes(model: ModelSpec, options: EngineOptions, tensor_parallel: int, pipeline_parallel: int) -> list[int]:
    """Bytes of the buffers, for every pipeline stage; nothing without slots."""
    each = options.lora_slots * options.lora_rank * run_dtype_bytes(options)
    ends = model.vocabulary + model.hidden  # an embedding, or an output layer; neither is divided
    stages = []
    first = 0
    for stage, count in enumerate(pipeline_partition(len(model.layers), pipeline_parallel)):
        widths = sum(_widths(model, options, layer, tensor_parallel) for layer in model.layers[first : first + count])
        first += count
        widths += ends * ((stage == 0) + (stage == pipeline_parallel - 1))
        stages.append(int(each * widths))
    return stages


def lora_band(model: ModelSpec) -> float:
    """By what share of themselves these bytes may be wrong, one sigma.

    Layers that are not made of the usual matrices (latent attention, states), towers of multimodal models and layouts
    of experts are counted as if they were. Not every architecture has buffers for its embeddings.
    """
    usual = model.known and not model.mla and not model.hybrid and model.moe is None and model.tower is None
    return 0.05 if usual else 0.25


def _widths(model: ModelSpec, options: EngineOptions, layer: Layer, tensor_parallel: int) -> float:
    """Inputs and outputs of all matrices of a layer together, on one GPU."""
    total = 0.0
    up = {"mlp": True, "expert": True}  # the matrices into the feed-forward part and out of it take turns
    for tensor in layer.tensors:
        if tensor.role == "attention":
            parts: float = 3 if tensor.kv else 1
        elif tensor.role in up:
            parts = 2 if up[tensor.role] and model.gated else 1
            up[tensor.role] = not up[tensor.role]
            if tensor.role == "expert" and model.moe is not None:
                parts *= model.moe.experts / (tensor_parallel if options.expert_parallel else 1)
        elif tensor.role == "router":
            parts = 1
        else:
            continue
        total += parts * model.hidden + tensor.elements(tensor_parallel) / model.hidden
    return total
