"""How fast the shapes of a model are on the kinds of GPU that there are; pure, private to the collection.

Predictions (``_speed``) need the rates of a GPU and the account of a shape: how many requests its cache holds decides
how many share a step. :func:`Speed.value` is what an objective looks at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .._memory.model import ModelSpec
from .._speed.gpus import GpuSpeed, gpu_speed
from .._speed.roofline import DECODE_BAND, FIRST_TOKEN_BAND, THROUGHPUT_BAND, Roofline
from .._speed.work import Work, work_of
from .._wishes.read import Parallelism, Wish
from .fit import Sized
from .hosts import Pool

__all__ = ["OUTPUT", "PROMPT", "STEP", "Speed", "Speeds", "rates", "speed_class"]

PROMPT, OUTPUT = 1000, 250  # tokens of a request at full load: what a chat has after some turns
STEP = 1.1  # speeds that differ by less are taken for equal: predictions are no better


@dataclass(frozen=True)
class Speed:
    """What is predicted of one instance.

    ``decode`` is tokens/s of one request alone, ``first_token`` seconds to the first token of a prompt of 1,000 and of
    8,000 tokens, ``throughput`` output tokens/s with ``requests`` at once, each of :data:`PROMPT` and :data:`OUTPUT`.
    """

    decode: float
    first_token: tuple[float, float]
    throughput: float
    requests: int

    def as_dict(self) -> dict[str, Any]:
        """What a plan shows, with the factor either way within which nine of ten measurements lie."""
        return {
            "decode": round(self.decode, 1),
            "first_token_1000": round(self.first_token[0], 3),
            "first_token_8000": round(self.first_token[1], 3),
            "throughput": round(self.throughput, 1),
            "requests": self.requests,
            "band": {"decode": DECODE_BAND, "first_token": FIRST_TOKEN_BAND, "throughput": THROUGHPUT_BAND},
        }

    def value(self, objective: str, gpu_count: int = 1) -> float:
        """What the objective wants much of, for each of so many GPUs: single streams are not shared out."""
        each = self.throughput / gpu_count
        return {"latency": self.decode, "throughput": each}.get(objective, math.sqrt(self.decode * each))


def rates(pool: Pool) -> GpuSpeed | None:
    """The rates of a kind of GPU; None where they are not known."""
    return gpu_speed(pool.title) or (gpu_speed(pool.gpu.name) if pool.gpu.known else None)


def speed_class(value: float) -> int:
    """Speeds as steps of :data:`STEP`; 0 for one that is not known."""
    return max(1, round(math.log(value + 1) / math.log(STEP))) if value > 0 else 0


class Speeds:
    """Predicted speeds; what the work of a model is, it keeps."""

    def __init__(self) -> None:
        self._work: dict[str, Work] = {}

    def of(self, model: ModelSpec, wish: Wish, pool: Pool, sized: Sized) -> Speed | None:
        """The speed of a shape whose account is known; None where the GPU's rates are not."""
        line = self._line(model, wish, pool, sized.parallelism)
        if line is None:
            return None
        budget = sized.sure or sized.budget
        requests = max(1, min(budget.max_num_seqs, budget.kv_cache_tokens // (PROMPT + OUTPUT)))
        return Speed(
            decode=line.decode(PROMPT),
            first_token=(line.prompt(1000), line.prompt(8000)),
            throughput=line.throughput(requests, PROMPT, OUTPUT),
            requests=requests,
        )

    def decode(self, model: ModelSpec, wish: Wish, pool: Pool, parallelism: Parallelism) -> float:
        """Tokens/s of one request, whether the shape fits or not; 0 where that is not known."""
        line = self._line(model, wish, pool, parallelism)
        return line.decode(PROMPT) if line else 0.0

    def _line(self, model: ModelSpec, wish: Wish, pool: Pool, parallelism: Parallelism) -> Roofline | None:
        gpu = rates(pool)
        if gpu is None or parallelism.tensor > pool.size:  # over hosts, by a network that nobody knows
            return None
        if wish.name not in self._work:
            self._work[wish.name] = work_of(model, wish.kv_cache_dtype or "auto")
        nvlink = pool.nvlink and parallelism.tensor > 1
        return Roofline(self._work[wish.name], gpu, parallelism.tensor, parallelism.pipeline, nvlink)
