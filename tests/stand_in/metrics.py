"""What ``/metrics`` of vLLM 0.33 tells, by the same names, types and labels."""

from __future__ import annotations

import itertools
import math
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from .cache import Cache

COUNTERS = (
    "prompt_tokens", "generation_tokens", "prompt_tokens_cached", "prefix_cache_queries", "prefix_cache_hits",
    "external_prefix_cache_queries", "external_prefix_cache_hits", "num_preemptions", "mm_cache_queries",
    "mm_cache_hits",
)  # fmt: skip
SECONDS = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 480.0, 960.0, 2560.0)
TOKENS = (1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0)
HISTOGRAMS: dict[str, Sequence[float]] = {
    **dict.fromkeys(
        ["time_to_first_token_seconds", "inter_token_latency_seconds", "request_time_per_output_token_seconds",
         "e2e_request_latency_seconds", "request_queue_time_seconds", "request_inference_time_seconds",
         "request_prefill_time_seconds", "request_decode_time_seconds"], SECONDS),
    **dict.fromkeys(
        ["request_prompt_tokens", "request_generation_tokens", "request_max_num_generation_tokens",
         "request_params_n", "request_params_max_tokens", "iteration_tokens_total", "request_num_preemptions",
         "request_prefill_kv_computed_tokens"], TOKENS),
}  # fmt: skip
REASONS = ("stop", "length", "abort", "error", "repetition")


class Metrics:
    """Counts what an engine does; every method may be called by any thread."""

    def __init__(self, model: str, config: Mapping[str, str], cache: Cache) -> None:
        self._labels = f'engine="0",model_name="{model}"'
        self._config = ",".join(f'{name}="{value}"' for name, value in {**config, "engine": "0"}.items())
        self._cache = cache
        self._lock = threading.Lock()
        self._counts: dict[str, float] = defaultdict(float)
        self._answered: dict[tuple[str, str, str], int] = defaultdict(int)  # by path, method and class of status
        self._finished = dict.fromkeys(REASONS, 0)
        self._buckets = {name: [0] * (len(bounds) + 1) for name, bounds in HISTOGRAMS.items()}  # the last: +Inf
        self._sums = dict.fromkeys(HISTOGRAMS, 0.0)
        self.running = 0
        self.waiting = 0
        self.rejected = 0

    def answered(self, path: str, method: str, status: int) -> None:
        """Count an answer of the API server, as prometheus-fastapi-instrumentator does."""
        with self._lock:
            self._answered[path, method, f"{status // 100}xx"] += 1

    def observe(self, name: str, value: float) -> None:
        """Add a sample to a histogram."""
        with self._lock:
            self._sums[name] += value
            for place, bound in enumerate((*HISTOGRAMS[name], math.inf)):
                self._buckets[name][place] += value <= bound

    def request(self, prompt: int, asked: int, times: Sequence[float], seconds: float, reason: str) -> None:
        """Note a request that has ended: tokens of its prompt and asked for, seconds to each token, and why."""
        first = times[0] if times else seconds
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        samples: dict[str, Sequence[float]] = {
            "time_to_first_token_seconds": times[:1],
            "inter_token_latency_seconds": gaps,
            "request_time_per_output_token_seconds": [(seconds - first) / max(len(gaps), 1)],
            "e2e_request_latency_seconds": [seconds],
            "request_inference_time_seconds": [seconds],
            "request_prefill_time_seconds": [first],
            "request_decode_time_seconds": [seconds - first],
            "request_prompt_tokens": [prompt],
            "request_generation_tokens": [len(times)],
            "request_max_num_generation_tokens": [len(times)],
            "request_params_n": [1],
            "request_params_max_tokens": [asked],
            "iteration_tokens_total": [1] * len(times),
            "request_num_preemptions": [0],
            "request_prefill_kv_computed_tokens": [prompt],
        }
        with self._lock:
            self._finished[reason] += 1
            self._counts["prompt_tokens"] += prompt
            self._counts["generation_tokens"] += len(times)
        for name, values in samples.items():
            for value in values:
                self.observe(name, value)

    def move(self, *, running: int = 0, waiting: int = 0) -> None:
        """Change how many requests run and wait."""
        with self._lock:
            self.running += running
            self.waiting += waiting

    @property
    def requests(self) -> int:
        """Those that run or wait."""
        return self.running + self.waiting

    def text(self) -> str:
        """All of it as Prometheus reads it."""
        with self._lock:
            return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        gauges = {
            "num_requests_running": self.running,
            "num_requests_waiting": self.waiting,
            "kv_cache_usage_perc": self._cache.usage,
        }
        for name, value in gauges.items():
            yield f"# TYPE vllm:{name} gauge"
            yield f"vllm:{name}{{{self._labels}}} {float(value)}"
        yield "# TYPE vllm:num_requests_waiting_by_reason gauge"
        for reason, value in (("capacity", self.waiting), ("deferred", 0)):
            yield f'vllm:num_requests_waiting_by_reason{{{self._labels},reason="{reason}"}} {float(value)}'
        yield "# TYPE vllm:cache_config_info gauge"
        yield f"vllm:cache_config_info{{{self._config}}} 1.0"
        counts = self._counts | {"num_preemptions": self._cache.preemptions}
        for name in COUNTERS:
            yield f"# TYPE vllm:{name}_total counter"
            yield f"vllm:{name}_total{{{self._labels}}} {float(counts.get(name, 0))}"
        yield "# TYPE vllm:request_success_total counter"
        for reason, number in self._finished.items():
            yield f'vllm:request_success_total{{{self._labels},finished_reason="{reason}"}} {float(number)}'
        yield "# TYPE http_requests_total counter"
        for (path, method, status), number in self._answered.items():
            yield f'http_requests_total{{handler="{path}",method="{method}",status="{status}"}} {float(number)}'
        yield "# TYPE vllm:admission_rejections_total counter"
        name = self._labels.split(",")[1]
        yield f'vllm:admission_rejections_total{{{name},reason="max_num_queued_reqs"}} {float(self.rejected)}'
        for name, bounds in HISTOGRAMS.items():
            yield f"# TYPE vllm:{name} histogram"
            for bound, number in zip((*bounds, "+Inf"), self._buckets[name], strict=True):
                yield f'vllm:{name}_bucket{{{self._labels},le="{bound}"}} {float(number)}'
            yield f"vllm:{name}_count{{{self._labels}}} {float(self._buckets[name][-1])}"
            yield f"vllm:{name}_sum{{{self._labels}}} {self._sums[name]}"
