"""What a model is made of, read from its ``config.json``; private to the collection.

A pure function, :func:`read_model`, turns the mapping into a frozen :class:`ModelSpec`: its layers by kind of
attention, what each of them keeps per token, and the weight tensors that vLLM will allocate. Sizes are numbers of
elements unless the name says bytes. Nothing here knows GPUs or versions of vLLM; that is ``_memory``'s business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._errors import ModelConfigError

__all__ = [
    "CHUNKED",
    "FULL",
    "LINEAR",
    "MLA",
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
    "max_model_len",
    "read_model",
    "weights_from_headers",
]

# Kinds of layers: how much of the context a layer keeps.
FULL = "full"  # every token
SLIDING = "sliding"  # the last `window` tokens
CHUNKED = "chunked"  # the current chunk of `window` tokens (Llama 4)
MLA = "mla"  # every token, as one compressed vector that is not sharded (DeepSeek)
LINEAR = "linear"  # a state of fixed size (Mamba, gated delta net, ...)
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
    V3.2), else 0. ``intermediate`` is the width of a dense feed-forward part (0: none), ``moe`` whether it has experts.
    """

    kind: str
    kv_heads: int = 0
    head_size: int = 0
    value_size: int = 0
    window: int = 0
    state: State | None = None
    indexer: int = 0
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
    """A model as the sizing formulas see it; made by :func:`read_model`.

    ``dtype_bytes`` is the size of an unquantised weight as stored. ``max_len`` is the longest context in tokens;
    ``original_len`` is that of a LongRoPE model before scaling, else the same.
    ``rope_elements`` is the size of the rotary tables (tokens times rotated dimensions, all tables together).
    ``gated``: the feed-forward part has a gate. ``tower``: the vision tower of a multimodal model. ``pooling``: the
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


# ---------------------------------------------------------------------------------------------- maximum length

# vLLM 0.33 config/model.py `_get_and_verify_max_len`: the least of these, except that the tokenizer-style name wins.
_LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# Rope types whose max_position_embeddings already is the scaled length (same function).
_UNSCALED_ROPE = frozenset({"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default"})


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rope parameters: ``rope_scaling``, or ``rope_parameters`` of transformers 5 (those of the full layers)."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(found, Mapping):
        return {}
    nested = found.get("full_attention")
    return nested if isinstance(nested, Mapping) else found


def max_model_len(config: Mapping[str, Any]) -> int:
    """The longest context in tokens that vLLM takes from the (text) ``config``; 2048 when it names none.

    Source: vLLM 0.33 ``config/model.py``. A rope factor multiplies it, unless the rope type's length is already
    the scaled one, or the model is a Gemma 3, whose configs give the scaled length too.
    """
    lengths = [int(config[key]) for key in _LENGTH_KEYS if isinstance(config.get(key), (int, float)) and config[key]]
    length = min(lengths) if lengths else 2048
    if isinstance(config.get("model_max_length"), int):
        length = min(length, config["model_max_length"]) if lengths else config["model_max_length"]
    rope = _rope(config)
    kind = rope.get("rope_type", rope.get("type", "default"))
    factor = rope.get("factor")
    if not factor or kind in _UNSCALED_ROPE or str(config.get("model_type", "")).startswith("gemma3"):
        return length
    return int(length * factor)


def _original_len(config: Mapping[str, Any], length: int) -> int:
    """The length that a LongRoPE model was made for, before scaling; ``length`` for any other."""
    rope = _rope(config)
    original = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    return int(original) if original and rope.get("rope_type", rope.get("type")) == "longrope" else length


# ---------------------------------------------------------------------------------------------- quantisation

_DTYPE_BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2, "float8_e4m3fn": 1}
_LINEAR = frozenset({"attention", "mlp", "expert"})


def _modules_kept(config: Mapping[str, Any]) -> str:
    """The names of the modules that a quantisation config leaves alone, as one text."""
    names: list[str] = []
    for key in ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules", "llm_int8_skip_modules"):
        value = config.get(key)
        if isinstance(value, (list, tuple)):
            names.extend(str(name) for name in value)
    return "\n".join(names)


def _compressed_group(config: Mapping[str, Any]) -> Mapping[str, Any]:
    groups = config.get("config_groups") or {}
    first: Any = next(iter(groups.values()), {}) if isinstance(groups, Mapping) else {}
    return first.get("weights") or {} if isinstance(first, Mapping) else {}


def _integer_bytes(bits: int, group: int, symmetric: bool) -> float:
    """Bytes per weight of AWQ, GPTQ and pack-quantized: packed bits, an fp16 scale per group, zero points if any."""
    zero_points = 0.0 if symmetric else bits / 8 / group
    return bits / 8 + 2 / group + zero_points


# What each method stores per weight, besides what is computed from bits and group size below.
# fp8 block 128x128: one fp32 scale per 16384 weights. mxfp4: one byte scale per 32. nvfp4: one byte per 16.
# bitsandbytes nf4, double quantisation: 8-bit scale per 64 weights and fp32 per 256 scales.
_STORED_BYTES = {
    "fp8": 1 + 4 / 16384,
    "fbgemm_fp8": 1.0,
    "modelopt": 1.0,
    "modelopt_fp4": 0.5625,
    "nvfp4": 0.5625,
    "mxfp4": 0.5 + 1 / 32,
    "gpt_oss_mxfp4": 0.5 + 1 / 32,
    "mxfp8": 1 + 1 / 32,
    "modelopt_mxfp8": 1 + 1 / 32,
    "bitsandbytes": 0.5 + 1 / 64 + 4 / 64 / 256,
    "experts_int8": 1.0,
}


def _quantized_bytes(method: str, config: Mapping[str, Any]) -> tuple[int, float, int]:
    """(bits, bytes per weight, group size) of a quantisation config."""
    group = int(config.get("group_size") or 0)
    bits = int(config.get("bits") or config.get("w_bit") or 0)
    if method in ("awq", "gptq", "auto-round", "moe_wna16", "awq_marlin", "gptq_marlin", "inc"):
        bits, group = bits or 4, group if group > 0 else 128
        return bits, _integer_bytes(bits, group, bool(config.get("sym", "gptq" in method))), group
    if method in ("compressed-tensors", "compressed_tensors"):
        weights = _compressed_group(config)
        bits = int(weights.get("num_bits") or bits or 8)
        group = int(weights.get("group_size") or 0)
        if bits == 4 and weights.get("type") == "float":
            return 4, 0.5625, group or 16
        if bits == 4:
            group = group or 128
            return 4, _integer_bytes(4, group, bool(weights.get("symmetric", True))), group
        return bits, bits / 8, max(group, 0)
    if method == "bitsandbytes" and config.get("load_in_8bit"):
        return 8, 1.0, 0
    stored = _STORED_BYTES.get(method)
    if stored is None:
        stored = (bits or 8) / 8
    return bits or (8 if stored >= 1 else 4), stored, group


def _activation_scheme(method: str, raw: Mapping[str, Any]) -> str | None:
    """Methods whose fp8 activations need kernels of their own (``quark.py``, ``compressed_tensors.py``)."""

    def part(*keys: str) -> Mapping[str, Any]:
        found: Any = raw
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    if method == "quark":
        types = [part("global_quant_config", name).get("dtype") for name in ("weight", "input_tensors")]
        return "quark_w8a8_fp8" if types == ["fp8_e4m3"] * 2 else None
    weights, inputs = _compressed_group(raw), part("config_groups", "group_0", "input_activations")
    four_bits = method.startswith("compressed") and (weights.get("num_bits"), weights.get("type")) == (4, "int")
    return "w4a8_fp8" if four_bits and (inputs.get("num_bits"), inputs.get("type")) == (8, "float") else None


def _quantization(config: Mapping[str, Any], model_type: str) -> Quantization | None:
    raw = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(raw, Mapping) or not raw.get("quant_method", raw.get("quant_algo")):
        return None
    method = str(raw.get("quant_method") or raw.get("quant_algo")).lower()
    if method == "modelopt" and "fp4" in str(raw.get("quant_algo", "")).lower():
        method = "modelopt_fp4"
    scheme = _activation_scheme(method, raw)
    bits, stored, group = _quantized_bytes(method, raw)
    roles = _LINEAR
    if method in ("mxfp4", "gpt_oss_mxfp4") or model_type == "gpt_oss":
        roles = frozenset({"expert"})  # gpt-oss and its kin quantise the experts alone
    kept = _modules_kept(raw)
    if re.search(r"self_attn|attention|\bq_proj|\bqkv", kept):
        roles -= {"attention"}
    if re.search(r"shared_expert|layers\.0\.mlp|\.mlp\.(gate|up|down)_proj", kept):
        roles -= {"mlp"} if "expert" in roles else frozenset()
    block = raw.get("weight_block_size")
    return Quantization(
        scheme or method,
        bits,
        stored,
        roles,
        group,
        (int(block[0]), int(block[1])) if isinstance(block, (list, tuple)) else None,
    )


# ---------------------------------------------------------------------------------------------- layers

# Feed-forward parts of two matrices rather than three (transformers' modelling code of these types).
_UNGATED = frozenset(
    {
        "phi", "gpt2", "gptj", "gpt_neox", "gpt_neo", "gpt_bigcode", "opt", "falcon", "bloom", "mpt", "starcoder2",
        "nemotron", "nemotron_h", "codegen", "stablelm_epoch", "persimmon", "bert", "roberta", "xlm-roberta", "arcee",
        "RefinedWeb", "RefinedWebModel", "whisper",
    }
)  # fmt: skip
# Families for which the weight formula was compared with published sizes; any other model gets a wide band.
_KNOWN_TYPES = frozenset(
    {
        "llama", "mistral", "ministral3", "mistral3", "mixtral", "qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl",
        "qwen3", "qwen3_moe", "qwen3_next", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "gemma", "gemma2",
        "gemma3", "gemma3_text", "phi", "phi3", "phimoe", "granite", "granitemoe", "granitemoehybrid", "gpt_oss",
        "deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "kimi_vl", "kimi_linear", "glm", "glm4", "glm4_moe",
        "glm4_moe_lite", "cohere", "cohere2", "olmo", "olmo2", "olmo3", "olmoe", "starcoder2", "gpt_neox", "gpt2",
        "opt", "falcon", "falcon_h1", "falcon_mamba", "stablelm", "internlm2", "internlm3", "baichuan", "exaone",
        "exaone4", "nemotron", "nemotron_h", "llava", "llava_next", "pixtral", "internvl_chat", "idefics3", "smollm3",
        "ernie4_5", "ernie4_5_moe", "llama4", "llama4_text", "bamba", "jamba", "mamba", "mamba2", "minimax_m2",
        "seed_oss", "qwen3_vl_text", "qwen3_vl_moe_text", "qwen3_5_text", "qwen3_5_moe_text", "hunyuan_v1_dense",
        "hunyuan_v1_moe", "arcee", "apertus", "dots1", "minicpm", "qwen", "bloom", "mpt", "gpt_bigcode",
    }
)  # fmt: skip
# Models whose latent attention vLLM runs as ordinary attention (model_arch_config_convertor.py, is_deepseek_mla).
_NOT_MLA = frozenset({"minicpm3"})
_BOTH = "both"  # attention and a state side by side: a FULL layer with a state
_LAYER_TYPES = {
    "full_attention": FULL,
    "attention": FULL,
    "global": FULL,
    "global_attention": FULL,
    "sliding_attention": SLIDING,
    "local_attention": SLIDING,
    "chunked_attention": CHUNKED,
    "linear_attention": LINEAR,
    "mamba": LINEAR,
    "mamba2": LINEAR,
    "hybrid": _BOTH,
    "conv": LINEAR,
    "recurrent": LINEAR,
    "mlp": NONE,
    "moe": NONE,
}
# How often a full layer comes when the config names a window but no pattern (the config classes' defaults).
_PATTERN_DEFAULT = {"gemma3": 6, "gemma3_text": 6, "cohere2": 4, "gemma2": 2, "gpt_oss": 2, "olmo3": 4, "exaone4": 4}


def _first(config: Mapping[str, Any], *keys: str, default: Any = None) -> Any:
    """The first of these keys that holds something."""
    for key in keys:
        if config.get(key) is not None:
            return config[key]
    return default


def _text(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's part of a config; keys that the part lacks are taken from the outer one."""
    for key in ("text_config", "llm_config", "language_config", "thinker_config", "language_model"):
        inner = config.get(key)
        if isinstance(inner, Mapping) and inner:
            outer = {k: v for k, v in config.items() if not isinstance(v, Mapping) or k.startswith(("rope", "quant"))}
            return {**outer, **_text(inner)}
    return dict(config)


# Nemotron-H as transformers 5 writes it, in the letters of its own pattern.
_LETTERS = {"mamba": "M", "linear_attention": "M", "attention": "*", "full_attention": "*", "mlp": "-", "moe": "E"}


def _pattern_kinds(config: Mapping[str, Any], count: int) -> list[str]:
    """Kinds by a pattern of the model's own: a string (Nemotron-H), a list of bits (MiMo-V2), or as below."""
    pattern = config.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        attention = SLIDING if config.get("sliding_window") else FULL
        return [{"M": LINEAR, "*": attention}.get(sign, NONE) for sign in pattern if sign in "M*-E"]
    windows = config.get("hybrid_layer_pattern")  # MiMo-V2: 1 is a window
    if isinstance(windows, Sequence):
        return [SLIDING if window else FULL for window in windows]
    if config.get("model_type") == "falcon_h1":
        return [_BOTH] * count
    return _linear_kinds(config, count)


def _linear_kinds(config: Mapping[str, Any], count: int) -> list[str]:
    """Kinds where some layers keep states: intervals (Qwen3-Next, Jamba), lists (Kimi Linear, Bamba)."""
    linear = config.get("linear_attn_config")
    if isinstance(linear, Mapping) and linear.get("kda_layers"):
        recurrent = set(linear["kda_layers"])  # numbered from one
        return [LINEAR if i + 1 in recurrent else MLA for i in range(count)]
    if config.get("attn_layer_indices"):
        return [FULL if i in config["attn_layer_indices"] else LINEAR for i in range(count)]
    if config.get("attn_layer_period"):
        period, offset = int(config["attn_layer_period"]), int(config.get("attn_layer_offset") or 0)
        return [FULL if i % period == offset else LINEAR for i in range(count)]
    if config.get("linear_num_value_heads"):
        period = int(config.get("full_attention_interval") or 4)
        return [FULL if (i + 1) % period == 0 else LINEAR for i in range(count)]
    return []


def _windowed_kinds(config: Mapping[str, Any], count: int) -> list[str]:
    """Kinds by a sliding window or chunk size and how often a layer sees everything."""
    model_type = str(config.get("model_type", ""))
    if config.get("attention_chunk_size"):
        rope_layers = config.get("no_rope_layers")
        if isinstance(rope_layers, Sequence) and len(rope_layers) == count:
            return [CHUNKED if used else FULL for used in rope_layers]
        every = int(config.get("full_attention_every") or 4)
        return [FULL if (i + 1) % every == 0 else CHUNKED for i in range(count)]
    window, late = config.get("sliding_window"), config.get("max_window_layers")
    if not window or not config.get("use_sliding_window", late is None):
        return [FULL] * count
    if isinstance(late, int):  # Qwen2: windows from this layer on
        return [SLIDING if i >= late else FULL for i in range(count)]
    period = _first(config, "sliding_window_pattern", "_sliding_window_pattern", "full_attention_every")
    period = period if isinstance(period, int) else _PATTERN_DEFAULT.get(model_type)
    if period:
        return [FULL if (i + 1) % period == 0 else SLIDING for i in range(count)]
    return [SLIDING] * count


def _kinds(config: Mapping[str, Any], count: int) -> list[str]:
    """The kind of every layer."""
    listed = config.get("layer_types") or config.get("layers_block_type")
    if isinstance(listed, Sequence) and not isinstance(listed, str) and listed:
        kinds = [_LAYER_TYPES.get(str(kind), FULL) for kind in listed]
        if config.get("kv_lora_rank") and config.get("model_type") not in _NOT_MLA:
            kinds = [MLA if kind == FULL else kind for kind in kinds]
        if config.get("use_sliding_window") is False or not config.get("sliding_window"):
            kinds = [FULL if kind == SLIDING else kind for kind in kinds]
        return kinds
    patterned = _pattern_kinds(config, count)
    if patterned:
        return patterned
    if config.get("model_type") in ("mamba", "mamba2", "falcon_mamba"):
        return [LINEAR] * count
    if config.get("kv_lora_rank") and config.get("model_type") not in _NOT_MLA:
        return [MLA] * count
    return _windowed_kinds(config, count)


@dataclass(frozen=True)
class _Shape:
    """The sizes that all layers share."""

    hidden: int
    heads: int
    kv_heads: int
    head: int
    intermediate: int
    gated: bool


def _mla_tensors(config: Mapping[str, Any], shape: _Shape) -> tuple[Tensor, ...]:
    """The projections of multi-head latent attention (DeepSeek-V2 paper; vLLM ``models/deepseek_v2.py``)."""
    rank, rope = int(config["kv_lora_rank"]), int(config.get("qk_rope_head_dim") or 0)
    nope, value = int(config.get("qk_nope_head_dim") or 128), int(config.get("v_head_dim") or 128)
    query_rank = int(config.get("q_lora_rank") or 0)
    tensors = [
        Tensor("attention", replicated=shape.hidden * (rank + rope)),
        Tensor("attention", sharded=shape.heads * (nope + value) * rank),
        Tensor("attention", sharded=shape.hidden * shape.heads * value),
    ]
    if query_rank:
        tensors.append(Tensor("attention", replicated=shape.hidden * query_rank))
        tensors.append(Tensor("attention", sharded=query_rank * shape.heads * (nope + rope)))
    else:
        tensors.append(Tensor("attention", sharded=shape.hidden * shape.heads * (nope + rope)))
    # Kept twice: vLLM absorbs the up-projections into transposed copies (mla_attention.py,
    # process_weights_after_loading). In the files they do not exist, hence the role of their own.
    tensors.append(Tensor("absorbed", sharded=shape.heads * (nope + value) * rank))
    if config.get("index_head_dim"):
        heads, size = int(config.get("index_n_heads") or 64), int(config["index_head_dim"])
        tensors.append(Tensor("attention", replicated=size * (shape.hidden + heads * (query_rank or shape.hidden))))
    return tuple(tensors)


def _state(config: Mapping[str, Any], shape: _Shape) -> tuple[State, tuple[Tensor, ...]]:
    """State and weights of a linear-attention layer (vLLM ``layers/mamba/mamba_utils.py``)."""
    recurrent_bytes = _DTYPE_BYTES.get(
        str(_first(config, "mamba_ssm_dtype", "mamba_ssm_cache_dtype", "ssm_cache_dtype", default="")), 0
    )
    if config.get("linear_num_value_heads"):  # gated delta net: Qwen3-Next, Qwen3.5
        k_heads, v_heads = int(config["linear_num_key_heads"]), int(config["linear_num_value_heads"])
        k_size, v_size = int(config["linear_key_head_dim"]), int(config["linear_value_head_dim"])
        kernel = int(config.get("linear_conv_kernel_dim") or 4)
        width = 2 * k_size * k_heads + v_size * v_heads
        tensors = (
            Tensor("attention", sharded=shape.hidden * (width + v_size * v_heads)),
            Tensor("attention", sharded=shape.hidden * v_size * v_heads),
            Tensor("router", sharded=shape.hidden * 2 * v_heads),
        )
        return State("gdn", (kernel - 1) * width, v_heads * v_size * k_size, recurrent_bytes), tensors
    linear = config.get("linear_attn_config")
    if isinstance(linear, Mapping):  # Kimi delta attention: the recurrent state is kept in fp32
        heads, size = int(linear["num_heads"]), int(linear["head_dim"])
        kernel = int(linear.get("short_conv_kernel_size") or 4)
        width = heads * size
        return State("kda", (kernel - 1) * 3 * width, heads * size * size, 4), (
            Tensor("attention", sharded=4 * shape.hidden * width),
        )
    if config.get("conv_L_cache"):  # LFM2: a gated short convolution
        width = int(config.get("conv_dim") or shape.hidden)
        return State("conv", (int(config["conv_L_cache"]) - 1) * width, 0), (
            Tensor("attention", sharded=4 * shape.hidden * width),
        )
    return _mamba(config, shape, recurrent_bytes)


def _mamba(config: Mapping[str, Any], shape: _Shape, recurrent_bytes: int) -> tuple[State, tuple[Tensor, ...]]:
    """State and weights of a Mamba 1 or 2 layer."""
    if config.get("model_type") == "nemotron_h":  # models/config.py, NemotronHForCausalLMConfig
        recurrent_bytes = recurrent_bytes or 4
    inner = int(_first(config, "mamba_d_ssm", "mamba_intermediate", default=0))
    alone = "num_heads" if config.get("model_type") == "mamba2" else "mamba_num_heads"
    heads = int(_first(config, alone, "mamba_n_heads", "n_mamba_heads", default=0))
    size = _first(config, "mamba_head_dim", "mamba_d_head", default=0)
    size = size if heads and isinstance(size, int) else 0  # Bamba says "auto"
    expand = int(_first(config, "mamba_expand", "expand", default=2))
    inner = inner or heads * size or expand * shape.hidden
    states = int(_first(config, "ssm_state_size", "mamba_d_state", "state_size", default=16))
    kernel = int(_first(config, "conv_kernel", "mamba_d_conv", "conv_kernel_size", default=4))
    if not heads:  # Mamba 1
        rank = -(-shape.hidden // 16)
        return State("mamba1", (kernel - 1) * inner, inner * states, recurrent_bytes), (
            Tensor("attention", sharded=shape.hidden * 2 * inner),
            Tensor("attention", sharded=inner * (shape.hidden + rank * 2 + 2 * states)),
            Tensor("router", sharded=inner * (2 * states + kernel)),  # A is kept in fp32
        )
    groups = int(_first(config, "n_groups", "mamba_n_groups", "mamba_ngroups", default=1))
    state = State(
        "mamba2",
        (kernel - 1) * inner,
        heads * (inner // heads) * states,
        recurrent_bytes,
        groups,
        (kernel - 1) * 2 * states,
    )
    return state, (
        Tensor(
            "attention",
            sharded=shape.hidden * (2 * inner + heads),
            kv=shape.hidden * 2 * groups * states,
            kv_heads=groups,
        ),
        Tensor("attention", sharded=shape.hidden * inner),
    )


def _moe(config: Mapping[str, Any]) -> Moe | None:
    experts = _first(config, "num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", default=0)
    if isinstance(experts, Sequence):
        experts = max(experts, default=0)
    width = int(_first(config, "moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size", default=0))
    if not experts or int(experts) < 2 or width < 1:
        return None
    per_token = _first(config, "num_experts_per_tok", "experts_per_token", "moe_topk", "moe_k", "top_k", default=1)
    shared = int(
        _first(
            config,
            "shared_expert_intermediate_size",
            "shared_intermediate_size",
            "moe_shared_expert_intermediate_size",
            default=0,
        )
    )
    count = int(_first(config, "n_shared_experts", "num_shared_experts", "moe_num_shared_experts", default=0) or 0)
    if config.get("model_type") in ("llama4", "llama4_text") and not shared:
        shared = width
    return Moe(int(experts), int(per_token), width, shared or count * width)


def _is_moe_layer(config: Mapping[str, Any], index: int) -> bool:
    """Whether this layer has experts (each family's own rule; the keys do not overlap)."""
    if index < int(_first(config, "first_k_dense_replace", "moe_layer_start_index", default=0) or 0):
        return False
    if index in (config.get("mlp_only_layers") or ()):
        return False
    frequency = config.get("moe_layer_freq")
    if isinstance(frequency, Sequence):
        return bool(frequency[index]) if index < len(frequency) else True
    if isinstance(config.get("moe_layers"), Sequence):
        return index in config["moe_layers"]
    step = int(
        _first(config, "decoder_sparse_step", "interleave_moe_layer_step", "expert_layer_period", default=1) or 1
    )
    if config.get("expert_layer_period"):
        return index % step == int(config.get("expert_layer_offset") or 0)
    return (index + 1) % step == 0


def _feed_forward(
    config: Mapping[str, Any], shape: _Shape, moe: Moe | None, index: int
) -> tuple[bool, int, tuple[Tensor, ...]]:
    """(has experts, dense width, tensors) of the feed-forward part of layer ``index``."""
    up = 2 if shape.gated else 1
    if moe is not None and _is_moe_layer(config, index):
        tensors = [
            Tensor("expert", sharded=moe.experts * up * moe.intermediate * shape.hidden),
            Tensor("expert", sharded=moe.experts * moe.intermediate * shape.hidden),
            Tensor("router", replicated=moe.experts * shape.hidden),
        ]
        if moe.shared_intermediate:
            tensors.append(Tensor("mlp", sharded=up * moe.shared_intermediate * shape.hidden))
            tensors.append(Tensor("mlp", sharded=moe.shared_intermediate * shape.hidden))
        if config.get("enable_moe_block"):  # Gemma 4: a dense part beside the experts
            tensors += _dense(shape, shape.intermediate)
            return True, shape.intermediate, tuple(tensors)
        return True, 0, tuple(tensors)
    width = shape.intermediate
    if config.get("model_type") in ("llama4", "llama4_text"):
        width = int(config.get("intermediate_size_mlp") or width)
    return False, width, _dense(shape, width)


def _dense(shape: _Shape, width: int) -> tuple[Tensor, ...]:
    """The matrices of a dense feed-forward part: gate and up together, and down."""
    up = 2 if shape.gated else 1
    both = (Tensor("mlp", sharded=up * width * shape.hidden), Tensor("mlp", sharded=width * shape.hidden))
    return both if width else ()


def _layer_inputs(config: Mapping[str, Any], shape: _Shape, count: int, index: int) -> tuple[Tensor, ...]:
    """What Gemma 3n and 4 add for embeddings of every layer: gate and projection, and the table at the first."""
    size = int(config.get("hidden_size_per_layer_input") or 0)
    if not size:
        return ()
    tensors = [Tensor("norm", replicated=2 * size * shape.hidden)]
    if not index:
        vocabulary = int(config.get("vocab_size_per_layer_input") or 0)
        tensors.append(Tensor("embedding", sharded=vocabulary * count * size))
        tensors.append(Tensor("norm", replicated=shape.hidden * count * size))
    return tuple(tensors)


def _head_sizes(config: Mapping[str, Any], shape: _Shape, kind: str, index: int) -> tuple[int, int, int]:
    """(key/value heads, size of a key, size of a value) of layer ``index``."""
    per_layer = config.get("num_key_value_heads")
    heads = int(per_layer[index]) if isinstance(per_layer, Sequence) else shape.kv_heads
    size = shape.head
    value = 0 if config.get("kv_lora_rank") else int(config.get("v_head_dim") or 0)
    if kind == FULL and config.get("global_head_dim"):  # Gemma 4
        size = int(config["global_head_dim"])
        if config.get("attention_k_eq_v"):
            heads = int(config.get("num_global_key_value_heads") or heads)
    if kind == SLIDING:  # MiMo-V2
        heads = int(config.get("swa_num_key_value_heads") or heads)
        size = int(config.get("swa_head_dim") or size)
        value = int(config.get("swa_v_head_dim") or value)
    own = config.get("per_layer_config")  # transformers 5: what single layers have otherwise, by number
    for number, fields in own.items() if isinstance(own, Mapping) else ():
        if int(number) == index:
            size, heads = int(fields.get("head_dim", size)), int(fields.get("num_key_value_heads", heads))
    return heads, size, value or size


def _attention(config: Mapping[str, Any], shape: _Shape, kind: str, index: int) -> Layer:
    """The attention part of layer ``index``."""
    if kind == NONE:
        return Layer(NONE)
    if kind == _BOTH:
        state, tensors = _state(config, shape)
        layer = _attention(config, shape, FULL, index)
        return replace(layer, state=state, tensors=(*layer.tensors, *tensors))
    if kind == LINEAR:
        state, tensors = _state(config, shape)
        return Layer(LINEAR, state=state, tensors=tensors)
    if kind == MLA:
        latent = int(config["kv_lora_rank"]) + int(config.get("qk_rope_head_dim") or 0)
        # DeepSeek V3.2's indexer caches its key in fp8 with one fp32 scale per 128 (models/deepseek_v2.py).
        size = int(config.get("index_head_dim") or 0)
        return Layer(MLA, 1, latent, 0, indexer=size + 4 * (size // 128), tensors=_mla_tensors(config, shape))
    heads, size, value = _head_sizes(config, shape, kind, index)
    gated = config.get("attn_output_gate") or str(config.get("model_type")).startswith(("qwen3_next", "qwen3_5"))
    query = 2 if gated else 1
    tensors = (
        Tensor(
            "attention",
            sharded=query * shape.heads * size * shape.hidden,
            kv=heads * (size + value) * shape.hidden,
            kv_heads=heads,
        ),
        Tensor("attention", sharded=shape.heads * value * shape.hidden),
    )
    window = 0
    if kind == SLIDING:
        window = int(config["sliding_window"])
    if kind == CHUNKED:
        window = int(config["attention_chunk_size"])
    return Layer(kind, heads, size, value, window, tensors=tensors)


def _layers(config: Mapping[str, Any], shape: _Shape, moe: Moe | None, count: int) -> tuple[Layer, ...]:
    layers = []
    patterned = isinstance(config.get("hybrid_override_pattern"), str)
    signs = [sign for sign in str(config.get("hybrid_override_pattern", "")) if sign in "M*-E"]
    caching = count - int(config.get("num_kv_shared_layers") or 0)  # the others read an earlier layer's cache
    for index, kind in enumerate(_kinds(config, count)):
        layer = _attention(config, shape, kind, index)
        part = shape
        if index >= caching:
            layer = replace(layer, kind=NONE)
            if config.get("use_double_wide_mlp"):
                part = replace(shape, intermediate=2 * shape.intermediate)
        if patterned and signs[index] in "M*":  # Nemotron-H: one part per layer
            layers.append(layer)
            continue
        experts = moe if not patterned or signs[index] == "E" else None
        has_moe, width, tensors = _feed_forward(config, part, experts, index)
        tensors += (*_layer_inputs(config, shape, count, index), Tensor("norm", replicated=2 * shape.hidden))
        layers.append(replace(layer, intermediate=width, moe=has_moe, tensors=(*layer.tensors, *tensors)))
    return tuple(layers)


def _kv_heads(config: Mapping[str, Any], heads: int) -> int:
    """Key/value heads; all heads when the config names none (multi-head attention)."""
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1  # Falcon; GPT-BigCode
    found = _first(config, "num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num", default=heads)
    if isinstance(found, Sequence):
        found = max(found, default=heads)
    return int(found)


def _rope_elements(config: Mapping[str, Any], shape: _Shape, length: int, sees: bool) -> int:
    """Size of the cos/sin tables: positions times rotated dimensions, once per distinct rope of the model.

    Source: vLLM ``rotary_embedding/base.py`` (one table per set of parameters, shared by the layers),
    ``yarn_scaling_rope.py`` (positions = original length times factor), ``linear_scaling_rope.py`` (length times
    factor). ``sees``: the model has a vision tower.
    """
    if not any(key in config for key in ("rope_theta", "rope_scaling", "rope_parameters", "rotary_pct")):
        return 0
    positions = int(config.get("max_position_embeddings") or length)
    rope = _rope(config)
    kind, factor = rope.get("rope_type", rope.get("type")), float(rope.get("factor") or 1)
    model_type = str(config.get("model_type", ""))
    if model_type.startswith("gemma4"):  # a table for windows, and one as wide as the larger heads of the full layers
        return positions * (shape.head + int(config.get("global_head_dim") or shape.head))
    local = positions if config.get("rope_local_base_freq") or model_type.startswith("gemma3") else 0
    if not rope and sees and local and positions == 131072:
        # Every Gemma 3 that sees pictures interpolates its global positions by 8 (Gemma 3 report, section 2).
        kind, factor = "linear", 8.0
    if kind in ("yarn", "deepseek_yarn"):
        positions = int(rope.get("original_max_position_embeddings", positions) * factor)
    elif kind == "linear":
        positions = int(positions * factor)
    share = float(_first(config, "partial_rotary_factor", "rotary_pct", default=rope.get("partial_rotary_factor", 1.0)))
    size = int(config.get("qk_rope_head_dim") or shape.head * share)
    return (positions + local) * size


# ---------------------------------------------------------------------------------------------- towers

# Pictures as the processors cut them. From the models' processor configs: Gemma 3: 896x896 pixels, 256 tokens.
# Qwen2/2.5-VL: patches of 14, two frames, 2x2 merged, at most 16384 tokens; films of at most 14 frames (vLLM
# models/qwen2_vl.py). Qwen3-VL: patches of 16, else alike, three tapped layers (DeepStack), films as long as the
# context and with time stamps between the frames. Kimi-VL: patches of 14, 2x2 merged.
_QWEN2_VL = Tower(16384, 2 * 3 * 14 * 14 * 4 * 2, film_tokens=7 * 16384, hidden=1280, working=3 * 3420)
_QWEN3_VL = Tower(16384, 2 * 3 * 16 * 16 * 4 * 2, 4, 12288 * 16384, True, hidden=1152, working=2 * 4304)
_TOWERS: dict[str, Tower] = {
    "gemma3": Tower(256, 3 * 896 * 896 * 2 // 256, patches=16, hidden=1152, working=2 * 4304),
    "qwen2_vl": _QWEN2_VL,
    "qwen2_5_vl": _QWEN2_VL,
    "qwen3_vl": _QWEN3_VL,
    "qwen3_vl_moe": _QWEN3_VL,
    "kimi_vl": Tower(4096, 3 * 14 * 14 * 4 * 2, hidden=1152, working=2 * 4304),
}
_TOWER_DEFAULT = Tower(4096, 3 * 14 * 14 * 4 * 2)


def _tower_bytes(config: Mapping[str, Any], dtype_bytes: int) -> int:
    """Bytes of the vision tower by the formula of a ViT: 4 h^2 + 2 h i per layer; 0 when the sizes are not given."""
    vision = config.get("vision_config") or {}
    if not isinstance(vision, Mapping):
        return 0
    hidden = int(_first(vision, "hidden_size", "embed_dim", default=0) or 0)
    depth = int(_first(vision, "num_hidden_layers", "depth", default=0) or 0)
    width = int(_first(vision, "intermediate_size", default=4 * hidden) or 0)
    return depth * (4 * hidden * hidden + 2 * hidden * width) * dtype_bytes


_TOWER_NAMES = re.compile(r"vision|visual|image|audio|multi_modal|mm_projector|merger|patch_embed|vit\b|perceiver")


def weights_from_headers(headers: Mapping[str, Any]) -> Weights:
    """Bytes of the weights from safetensors headers: name -> {``dtype``, ``shape``} or {``data_offsets``}.

    What belongs to a vision or audio tower is told by its name. Entries that are not tensors (``__metadata__``)
    are skipped.
    """
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "F4": 0.5}
    total = tower = 0.0
    for name, entry in headers.items():
        if name == "__metadata__" or not isinstance(entry, Mapping):
            continue
        if entry.get("data_offsets"):
            count = float(entry["data_offsets"][1] - entry["data_offsets"][0])
        else:
            count = float(sizes.get(str(entry.get("dtype")), 1))
            for side in entry.get("shape", ()):
                count *= side
        total += count
        if _TOWER_NAMES.search(name):
            tower += count
    return Weights(int(total), int(tower), "headers")


def stored_bytes(tensor: Tensor, dtype_bytes: float, quantization: Quantization | None) -> float:
    """Bytes of a tensor in the files (all shards together)."""
    if tensor.role == "absorbed":
        return 0.0
    if quantization is not None and tensor.role in quantization.roles:
        return tensor.elements() * quantization.bytes_per_weight
    return tensor.elements() * dtype_bytes


def _formula_bytes(layers: Sequence[Layer], shape: _Shape, vocabulary: int, tied: bool, dtype_bytes: int,
                   quantization: Quantization | None) -> int:  # fmt: skip
    body = sum(stored_bytes(t, dtype_bytes, quantization) for layer in layers for t in layer.tensors)
    return int(body + vocabulary * shape.hidden * dtype_bytes * (1 if tied else 2))


# transformers' config classes that tie the embeddings unless the file says otherwise.
_TIED_DEFAULT = frozenset(
    {"gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "opt", "bloom", "falcon", "mpt", "cohere", "cohere2",
     "gpt_bigcode", "starcoder2", "phi", "mamba", "mamba2", "falcon_mamba"}
) - {"phi"}  # fmt: skip


def _shape(text: Mapping[str, Any]) -> _Shape:
    heads = int(_first(text, "num_attention_heads", "n_head", "num_heads", "n_heads", default=0) or 0)
    hidden = int(_first(text, "hidden_size", "n_embd", "d_model", "dim", default=0) or 0)
    if hidden < 1:
        raise ModelConfigError("config.json gives no hidden_size: this is not the config of a language model")
    head = int(_first(text, "head_dim", "hidden_size_per_head", "attention_head_dim", default=0) or 0)
    if text.get("model_type") in _NOT_MLA:
        head = int(text["qk_nope_head_dim"]) + int(text["qk_rope_head_dim"])  # values are padded to it
    head = head or (hidden // heads if heads else 0)
    width = _first(text, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "ffn_hidden_dim", default=0)
    if isinstance(width, Sequence):
        width = max(width, default=0)
    model_type = str(text.get("model_type", ""))
    has_moe = _first(text, "moe_intermediate_size", default=0)
    pure_state = model_type in ("mamba", "mamba2", "falcon_mamba", "nemotron_h")
    width = max(0, int(width or (0 if has_moe or pure_state else 4 * hidden)))
    if model_type in ("mamba", "mamba2", "falcon_mamba"):
        width = 0
    return _Shape(hidden, heads, _kv_heads(text, heads), head, width, model_type not in _UNGATED)


def _warnings(model_type: str, text_type: str, architecture: str, text: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    if model_type not in _KNOWN_TYPES and text_type not in _KNOWN_TYPES:
        notes.append(
            f"architecture {architecture or model_type or 'unnamed'} is not one the weight and memory formulas were"
            " checked with; the error band is wide"
        )
    if text.get("compress_ratios") or text.get("block_configs"):
        notes.append("layers of this model differ from each other in ways the formulas do not follow")
    return tuple(notes)


_POOLING = re.compile(r"(ForSequenceClassification|EmbeddingModel|RewardModel|ForTokenClassification|BertModel)$")


def read_model(
    config: Mapping[str, Any],
    *,
    headers: Mapping[str, Any] | None = None,
    total_bytes: int | None = None,
) -> ModelSpec:
    """Read a ``config.json`` (as a mapping) into a :class:`ModelSpec`.

    ``headers`` are the merged headers of the safetensors files; ``total_bytes`` their size when the headers are not
    at hand (the index's ``total_size``). Without both, the weights come from the config alone.

    Raises :class:`ModelConfigError` when the mapping names no hidden size or layers, or fields that do not go
    together. An architecture that is not known gives a spec with ``known`` False and a warning, never an error.
    """
    if not isinstance(config, Mapping):
        raise ModelConfigError("config.json must hold a mapping")
    try:
        return _read(config, headers, total_bytes)
    except ModelConfigError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelConfigError(f"the fields of config.json do not go together: {error!r}") from error


def _read(config: Mapping[str, Any], headers: Mapping[str, Any] | None, total_bytes: int | None) -> ModelSpec:
    """The work of :func:`read_model`."""
    text = _text(config)
    if text.get("model_type") == "nemotron_h" and isinstance(text.get("layers_block_type"), Sequence):
        text["hybrid_override_pattern"] = "".join(_LETTERS[kind] for kind in text.pop("layers_block_type"))
    model_type, text_type = str(config.get("model_type", "")), str(text.get("model_type", ""))
    architectures = config.get("architectures") or text.get("architectures") or [""]
    architecture = str(architectures[0])
    shape = _shape(text)
    count = int(_first(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers", default=0) or 0)
    count = count or len(_first(text, "hybrid_override_pattern", "layers_block_type", "layer_types", default=""))
    if count < 1:
        raise ModelConfigError("config.json gives no number of layers: this is not the config of a language model")
    dtype = str(
        _first(text, "dtype", "torch_dtype", default=_first(config, "dtype", "torch_dtype", default="bfloat16"))
    )
    dtype_bytes = _DTYPE_BYTES.get(dtype, 2)
    moe = _moe(text)
    layers = _layers(text, shape, moe, count)
    keeping = [layer for layer in layers if layer.kind not in (LINEAR, NONE)]
    if any(min(layer.kv_heads, layer.head_size, layer.value_size or 1) < 1 for layer in keeping):
        raise ModelConfigError("config.json gives no attention heads, or heads without a size")
    quantization = _quantization({**text, **config}, model_type)
    tied = bool(
        _first(config, "tie_word_embeddings", default=text.get("tie_word_embeddings", model_type in _TIED_DEFAULT))
    )
    vocabulary = int(_first(text, "vocab_size", "padded_vocab_size", default=0) or 0)
    multimodal = any(config.get(key) for key in ("vision_config", "audio_config", "visual", "vision_tower"))
    formula = _formula_bytes(layers, shape, vocabulary, tied, dtype_bytes, quantization)
    tower = _tower_bytes(config, dtype_bytes) if multimodal else 0
    weights = Weights(formula + tower, tower, "formula")
    if headers:
        weights = weights_from_headers(headers)
    elif total_bytes:
        weights = Weights(int(total_bytes), max(0, int(total_bytes) - formula) if multimodal else 0, "size")
    length = max_model_len(text)
    seen = _TOWERS.get(model_type, _TOWER_DEFAULT) if multimodal else None
    notes = _warnings(model_type, text_type, architecture, text)
    pooling = bool(_POOLING.search(architecture))
    return ModelSpec(
        architecture=architecture,
        model_type=model_type,
        layers=layers,
        hidden=shape.hidden,
        intermediate=shape.intermediate,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head,
        vocabulary=vocabulary,
        tied_embeddings=tied,
        dtype=dtype,
        dtype_bytes=dtype_bytes,
        max_len=length,
        original_len=_original_len(text, length),
        rope_elements=_rope_elements(text, shape, length, multimodal),
        gated=shape.gated,
        weights=weights,
        moe=moe,
        quantization=quantization,
        tower=seen,
        pooling=pooling,
        known=not notes,
        warnings=notes,
    )
