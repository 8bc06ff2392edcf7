"""What an engine has to read and to compute for a token, by the model alone; private to the collection."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .._memory.kv_cache import kv_dtype
from .._memory.model import CHUNKED, FULL, MLA, SLIDING, ModelSpec, Quantization

__all__ = ["Work", "work_of"]

_ATTENTION = (FULL, SLIDING, CHUNKED, MLA)
_NOT_READ = ("embedding", "absorbed")  # a table of which a token reads one row; copies of other matrices


@dataclass(frozen=True)
class Work:
    """The work of a model, on all GPUs of an instance together; bytes as they lie in GPU memory.

    Every step reads ``shared_bytes`` (attention, dense and shared feed-forward parts, the output layer) and of the
    ``expert_bytes`` of all ``experts`` those that its tokens are sent to, ``experts_per_token`` each. A token costs two
    floating-point operations for each of its ``active_weights`` and, at context n, four times n for each element of
    ``attention_width`` (query elements of all layers together). ``kv`` has, for each kind of cache, the bytes of a
    token in all layers of that kind and its window in tokens (0: all tokens), ``kv_heads`` how many GPUs share it.
    ``state_bytes`` are read and written for each request. ``bits`` is the width of most weights.
    """

    layers: int
    hidden: int
    shared_bytes: float
    expert_bytes: float
    experts: int
    experts_per_token: int
    active_weights: float
    attention_width: int
    kv: tuple[tuple[float, int], ...]
    kv_heads: int
    state_bytes: float = 0.0
    bits: int = 16

    def weight_bytes(self, tokens: float) -> float:
        """Bytes of weights that a step of so many tokens reads, if a router spreads them evenly.

        An expert is missed by a token with the probability 1 - k/E, and by all of n tokens with its n-th power.
        """
        if not self.experts:
            return self.shared_bytes
        missed = (1 - min(1.0, self.experts_per_token / self.experts)) ** tokens
        return self.shared_bytes + self.expert_bytes * (1 - missed)

    def kv_bytes(self, context: float) -> float:
        """Bytes of the cache that one token of a request of so many tokens reads."""
        return sum(size * (min(context, window) if window else context) for size, window in self.kv)


def work_of(model: ModelSpec, kv_cache_dtype: str = "auto", quantization: Quantization | None = None) -> Work:
    """The work of a model; ``quantization`` is one that vLLM applies while loading."""
    how = model.quantization or quantization
    shared = experts = active = 0.0
    moe = model.moe
    for layer in model.layers:
        for tensor in layer.tensors:
            if tensor.role in _NOT_READ:
                continue
            size = tensor.elements()
            each = how.bytes_per_weight if how is not None and tensor.role in how.roles else 2.0
            if tensor.role == "expert" and moe is not None:
                experts += size * each
                active += size * moe.experts_per_token / moe.experts
            else:
                shared += size * each
                active += size
    head = model.embedding.elements()
    cache = kv_dtype(kv_cache_dtype, 2)
    kinds: Counter[int] = Counter()
    for layer in model.layers:
        if layer.kind in _ATTENTION:
            heads = 1 if layer.kind == MLA else layer.kv_heads
            sides = cache.side(layer.head_size) + (cache.side(layer.value_size) if layer.value_size else 0)
            kinds[layer.window] += heads * sides
    states = [layer.state for layer in model.layers if layer.state is not None]
    return Work(
        layers=len(model.layers),
        hidden=model.hidden,
        shared_bytes=shared + head * 2,
        expert_bytes=experts,
        experts=moe.experts if moe is not None else 0,
        experts_per_token=moe.experts_per_token if moe is not None else 0,
        active_weights=active + head,
        attention_width=sum(model.heads * layer.head_size for layer in model.layers if layer.kind in _ATTENTION),
        kv=tuple((float(size), window) for window, size in sorted(kinds.items())),
        kv_heads=1 if model.mla else max(1, model.kv_heads),
        state_bytes=float(sum(2 * (state.recurrent * (state.recurrent_bytes or 2)) for state in states)),
        bits=how.bits if how is not None else 16,
    )
