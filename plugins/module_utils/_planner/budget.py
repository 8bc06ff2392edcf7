"""The memory account of an instance as the fleet plan shows it, and what its engine is told of memory; private."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._memory.account import Budget
from .._units import GIB
from .._wishes.read import Wish
from .choose import Choice
from .fit import UTILIZATION, Sized, engine_options
from .hosts import Pool

__all__ = ["Engine"]

PARTS = ("weights", "activations", "cuda_graphs", "non_torch", "kv_cache")
SIGMAS = 2  # width of the error bands in the plan; the margin of a pinned KV cache is as wide


class Engine:
    """What the engines of a model on one kind of GPU have in common."""

    def __init__(self, wish: Wish, choice: Choice, pool: Pool, *, on_gpus: bool, pin: bool) -> None:
        """``on_gpus`` is false for vLLM's CPU build, ``pin`` holds the KV cache to what every boot can grant."""
        self.shape = choice.shape
        self.why = choice.why.get(pool, choice.shape.why)
        if not on_gpus:
            self.why += (
                "vLLM's CPU build: the budget is what these GPUs would have; the engine has the host's memory",
            )
        self._wish = wish
        self._pool = pool
        self._sized = choice.sized.get(pool)
        self._speed = choice.speeds.get(pool)
        self._on_gpus = on_gpus
        self._pinned = pin and on_gpus and self._sized is not None and _can_pin(wish, self._sized)
        self.utilization = wish.gpu_memory_utilization or UTILIZATION

    @property
    def arguments(self) -> dict[str, Any]:
        """What vLLM reads of memory with ``--config``; None is left to vLLM."""
        sized, wish = self._sized, self._wish
        # The CPU build has other memory than the account is about, and finds its own length in it.
        planned = sized.context_length if sized and self._on_gpus else None
        return {
            "gpu-memory-utilization": self.utilization,
            "kv-cache-memory-bytes": sized.sure_bytes if sized and self._pinned else None,
            "max-model-len": wish.context_length or planned,
            "max-num-seqs": wish.concurrency,
            "kv-cache-dtype": wish.kv_cache_dtype,
        }

    @property
    def speed(self) -> dict[str, Any] | None:
        """What is predicted of it; None where nothing is, and for an engine that runs on no GPU."""
        return self._speed.as_dict() if self._speed and self._on_gpus else None

    @property
    def budget(self) -> dict[str, Any]:
        """GiB per GPU; what is not known is None."""
        total = self._pool.gpu.total_gib
        if self._sized is None:
            return {
                "gpu": self._pool.gpu.name,
                "total": None if total is None else round(total, 2),
                "requested": None if total is None else round(total * self.utilization, 2),
                **dict.fromkeys((*PARTS[:-1], "cold_compile")),
                **dict.fromkeys(("kv_cache", "kv_cache_tokens", "max_concurrency")),
                "confidence": "none",
                "error": None,
                "pinned": None,
                "conditions": None,
            }
        budget = self._sized.budget
        return {
            "gpu": self._pool.gpu.name,
            "total": round(budget.total, 2),
            "requested": round(budget.requested, 2),
            **{part: round(getattr(budget, part), 2) for part in (*PARTS[:-1], "cold_compile")},
            **_cache(budget),
            "confidence": budget.confidence if self._on_gpus else "none",
            "error": _error(budget),
            "pinned": _pinned(self._sized) if self._pinned else None,
            "conditions": self._sized.conditions,
        }


def _can_pin(wish: Wish, sized: Sized) -> bool:
    """Whether there is a cache, of a size that is sure, in an account that holds, and nobody has pinned it already."""
    cache = sized.sure is not None and sized.budget.kv_cache_tokens > 0
    return cache and not engine_options(wish)[1] and "kv-cache-memory-bytes" not in wish.extra_args


def _cache(budget: Budget) -> dict[str, Any]:
    return {
        "kv_cache": round(budget.kv_cache, 2),
        "kv_cache_tokens": budget.kv_cache_tokens,
        "max_concurrency": round(budget.max_concurrency, 2),
    }


def _error(budget: Budget) -> dict[str, Any]:
    """Half widths of the bands, each in the unit of its field."""
    widths = {part: SIGMAS * getattr(budget.band, part) for part in PARTS}
    share = widths["kv_cache"] / budget.kv_cache if budget.kv_cache > 0 else 0.0
    return {
        "total": round(SIGMAS * budget.band.total, 2),
        **{part: round(width, 2) for part, width in widths.items()},
        "kv_cache_tokens": round(share * budget.kv_cache_tokens),
        "max_concurrency": round(share * budget.max_concurrency, 2),
    }


def _pinned(sized: Sized) -> Mapping[str, Any] | None:
    """What every boot is held to, the margin below the prediction, and what a warm boot could add to the promise."""
    if sized.sure is None:
        return None
    return {
        **_cache(sized.sure),
        "margin": round(sized.budget.limiting_kv_bytes / GIB - sized.sure.kv_cache, 2),
        "warm_extra": round(sized.budget.kv_cache_warm - sized.sure.kv_cache, 2),
    }
