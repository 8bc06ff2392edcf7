"""vLLM's planning of the KV cache, redone as formulas; private to the collection.

Given the bytes that each GPU has for the cache, :func:`plan_kv_cache` gives the blocks, the tokens and the
concurrency that vLLM logs, or raises :class:`KvCacheError` with the message that it stops with. Given the bytes, the
result is exact for vLLM 0.33 (source: ``v1/core/kv_cache_planning.py``, ``kv_cache_utils.py``,
``kv_cache_interface.py``); :class:`KvRules` holds where older versions differ.

Bytes are per GPU. A "block" holds ``block_size`` tokens of every layer of one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ._errors import KvCacheError
from ._model import CHUNKED, FULL, LINEAR, MLA, NONE, SLIDING, ModelSpec

__all__ = [
    "KV_DTYPES",
    "KvDtype",
    "KvGroup",
    "KvOptions",
    "KvPlan",
    "KvRules",
    "KvSpec",
    "group_layers",
    "kv_dtype",
    "layer_specs",
    "pipeline_partition",
    "plan_kv_cache",
]

GIB = 1 << 30


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
class KvRules:
    """Where versions of vLLM plan differently.

    ``padding_threshold``: hybrid layers are padded to the larger count when it is less than this many times the
    smaller one. ``tokens_by_concurrency``: the logged tokens are concurrency times length rather than blocks times
    block size. ``null_block``: one block is held back before the check that a request fits.
    ``in_flight``: a sliding window keeps the tokens of every batch in flight, not of one.
    ``align_default``: hybrid models with prefix caching keep two states per request.
    """

    padding_threshold: float = 1.5
    tokens_by_concurrency: bool = True
    null_block: bool = True
    in_flight: bool = True
    align_default: bool = True


@dataclass(frozen=True)
class KvOptions:
    """What of the engine's options the cache depends on.

    ``max_model_len`` in tokens; ``auto_length``: shrink it to what fits (``--max-model-len auto``).
    ``dtype`` is the cache's type, ``model_bytes`` the size of an element in the model's own type as it runs.
    ``concurrent_batches``: batches in flight at once (pipeline size + 1 with asynchronous scheduling).
    ``mamba_align``: states are kept at block borders (two per request). ``hybrid_manager`` False: sliding windows
    are allocated like full attention. ``context_parallel``: the decode-context-parallel size.
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
    hybrid_manager: bool = True
    auto_length: bool = False
    context_parallel: int = 1


@dataclass(frozen=True)
class KvSpec:
    """What one layer needs of the cache: ``kind`` as in ``_model``, tokens per block, bytes per block, window."""

    kind: str
    block_size: int
    page_bytes: int
    window: int = 0
    padded: bool = False

    def blocks_for(self, length: int, options: KvOptions, rules: KvRules) -> int:
        """Blocks that one request of ``length`` tokens holds at most (``max_memory_usage_bytes`` over the page)."""
        if self.kind == LINEAR:
            return 2 if options.mamba_align else 1
        batches = options.concurrent_batches if rules.in_flight else 1
        flight = batches * options.max_num_batched_tokens
        if self.kind == SLIDING:
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
        token = _MLA_TOKEN_BYTES.get(options.dtype) or dtype.side(layer.head_size)
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


def layer_specs(model: ModelSpec, options: KvOptions) -> dict[int, KvSpec]:
    """The cache of every layer that has one, by the layer's index.

    For hybrid models the block of the attention layers grows to the least multiple of 16 tokens whose page holds a
    state, and the state's page is padded to it (``platforms/interface.py``).
    """
    block = options.block_size
    states = {i: _state_page(model, i, options) for i, layer in enumerate(model.layers) if layer.kind == LINEAR}
    attention = [i for i, layer in enumerate(model.layers) if layer.kind not in (LINEAR, NONE)]
    padded = max(states.values(), default=0)
    if states and attention:
        token = max(_attention_page(model, i, options, 1) for i in attention)
        block = max(block, 16 * cdiv(padded, 16 * token))
        padded = block * token
    specs = {i: KvSpec(LINEAR, options.max_model_len, padded) for i in states}
    for i in attention:
        layer = model.layers[i]
        specs[i] = KvSpec(layer.kind, block, _attention_page(model, i, options, block), layer.window)
    return dict(sorted(specs.items()))


def _promote(specs: dict[int, KvSpec]) -> dict[int, KvSpec]:
    """Windows allocated like full attention, when the model has both (``--disable-hybrid-kv-cache-manager``)."""
    kinds = {spec.kind for spec in specs.values()}
    if not kinds & {FULL, MLA} or not kinds & {SLIDING, CHUNKED}:
        return specs
    return {i: replace(s, kind=FULL, window=0) if s.kind in (SLIDING, CHUNKED) else s for i, s in specs.items()}


def _unify_pages(specs: dict[int, KvSpec]) -> dict[int, KvSpec]:
    """Pages made equal: smaller ones get more tokens per block, or are padded when that does not divide."""
    largest = max(spec.page_bytes for spec in specs.values())
    unified = {}
    for i, spec in specs.items():
        if spec.kind != LINEAR and largest % spec.page_bytes == 0:
            ratio = largest // spec.page_bytes
            unified[i] = replace(spec, block_size=spec.block_size * ratio, page_bytes=largest)
        else:
            unified[i] = replace(spec, page_bytes=largest, padded=spec.page_bytes != largest)
    return unified


def _one_table(specs: Sequence[KvSpec]) -> bool:
    """Whether all layers need the same number of tokens kept, so that one table serves them."""
    return len({(s.kind if s.kind not in (FULL, MLA) else FULL, s.window, s.block_size) for s in specs}) == 1


def group_layers(model: ModelSpec, options: KvOptions, rules: KvRules) -> tuple[KvGroup, ...]:
    """The groups of layers that share a block table (``get_kv_cache_groups``); () for a model without a cache."""
    specs = layer_specs(model, options)
    if not specs:
        return ()
    if not options.hybrid_manager:
        specs = _promote(specs)
    if _one_table(list(specs.values())):
        pages = tuple(spec.page_bytes + model.layers[i].indexer * spec.block_size for i, spec in specs.items())
        return (KvGroup(next(iter(specs.values())), tuple(specs), pages),)
    specs = _unify_pages(specs)
    kinds: dict[KvSpec, list[int]] = {}
    for i, spec in specs.items():
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
