"""vLLM's planning of the KV cache, redone as formulas; private to the collection.

Given the bytes that each GPU has for the cache, :func:`plan_kv_cache` gives the blocks, the tokens and the
concurrency that vLLM logs, or raises :class:`KvCacheError` with the message that it stops with. Given the bytes, the
result is exact for vLLM 0.33 (source: ``v1/core/kv_cache_planning.py``, ``kv_cache_utils.py``,
``kv_cache_interface.py``); :class:`KvRules` holds where older versions differ.

Bytes are per GPU. A "block" holds ``block_size`` tokens of every layer of one group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm

from .._errors import KvCacheError
from .._releases.regimes import KvRules
from .._units import GIB
from .model import CHUNKED, CROSS, FULL, LINEAR, MLA, NONE, SLIDING, ModelSpec

__all__ = [
    "KV_DTYPES",
    "KvDtype",
    "KvGroup",
    "KvOptions",
    "KvPlan",
    "KvSpec",
    "group_layers",
    "kv_dtype",
    "layer_specs",
    "pipeline_partition",
    "plan_kv_cache",
]


def cdiv(dividend: int, divisor: int) -> int:
    """Division that rounds up."""
    return -(-dividend // divisor)


@dataclass(frozen=True)
class KvDtype:
    """How a key or value is kept: ``element`` bytes each, and ``head`` more bytes per head and side (scales)."""

    element: float
    head: int = 0

    def side(self, size: int) -> int:
        """Bytes of one side (key or value) of one head for one token."""
        return int(size * self.element) + self.head + (size // 16 if self.element == 0.5 and not self.head else 0)


# vLLM 0.33 config/cache.py and kv_cache_interface.py. nvfp4: half a byte and one scale byte per 16 elements;
# the per-token-head types carry an fp32 scale per head and side. MLA's own types are bytes per token (below).
KV_DTYPES: dict[str, KvDtype] = {
    "fp8": KvDtype(1.0),
    "fp8_e4m3": KvDtype(1.0),
    "fp8_e5m2": KvDtype(1.0),
    "fp8_inc": KvDtype(1.0),
    "nvfp4": KvDtype(0.5),
    "fp8_per_token_head": KvDtype(1.0, 4),
    "int8_per_token_head": KvDtype(1.0, 4),
    "int4_per_token_head": KvDtype(0.5, 4),
    "bfloat16": KvDtype(2.0),
    "float16": KvDtype(2.0),
    "half": KvDtype(2.0),
    "float32": KvDtype(4.0),
}
# Bytes per token of the special MLA layouts (attention backends of DeepSeek sparse attention).
_MLA_TOKEN_BYTES = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}


def kv_dtype(name: str, model_bytes: int) -> KvDtype:
    """The type called ``name``; ``auto`` is the model's, ``model_bytes`` wide."""
    return KV_DTYPES.get(name, KvDtype(float(model_bytes)))


@dataclass(frozen=True)
class KvOptions:
    """What of the engine's options the cache depends on.

    ``max_model_len`` in tokens; ``auto_length``: shrink it to what fits (``--max-model-len auto``).
    ``dtype`` is the cache's type, ``model_bytes`` the size of an element in the model's own type as it runs.
    ``concurrent_batches``: batches in flight at once (pipeline size + 1 with asynchronous scheduling).
    ``mamba_align``: states are kept at block borders (two per request, prefix caching on). ``checkpoints``: families of
    states that are also saved inside a prefill, which takes one more, and the multiple of tokens where that is done.
    ``hybrid_manager`` False: sliding windows are allocated like full attention. ``context_parallel``: the
    decode-context-parallel size.
    """

    max_model_len: int
    block_size: int = 16
    dtype: str = "auto"
    model_bytes: int = 2
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    max_num_batched_tokens: int = 8192
    concurrent_batches: int = 2
    mamba_align: bool = True
    checkpoints: Mapping[str, int] = field(default_factory=lambda: {"mamba2": 1})
    hybrid_manager: bool = True
    auto_length: bool = False
    context_parallel: int = 1


@dataclass(frozen=True)
class KvSpec:
    """What one layer needs of the cache.

    ``kind`` as in ``model``; tokens per block, bytes per block; the window, or for a state how many of them a request
    keeps. ``shape`` tells apart what happens to have pages of the same size.
    """

    kind: str
    block_size: int
    page_bytes: int
    window: int = 0
    shape: tuple[int, ...] = ()

    def blocks_for(self, length: int, options: KvOptions, rules: KvRules) -> int:
        """Blocks that one request of ``length`` tokens holds at most (``max_memory_usage_bytes`` over the page)."""
        if self.kind == LINEAR:
            return self.window
        if self.kind == CROSS:  # CrossAttentionSpec: as many as an encoder may be given at once
            return cdiv(options.max_num_batched_tokens, self.block_size)
        batches = options.concurrent_batches if rules.in_flight else 1
        flight = batches * options.max_num_batched_tokens
        if self.kind == SLIDING:
            if options.context_parallel > 1:
                raise KvCacheError("DCP not support sliding window.")
            return cdiv(min(self.window - 1 + flight, length), self.block_size) + 1
        if self.kind == CHUNKED:
            return cdiv(min(self.window + flight, length), self.block_size)
        return cdiv(cdiv(length, options.context_parallel), self.block_size)


@dataclass(frozen=True)
class KvGroup:
    """Layers that share a table of blocks.

    ``layers`` are indices into the model's layers; ``pages`` the bytes per block of each (an indexer's included).
    """

    spec: KvSpec
    layers: tuple[int, ...]
    pages: tuple[int, ...]


@dataclass(frozen=True)
class KvPlan:
    """What vLLM makes of the cache.

    ``num_blocks`` of ``block_bytes`` (per worker, in order); ``tokens`` and ``concurrency`` as logged;
    ``needed_bytes`` per worker for one request of ``max_model_len`` tokens.
    """

    num_blocks: int
    block_bytes: tuple[int, ...]
    tokens: int
    concurrency: float
    max_model_len: int
    needed_bytes: tuple[int, ...]
    groups: tuple[KvGroup, ...]


def pipeline_partition(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of every pipeline stage: the remainder goes to the stages before the last (``distributed/utils.py``)."""
    counts = [layers // stages] * stages
    for place in range(2, layers % stages + 2):
        counts[-place] += 1
    return tuple(counts)


def _attention_page(model: ModelSpec, index: int, options: KvOptions, block_size: int) -> int:
    layer = model.layers[index]
    heads = max(1, layer.kv_heads // options.tensor_parallel)
    dtype = kv_dtype(options.dtype, options.model_bytes)
    if layer.kind == MLA:
        token = _MLA_TOKEN_BYTES.get(options.dtype) or dtype.side(layer.head_size) + dtype.head  # a pair of scales
        return block_size * token
    return heads * block_size * (dtype.side(layer.head_size) + dtype.side(layer.value_size))


def _state_page(model: ModelSpec, index: int, options: KvOptions) -> int:
    state = model.layers[index].state
    if state is None:
        return 0
    parallel = options.tensor_parallel
    groups = state.groups
    if groups % parallel:
        groups += parallel - groups  # groups that do not divide are replicated (extra_groups_for_head_shards)
    convolution = (state.convolution + groups * state.group_elements) // parallel
    recurrent = state.recurrent // parallel
    # A state is kept in the model's type unless its config says otherwise (kv_cache_dtype does not touch it).
    return convolution * options.model_bytes + recurrent * (state.recurrent_bytes or options.model_bytes)


def layer_specs(model: ModelSpec, options: KvOptions) -> list[tuple[int, KvSpec]]:
    """What every layer keeps, with the layer's index; a layer with attention and a state is there twice.

    For hybrid models the block of the attention layers grows to the least multiple of its size whose page holds a
    state, and the state's page is padded to it (``platforms/interface.py``, ``_align_hybrid_block_size``).
    """
    block = options.block_size
    states = {i: _state_page(model, i, options) for i, layer in enumerate(model.layers) if layer.state is not None}
    families = {layer.state.family for layer in model.layers if layer.state is not None}
    attention = [i for i, layer in enumerate(model.layers) if layer.kind not in (LINEAR, NONE)]
    pages = states
    if states and attention:
        token = max(_attention_page(model, i, options, 1) for i in attention)
        step = max(16, block, 128 if model.mla else 0)
        if options.mamba_align:
            step = lcm(step, *(options.checkpoints.get(family, 1) for family in families))
        block = max(block, step * cdiv(max(states.values()), step * token))
        pages = dict.fromkeys(states, block * token)
    kept = 2 + max((int(family in options.checkpoints) for family in families), default=0) if options.mamba_align else 1
    state_block = block if options.mamba_align else options.max_model_len
    specs = [(i, KvSpec(LINEAR, state_block, pages[i], kept, (states[i],))) for i in states]
    for i in attention:
        layer = model.layers[i]
        shape = (layer.kv_heads, layer.head_size, layer.value_size)
        page = _attention_page(model, i, options, block)
        specs.append((i, KvSpec(layer.kind, block, page, layer.window, shape)))
        if layer.cross:
            specs.append((i, KvSpec(CROSS, block, page, 0, shape)))
    return sorted(specs, key=lambda entry: entry[0])


def _promote(specs: Sequence[KvSpec]) -> list[KvSpec]:
    """Windows allocated like full attention (``unify_hybrid_kv_cache_specs``), which must leave one table."""
    if _one_table(specs):
        return list(specs)
    promoted = [replace(s, kind=FULL, window=0) if s.kind in (SLIDING, CHUNKED) else s for s in specs]
    if not {s.kind for s in specs} & {FULL, MLA} or not _one_table(promoted):
        raise KvCacheError("Failed to promote local KV cache specs to one unified type.")
    return promoted


def _unify_pages(specs: Sequence[KvSpec]) -> list[KvSpec]:
    """Pages made equal: smaller ones get more tokens per block, or are padded when that does not divide."""
    largest = max(spec.page_bytes for spec in specs)
    unified = []
    for spec in specs:
        ratio = largest // spec.page_bytes if spec.kind != LINEAR and largest % spec.page_bytes == 0 else 1
        unified.append(replace(spec, block_size=spec.block_size * ratio, page_bytes=largest))
    return unified


def _one_table(specs: Sequence[KvSpec]) -> bool:
    """Whether all layers need the same number of tokens kept, so that one table serves them."""
    kinds = {FULL if spec.kind == MLA else spec.kind for spec in specs}
    pages = {spec.page_bytes for spec in specs} if LINEAR in kinds else {0}
    return len(kinds) == len(pages) == len({(spec.window, spec.block_size) for spec in specs}) == 1


def group_layers(model: ModelSpec, options: KvOptions, rules: KvRules) -> tuple[KvGroup, ...]:
    """The groups of layers that share a block table (``get_kv_cache_groups``); () for a model without a cache."""
    entries = layer_specs(model, options)
    if not entries:
        return ()
    indices, specs = [i for i, _ in entries], [spec for _, spec in entries]
    if not options.hybrid_manager:
        specs = _promote(specs)
    if _one_table(specs):
        pages = tuple(s.page_bytes + model.layers[i].indexer * s.block_size for i, s in zip(indices, specs))
        return (KvGroup(specs[0], tuple(indices), pages),)
    kinds: dict[KvSpec, list[int]] = {}
    for i, spec in zip(indices, _unify_pages(specs)):
        kinds.setdefault(spec, []).append(i)
    counts = [len(members) for members in kinds.values()]
    size = min(counts)
    if max(counts) < size * rules.padding_threshold:
        size = max(counts)
    groups = []
    for spec, members in kinds.items():
        number = cdiv(len(members), size)
        for offset in range(number):
            part = tuple(members[offset::number])
            groups.append(KvGroup(spec, part, (spec.page_bytes,) * len(part)))
    return tuple(groups)


def _worker_groups(groups: Sequence[KvGroup], first: int, last: int) -> list[KvGroup]:
    """The groups as one pipeline stage sees them: only its layers, ``first`` to before ``last``."""
    projected = []
    for group in groups:
        kept = [(i, page) for i, page in zip(group.layers, group.pages) if first <= i < last]
        projected.append(KvGroup(group.spec, tuple(i for i, _ in kept), tuple(page for _, page in kept)))
    return projected


def _request_blocks(groups: Sequence[KvGroup], length: int, options: KvOptions, rules: KvRules) -> int:
    return sum(group.spec.blocks_for(length, options, rules) for group in groups)


def _longest(groups: Sequence[KvGroup], block: int, memory: int, options: KvOptions, rules: KvRules) -> int:
    """The longest request that fits, by bisection; 0 when not even one token does."""
    low, high, found = 1, options.max_model_len, 0
    while low <= high:
        middle = (low + high) // 2
        if block * _request_blocks(groups, middle, options, rules) <= memory:
            found, low = middle, middle + 1
        else:
            high = middle - 1
    return found


def _gib(count: int) -> str:
    """Bytes as vLLM's messages show them."""
    return str(round(count / GIB, 2))


def _check(groups: Sequence[KvGroup], block: int, memory: int, options: KvOptions, rules: KvRules) -> None:
    """Raise when one request of the full length does not fit into ``memory`` bytes."""
    if memory <= 0:
        raise KvCacheError(
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the"
            " engine",
            available_bytes=memory,
        )
    needed = block * _request_blocks(groups, options.max_model_len, options, rules)
    if needed <= memory:
        return
    longest = _longest(groups, block, memory, options, rules)
    estimate = (
        f"Based on the available memory, the estimated maximum model length is {longest}. " if longest > 0 else ""
    )
    raise KvCacheError(
        f"To serve at least one request with the model's max seq len ({options.max_model_len}), ({_gib(needed)} GiB KV"
        f" cache is needed, which is larger than the available KV cache memory ({_gib(memory)} GiB). {estimate}Try"
        " increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or decreasing"
        " `max_model_len` when initializing the engine.",
        needed_bytes=needed,
        available_bytes=memory,
        max_model_len=longest,
    )


def plan_kv_cache(
    model: ModelSpec,
    available_bytes: Sequence[int],
    options: KvOptions,
    rules: KvRules | None = None,
    *,
    blocks: int | None = None,
) -> KvPlan:
    """Blocks, tokens and concurrency from the bytes that every GPU has for the cache.

    ``available_bytes`` has one number per worker, in vLLM's order (tensor-parallel ranks within pipeline stages), or
    one number per stage. ``blocks`` is ``--num-gpu-blocks-override``.

    Raises :class:`KvCacheError` where vLLM's start-up would stop. A model without a cache gives zero tokens.
    """
    rules = rules or KvRules()
    groups = group_layers(model, options, rules)
    if not groups:
        return KvPlan(1, (), 0, 0.0, options.max_model_len, (), ())
    stages = options.pipeline_parallel
    per_stage = max(1, len(available_bytes) // stages)
    partition = pipeline_partition(len(model.layers), stages)
    workers = []
    for rank, memory in enumerate(available_bytes):
        stage = min(rank // per_stage, stages - 1)
        first = sum(partition[:stage])
        own = _worker_groups(groups, first, first + partition[stage])
        block = max(sum(group.pages) for group in own)
        if block:
            workers.append((own, block, memory if blocks is None else blocks * block))
    if options.auto_length:
        options = replace(options, max_model_len=_fitting_length(workers, options, rules))
    for own, block, memory in workers:
        _check(own, block, memory - block * rules.null_block, options, rules)
    count = min(memory // block for _, block, memory in workers)
    request = _request_blocks(groups, options.max_model_len, options, rules)
    concurrency = count / request
    if rules.tokens_by_concurrency:
        tokens = int(concurrency * options.max_model_len)
    else:
        tokens = count // len(groups) * min(g.spec.block_size for g in groups) * options.context_parallel
    return KvPlan(
        count,
        tuple(block for _, block, _ in workers),
        tokens,
        concurrency,
        options.max_model_len,
        tuple(block * request for _, block, _ in workers),
        groups,
    )


def _fitting_length(workers: Sequence[tuple[list[KvGroup], int, int]], options: KvOptions, rules: KvRules) -> int:
    """The length that ``--max-model-len auto`` ends at: the least over the workers."""
    length = options.max_model_len
    for own, block, memory in workers:
        length = min(length, _longest(own, block, memory - block * rules.null_block, options, rules))
    if length <= 0:
        raise KvCacheError(
            "Cannot auto-fit max_model_len: not enough GPU memory available to serve even a single token. Try"
            " increasing `gpu_memory_utilization`."
        )
    return length
