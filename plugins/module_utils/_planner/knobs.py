"""What would let in a model that does not fit: each change is tried before it is named; private to the collection.

In the order of what they cost: the part of the memory that vLLM may use, a smaller cache, fewer requests, a shorter
context, quantised weights, another shape.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from .._memory.model import ModelSpec
from .._memory.validity import tensor_sizes
from .._releases.regimes import Unknown
from .._wishes.read import Parallelism, Wish
from .fit import STEP, UTILIZATION, Accounts, Misfit, Sized
from .hosts import Pool
from .shapes import Shape, on_one_host, on_several_hosts, stated

__all__ = ["Knob", "in_words", "knobs"]

MOST_UTILIZATION = 0.95  # above it, little is left for what other processes and CUDA itself take
SEQUENCES = (256, 64)  # sampling for fewer requests at once takes less memory
FP8_CAPABILITY = (8, 9)  # arithmetic in fp8, and so a cache and weights in it that cost no speed
PIN = "kv-cache-memory-bytes"
MOST_SHAPES = 12  # over several hosts, of a kind of GPU
MOST_KNOBS = 3  # more are no help


@dataclass(frozen=True)
class Change:
    """One field of a model's entry set otherwise, and the wish that the entry then is."""

    verb: str
    field: str  # below the entry
    value: Any
    wish: Wish

    def words(self) -> str:
        """The change in words: it can be carried out by what stands there."""
        told = self.value if isinstance(self.value, str) else json.dumps(self.value)
        return f"{self.verb} {self.wish.where}.{self.field} to {told}"


@dataclass(frozen=True)
class Knob:
    """Changes that let a model in together, and a shape on a kind of GPU that it then has."""

    changes: tuple[Change, ...]
    shape: Shape
    pool: Pool

    def words(self) -> str:
        """All changes in words."""
        return _sentence(" and ", [change.words() for change in self.changes])

    @property
    def fit(self) -> str:
        """What would be planned then."""
        fields = (f"{change.field.rpartition('.')[2]} {change.value}" for change in self.changes)
        return f"{' and '.join(fields)} with {self.shape} on {self.pool.gpu.name}"


def in_words(found: Sequence[Knob]) -> str:
    """A sentence with every knob, the cheapest first."""
    return f"{_sentence(', or ', [knob.words() for knob in found])}."


def _sentence(joint: str, parts: Sequence[str]) -> str:
    return joint.join([parts[0], *(f"{part[0].lower()}{part[1:]}" for part in parts[1:])])


def knobs(accounts: Accounts, wish: Wish, misfits: Sequence[Misfit], host_counts: Mapping[Pool, int]) -> list[Knob]:
    """The changes that let a model in, the cheapest first; each was tried on these hosts.

    Where none does by itself, each is tried beside another part of the memory.
    """
    found = list(islice(_curing(accounts, wish, (), misfits, host_counts), MOST_KNOBS))
    if found or wish.gpu_memory_utilization == MOST_UTILIZATION:
        return found
    verb = "Lower" if (wish.gpu_memory_utilization or UTILIZATION) > MOST_UTILIZATION else "Raise"
    larger = replace(wish, gpu_memory_utilization=MOST_UTILIZATION)
    first = Change(verb, "gpu_memory_utilization", MOST_UTILIZATION, larger)
    place, others = _tried(accounts, larger, host_counts)
    return [] if place else list(islice(_curing(accounts, larger, (first,), others, host_counts), MOST_KNOBS))


def _curing(
    accounts: Accounts,
    wish: Wish,
    before: tuple[Change, ...],
    misfits: Sequence[Misfit],
    host_counts: Mapping[Pool, int],
) -> Iterator[Knob]:
    """Knobs of one change beside those ``before`` it."""
    model = accounts.reread(wish)
    turned = {change.field for change in before}
    for change in _changes(accounts, model, wish, misfits, host_counts) if isinstance(model, ModelSpec) else ():
        place = None if change.field in turned else _tried(accounts, change.wish, host_counts)[0]
        if place is not None:
            turned.add(change.field)
            yield Knob((*before, change), *place)


def _results(
    accounts: Accounts, wish: Wish, host_counts: Mapping[Pool, int]
) -> Iterator[tuple[Shape, Pool, Sized | Misfit | Unknown]]:
    """What becomes of a wish that somebody might have, in every shape on every kind of GPU."""
    model = accounts.reread(wish)
    if not isinstance(model, ModelSpec):
        return
    for pool in sorted(host_counts, key=repr):
        if wish.parallelism:
            shapes = [stated(wish.parallelism, pool, host_counts)]
        else:
            several = on_several_hosts(model, wish, pool, host_counts[pool])
            # Of hundreds of shapes some, evenly, and the largest.
            step = 1 + len(several) // MOST_SHAPES
            shapes = on_one_host(model, wish, pool) + several[::-step][::-1]
        for shape in shapes:
            yield shape, pool, accounts.trial(model, wish, pool, shape, host_counts[pool])


def _tried(
    accounts: Accounts, wish: Wish, host_counts: Mapping[Pool, int]
) -> tuple[tuple[Shape, Pool] | None, list[Misfit]]:
    """A shape and a kind of GPU that take a wish, None if none does; and what does not."""
    misfits: list[Misfit] = []
    for shape, pool, result in _results(accounts, wish, host_counts):
        if isinstance(result, Sized):
            return (shape, pool), misfits
        misfits += [result] if isinstance(result, Misfit) else []
    return None, misfits


def _sized(accounts: Accounts, wish: Wish, host_counts: Mapping[Pool, int]) -> list[Sized]:
    """Every account that takes a wish."""
    return [result for _, _, result in _results(accounts, wish, host_counts) if isinstance(result, Sized)]


def _changes(
    accounts: Accounts, model: ModelSpec, wish: Wish, misfits: Sequence[Misfit], host_counts: Mapping[Pool, int]
) -> Iterator[Change]:
    """What may be tried."""
    yield from _of_validity(model, wish, misfits, host_counts)
    yield from _smaller_pin(accounts, wish, host_counts)
    utilization = wish.gpu_memory_utilization or UTILIZATION
    for value in (MOST_UTILIZATION, UTILIZATION):
        if value != utilization:
            verb = "Raise" if value > utilization else "Lower"
            yield Change(verb, "gpu_memory_utilization", value, replace(wish, gpu_memory_utilization=value))
    recent = any(pool.gpu.compute_capability >= FP8_CAPABILITY for pool in host_counts)
    if recent and wish.kv_cache_dtype is None and model.kv_dtype == "auto" and not model.mla:
        yield Change("Set", "kv_cache_dtype", "fp8", replace(wish, kv_cache_dtype="fp8"))
    yield from _fewer(accounts, wish, host_counts)
    longest = max((misfit.longest for misfit in misfits), default=0)
    if longest >= STEP:
        verb = "Lower" if wish.context_length else "Set"
        yield Change(verb, "context_length", longest, replace(wish, context_length=longest))
    if recent and model.quantization is None and "quantization" not in wish.extra_args:
        yield Change("Set", "extra_args.quantization", "fp8", _with_argument(wish, "quantization", "fp8"))
    if wish.parallelism is not None:
        yield Change("Set", "parallelism", "auto", replace(wish, parallelism=None))


def _of_validity(
    model: ModelSpec, wish: Wish, misfits: Sequence[Misfit], host_counts: Mapping[Pool, int]
) -> Iterator[Change]:
    """What cures a shape or a length that vLLM refuses whatever memory there is."""
    if not any(misfit.needed_gib is None for misfit in misfits):
        return
    if wish.context_length and wish.context_length > model.max_len:
        yield Change("Lower", "context_length", model.max_len, replace(wish, context_length=model.max_len))
        if model.rope_len >= wish.context_length:  # the configuration's rope covers it, its length does not say so
            given = wish.extra_args.get("hf-overrides")
            kept = given if isinstance(given, Mapping) else {}
            overrides = {**kept, "max_position_embeddings": wish.context_length}
            yield Change("Set", "extra_args.hf-overrides", overrides, _with_argument(wish, "hf-overrides", overrides))
    if "dtype" in wish.extra_args:
        yield Change("Set", "extra_args.dtype", "bfloat16", _with_argument(wish, "dtype", "bfloat16"))
    stated_shape = wish.parallelism
    if stated_shape is None:
        return
    if stated_shape.expert and model.moe is None:
        yield Change("Set", "parallelism.expert", False, replace(wish, parallelism=replace(stated_shape, expert=False)))
    largest = max((pool.size for pool in host_counts), default=1)
    sizes = tensor_sizes(model, largest, stated_shape.expert)
    for size in sorted(sizes, key=lambda size: (size > stated_shape.tensor, abs(size - stated_shape.tensor))):
        if size != stated_shape.tensor:
            verb = "Raise" if size > stated_shape.tensor else "Lower"
            shape = Parallelism(size, stated_shape.pipeline, stated_shape.expert)
            yield Change(verb, "parallelism.tensor", size, replace(wish, parallelism=shape))


def _smaller_pin(accounts: Accounts, wish: Wish, host_counts: Mapping[Pool, int]) -> Iterator[Change]:
    """A cache of a size that is given: what the GPU surely has for it."""
    if PIN in wish.extra_args:
        free = replace(wish, extra_args={name: value for name, value in wish.extra_args.items() if name != PIN})
        for sized in _sized(accounts, free, host_counts)[:1]:
            yield Change("Lower", f"extra_args.{PIN}", sized.sure_bytes, _with_argument(wish, PIN, sized.sure_bytes))


def _fewer(accounts: Accounts, wish: Wish, host_counts: Mapping[Pool, int]) -> Iterator[Change]:
    """Fewer requests at once."""
    if wish.concurrency and wish.concurrency > 1:
        alone = _sized(accounts, replace(wish, concurrency=1), host_counts)
        held = max((int((sized.sure or sized.budget).max_concurrency) for sized in alone), default=0)
        # More requests than one take more memory to sample for, so the first number may be one too many.
        for number in sorted({min(held, wish.concurrency - 1), 1}, reverse=True) if held else ():
            yield Change("Lower", "concurrency", number, replace(wish, concurrency=number))
    elif wish.concurrency is None and "max-num-seqs" not in wish.extra_args:
        for number in SEQUENCES:
            yield Change("Set", "extra_args.max-num-seqs", number, _with_argument(wish, "max-num-seqs", number))


def _with_argument(wish: Wish, name: str, value: Any) -> Wish:
    """A wish with one more option of vLLM."""
    return replace(wish, extra_args={**wish.extra_args, name: value})
