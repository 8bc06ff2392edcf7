"""Whether an engine that was changed serves its users well, by its own metrics; pure, private to the collection.

Names of metrics: vllm/v1/metrics/loggers.py of vLLM 0.32 and 0.33; ``http_requests_total`` is
prometheus-fastapi-instrumentator's, which vLLM's API server runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .openai import LABEL

__all__ = ["ENOUGH", "Counts", "Limits", "judge"]

ENOUGH = 20  # requests; of fewer, one that fails is no rate
SHARE = 0.95  # of the requests that have to get their first token in time
_SAMPLE = re.compile(r"^(?P<name>[\w:]+)\{(?P<labels>[^}]*)\} (?P<value>[-+.\w]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Limits:
    """What is still well: the share of requests that fail, and seconds to the first token; None: no limit."""

    error_rate: float
    ttft: float | None = None


@dataclass(frozen=True)
class Counts:
    """What an engine has counted since its start."""

    answered: float = 0.0
    refused: float = 0.0  # with a status of 500 or more
    broken: float = 0.0  # ended by an error of the engine, which a stream has no status for any more
    first_tokens: Mapping[float, float] = field(default_factory=dict)  # requests by the upper bound of their seconds

    @property
    def failed(self) -> float:
        """Most that break have such a status, so that they count once."""
        return max(self.refused, self.broken)

    @classmethod
    def read(cls, metrics: str) -> Counts:
        """The counts in the text of ``/metrics``."""
        answered = refused = broken = 0.0
        buckets: dict[float, float] = {}
        for sample in _SAMPLE.finditer(metrics):
            labels, value = dict(LABEL.findall(sample["labels"])), float(sample["value"])
            if sample["name"] == "http_requests_total" and labels.get("handler", "").startswith("/v1/"):
                answered += value
                refused += value if labels.get("status", "").startswith("5") else 0.0
            elif sample["name"] == "vllm:request_success_total" and labels.get("finished_reason") == "error":
                broken += value
            elif sample["name"] == "vllm:time_to_first_token_seconds_bucket":
                bound = float(labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + value
        return cls(answered, refused, broken, buckets)

    def since(self, before: Counts) -> Counts:
        """What was counted between the two."""
        first = {bound: number - before.first_tokens.get(bound, 0.0) for bound, number in self.first_tokens.items()}
        counted = self.answered - before.answered, self.refused - before.refused, self.broken - before.broken
        return Counts(*counted, first)

    def late(self, share: float) -> float:
        """The seconds in which so large a share had its first token, as Prometheus' histogram_quantile has it."""
        rank = share * max(self.first_tokens.values(), default=0.0)
        below, counted = 0.0, 0.0
        for bound, number in sorted(self.first_tokens.items()):
            if number >= rank > 0:
                inside = (rank - counted) / (number - counted) if number > counted else 1.0
                return below if bound == float("inf") else below + (bound - below) * inside
            below, counted = bound, number
        return 0.0


def judge(counts: Counts, limits: Limits) -> str:
    """What is wrong with these counts, or ""; with fewer requests than ENOUGH, nothing is."""
    if counts.answered < ENOUGH:
        return ""
    rate = counts.failed / counts.answered
    if rate > limits.error_rate:
        return f"{rate:.1%} of {counts.answered:.0f} requests failed; {limits.error_rate:.1%} is the limit"
    late = counts.late(SHARE)
    if limits.ttft is not None and late > limits.ttft:
        return f"one in 20 requests waited {late:.2f} s or longer for its first token; {limits.ttft:g} s is the limit"
    return ""
