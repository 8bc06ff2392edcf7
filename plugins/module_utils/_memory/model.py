"""What a model is made of, as the sizing formulas see it; private to the collection.

:class:`ModelSpec` holds a model's layers by kind of attention, what each of them keeps per token, and the weight
tensors that vLLM will allocate; ``model_config.read_model`` makes it. Sizes are numbers of elements unless the name
says bytes. Nothing here knows GPUs or versions of vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CHUNKED",
    "CROSS",
    "FULL",
    "LINEAR",
    "MLA",
    "MOST_LAYERS",
    "NONE",
    "SLIDING",
    "Layer",
    "ModelSpec",
    "Moe",
    "Quantization",
    "State",
    "Tensor",
    "Tower",
    "Weights",
    "padded_vocabulary",
]

MOST_LAYERS = 10_000  # far more than any model has; a loop over all of them ends

# Kinds of layers: how much of the context a layer keeps.
FULL = "full"  # every token
SLIDING = "sliding"  # the last `window` tokens
CHUNKED = "chunked"  # the current chunk of `window` tokens (Llama 4)
MLA = "mla"  # every token, as one compressed vector that is not sharded (DeepSeek)
LINEAR = "linear"  # a state of fixed size (Mamba, gated delta net, ...)
CROSS = "cross"  # what an encoder made of the input (Whisper), beside the decoder's own tokens
NONE = "none"  # nothing (only a feed-forward part, or a layer that reads the cache of an earlier one)


@dataclass(frozen=True)
class Tensor:
    """One weight tensor as vLLM allocates it (query, key and value merged; gate and up merged).

    ``sharded`` elements divide by the tensor-parallel size, ``kv`` elements at most by ``kv_heads`` (beyond that
    heads are replicated), ``replicated`` ones not at all. ``role`` decides the bytes of an element:
    ``attention``, ``mlp``, ``expert``, ``router``, ``embedding``, ``head`` or ``norm``.
    """

    role: str
    sharded: int = 0
    kv: int = 0
    kv_heads: int = 1
    replicated: int = 0

    def elements(self, tensor_parallel: int = 1) -> float:
        """Elements of this tensor on one GPU."""
        shards = min(tensor_parallel, self.kv_heads)
        return self.sharded / tensor_parallel + self.kv / shards + self.replicated


@dataclass(frozen=True)
class State:
    """The state of a linear-attention layer for one request.

    ``family`` is ``mamba1``, ``mamba2``, ``gdn`` (gated delta net), ``kda`` (Kimi) or ``conv`` (a short convolution
    alone). ``convolution`` elements are kept in the model's data type, ``recurrent`` ones in ``recurrent_bytes`` each
    (0: the model's type too). Both divide by the tensor-parallel size (vLLM ``mamba_utils.py``, state shapes);
    ``groups`` and ``group_elements`` are the part of the convolution that is replicated when the groups do not divide.
    """

    family: str
    convolution: int
    recurrent: int
    recurrent_bytes: int = 0
    groups: int = 0
    group_elements: int = 0


@dataclass(frozen=True)
class Layer:
    """One decoder layer.

    ``kind`` is one of this module's constants; ``state`` is that of a linear layer, or of one that has attention and a
    state side by side (Falcon-H1). ``kv_heads``, ``head_size`` (of keys) and ``value_size`` give what a
    token costs; an MLA layer has one head of ``kv_lora_rank + qk_rope_head_dim`` and no values. ``window`` is the
    sliding window or chunk in tokens. ``indexer`` is the bytes per token of a sparse-attention indexer (DeepSeek
    V3.2), else 0. ``cross``: the layer also keeps keys and values of an encoder's output. ``intermediate`` is the width
    of a dense feed-forward part (0: none), ``moe`` whether it has experts.
    """

    kind: str
    kv_heads: int = 0
    head_size: int = 0
    value_size: int = 0
    window: int = 0
    state: State | None = None
    indexer: int = 0
    cross: bool = False
    intermediate: int = 0
    moe: bool = False
    tensors: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Moe:
    """The mixture of experts: number of ``experts``, how many a token uses, their width, shared experts' width."""

    experts: int
    experts_per_token: int
    intermediate: int
    shared_intermediate: int = 0


@dataclass(frozen=True)
class Quantization:
    """How the weights are stored.

    ``bytes_per_weight`` counts scales and zero points. ``roles`` are the tensor roles that are quantised; the others
    keep the model's type. ``group_size`` is 0 for per-tensor or per-channel scales; ``block`` is the (output, input)
    block of block-wise fp8.
    """

    method: str
    bits: int
    bytes_per_weight: float
    roles: frozenset[str]
    group_size: int = 0
    block: tuple[int, int] | None = None


@dataclass(frozen=True)
class Tower:
    """The vision tower as vLLM profiles it.

    ``tokens`` of the largest picture, ``pixel_bytes`` of input (16 bits each) behind one token, ``outputs`` vectors
    of hidden size that the tower returns per token, ``film_tokens`` of the longest film (0: none) and whether time
    stamps stand between its frames. A token stands for ``patches`` patches, each ``hidden`` wide inside the tower and
    ``working`` elements in its widest feed-forward part (0: not known).
    """

    tokens: int
    pixel_bytes: int
    outputs: int = 1
    film_tokens: int = 0
    time_stamps: bool = False
    patches: int = 4
    hidden: int = 0
    working: int = 0


@dataclass(frozen=True)
class Weights:
    """Bytes of the weights on disk: in all, of the vision and audio towers, and where the numbers come from.

    ``source`` is ``headers``, ``size`` or ``formula``.
    """

    total_bytes: int
    tower_bytes: int
    source: str


@dataclass(frozen=True)
class ModelSpec:
    """A model as the sizing formulas see it; made by ``model_config.read_model``.

    ``dtype_bytes`` is the size of an unquantised weight as stored. ``max_len`` is the longest context in tokens;
    ``original_len`` is that of a LongRoPE model before scaling, else the same.
    ``rope_elements`` is the size of the rotary tables (tokens times rotated dimensions, all tables together).
    ``gated``: the feed-forward part has a gate. ``tower``: the vision tower of a multimodal model.
    ``rope_len`` is the context in tokens that its rope is scaled for (0: it says nothing).
    ``kv_dtype`` is what a KV cache of type ``auto`` becomes, by the files. ``pooling``: the
    model returns vectors or scores, not text.
    ``known`` is False when the formulas were not made for this architecture; ``warnings`` says so in words.
    """

    architecture: str
    model_type: str
    layers: tuple[Layer, ...]
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied_embeddings: bool
    dtype: str
    dtype_bytes: int
    max_len: int
    original_len: int
    rope_elements: int
    gated: bool
    weights: Weights
    moe: Moe | None = None
    quantization: Quantization | None = None
    tower: Tower | None = None
    kv_dtype: str = "auto"
    rope_len: int = 0
    pooling: bool = False
    known: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def embedding(self) -> Tensor:
        """The input embedding (vocabulary times hidden size)."""
        return Tensor("embedding", sharded=padded_vocabulary(self.vocabulary) * self.hidden)

    @property
    def hybrid(self) -> bool:
        """Whether some layers keep a state of fixed size."""
        return any(layer.state is not None for layer in self.layers)

    @property
    def mla(self) -> bool:
        """Whether the model uses multi-head latent attention."""
        return any(layer.kind == MLA for layer in self.layers)


def padded_vocabulary(vocabulary: int) -> int:
    """The vocabulary as vLLM allocates it: up to a multiple of 64 (``vocab_parallel_embedding.py``)."""
    return -(-vocabulary // 64) * 64
