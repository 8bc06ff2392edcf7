"""Rules about the engines: what users get of them, and how they are doing; private to the collection.

Names of vLLM's metrics: vllm/v1/metrics/loggers.py of vLLM 0.32 and 0.33; ``http_requests_total`` is
prometheus-fastapi-instrumentator's, of which vLLM makes use. ``gpuhosts_keeper_*`` is described in docs/keeper.md.
"""

from __future__ import annotations

from .kinds import Alert, Area, Record

__all__ = ["ENGINE", "MODELS", "OBJECTIVES", "RAY"]

_WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d")
_FRONT = 'gpuhosts_front_door_requests_total{model!=""'
_FAILED = 'http_requests_total{job="vllm",handler=~"/v1/.*",status=~"5.."}'
_FINISHED = "vllm:request_success_total"


def _sum(series: str, window: str) -> str:
    return f"sum by (model) (rate({series}[{window}]))"


def _share(part: str, whole: str) -> str:
    """The part of the whole, 0 where the part has no series; nothing where there is no traffic."""
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def _requests(window: str) -> str:
    """Requests per second as users count them: at the front door, or at the engines where no front door tells."""
    at_engines = f"{_sum(_FINISHED, window)} + ({_sum(_FAILED, window)} or 0 * {_sum(_FINISHED, window)})"
    return f"{_sum(_FRONT + '}', window)} or {at_engines}"


def _errors(window: str) -> str:
    """The share of them that failed.

    An engine counts a request that broke off as finished with ``error``, and one that it never took as an HTTP 5xx; one
    that is both counts twice on both sides.
    """
    front = _share(_sum(_FRONT + ',status=~"5.."}', window), f"{_sum(_FRONT + '}', window)}")
    finished, failed = _sum(_FINISHED, window), f"({_sum(_FAILED, window)} or 0 * {_sum(_FINISHED, window)})"
    broken = _sum(_FINISHED + '{finished_reason="error"}', window)
    return f"({front}) or (({broken} or 0 * {finished}) + {failed}) / (({finished} + {failed}) > 0)"


def _late(window: str) -> str:
    """The share of requests that had their first token too late."""
    bucket = _sum('vllm:time_to_first_token_seconds_bucket{le="<ttft_seconds>"}', window)
    return f"1 - {bucket} / ({_sum('vllm:time_to_first_token_seconds_count', window)} > 0)"


def _quantile(share: str, histogram: str) -> str:
    buckets = f"sum by (model, le) (rate({histogram}_bucket[5m]))"
    # Without traffic a quantile is NaN, which is no value to draw or to compare: it is left out.
    return f"histogram_quantile({share}, {buckets}) >= 0"


def _burns(series: str, objective: str, *pairs: tuple[float, str, str]) -> str:
    """Whether a budget of errors burns too fast in a long and a short window: the SRE workbook's alerts on burn rates.

    https://sre.google/workbook/alerting-on-slos/#6-multiwindow-multi-burn-rate-alerts
    """
    return " or ".join(
        f"({series}{long} > {factor:g} * (1 - <{objective}>) and on (model) {series}{short} > {factor:g} * (1 -"
        f" <{objective}>)"
        f" and on (model) model:requests:rate{long} * <{long} in seconds> >= <objective_requests>)"
        for factor, long, short in pairs
    )


_FAST = ((14.4, "1h", "5m"), (6, "6h", "30m"))
_SLOW = ((3, "1d", "2h"),)

MODELS = Area(
    "models",
    "Models",
    (),
    (
        *(
            Record(f"model:{name}:{quantile}", _quantile(share, f"vllm:{histogram}"))
            for name, histogram in (
                ("ttft_seconds", "time_to_first_token_seconds"),
                ("itl_seconds", "inter_token_latency_seconds"),
                ("e2e_seconds", "e2e_request_latency_seconds"),
                ("queue_seconds", "request_queue_time_seconds"),
            )
            for quantile, share in (("p50", "0.5"), ("p95", "0.95"), ("p99", "0.99"))
        ),
        Record("model:prompt_tokens:rate5m", "sum by (model) (rate(vllm:prompt_tokens_total[5m]))"),
        Record("model:generation_tokens:rate5m", "sum by (model) (rate(vllm:generation_tokens_total[5m]))"),
        Record("model:requests_running:sum", "sum by (model) (vllm:num_requests_running)"),
        Record("model:requests_waiting:sum", "sum by (model) (vllm:num_requests_waiting)"),
        Record("model:kv_cache_usage:max", "max by (model) (vllm:kv_cache_usage_perc)"),
        Record("model:engines_up:sum", 'sum by (model) (up{job="vllm"})'),
        Record("model:engines:count", 'count by (model) (up{job="vllm"})'),
        Record(
            "model:prefix_cache_hits:ratio_rate5m",
            "sum by (model) (rate(vllm:prefix_cache_hits_total[5m]))"
            " / (sum by (model) (rate(vllm:prefix_cache_queries_total[5m])) > 0)",
        ),
        Record("model:first_byte_seconds:p95", _quantile("0.95", "gpuhosts_front_door_first_byte_seconds")),
    ),
)

OBJECTIVES = Area(
    "objectives",
    "Objectives of models",
    (
        Alert(
            "EngineAvailabilityBurnFast", "page", "2m",
            _burns("model:request_errors:ratio_rate", "availability_objective", *_FAST),
            "{{ $labels.model }} fails for its users",
            "{{ $value | humanizePercentage }} of the requests of {{ $labels.model }} failed; the objective allows"
            " the rest of"
            " <availability_objective>. At this pace the errors of a month are used up within days.",
        ),
        Alert(
            "EngineAvailabilityBurnSlow", "ticket", "15m",
            _burns("model:request_errors:ratio_rate", "availability_objective", *_SLOW),
            "{{ $labels.model }} fails more often than it may",
            "{{ $value | humanizePercentage }} of the requests of {{ $labels.model }} failed within a day; the"
            " objective allows the"
            " rest of <availability_objective>.",
        ),
        Alert(
            "EngineTtftBurnFast", "page", "2m",
            _burns("model:ttft_late:ratio_rate", "ttft_objective", *_FAST),
            "{{ $labels.model }} lets its users wait for the first token",
            "{{ $value | humanizePercentage }} of the requests of {{ $labels.model }} had no token within"
            " <ttft_seconds> s; the"
            " objective allows the rest of <ttft_objective>.",
        ),
        Alert(
            "EngineTtftBurnSlow", "ticket", "15m",
            _burns("model:ttft_late:ratio_rate", "ttft_objective", *_SLOW),
            "{{ $labels.model }} is slower than it may be",
            "{{ $value | humanizePercentage }} of the requests of {{ $labels.model }} had no token within"
            " <ttft_seconds> s, over a"
            " day; the objective allows the rest of <ttft_objective>.",
        ),
    ),
    (
        *(Record(f"model:requests:rate{window}", _requests(window)) for window in _WINDOWS),
        *(Record(f"model:request_errors:ratio_rate{window}", _errors(window)) for window in _WINDOWS),
        *(Record(f"model:ttft_late:ratio_rate{window}", _late(window)) for window in _WINDOWS),
    ),
)  # fmt: skip

_TOTAL_5M = "sum by (model) (rate(vllm:request_success_total[5m]))"

ENGINE = Area(
    "engine",
    "Engines",
    (
        Alert(
            "EngineModelDown", "page", "1m",
            'sum by (model) (up{job="vllm"}) == 0',
            "No engine of {{ $labels.model }} answers",
            "Every request for {{ $labels.model }} fails.",
        ),
        Alert(
            "EngineDown", "ticket", "2m",
            'up{job="vllm"} == 0 unless on (model) sum by (model) (up{job="vllm"}) == 0',
            "{{ $labels.instance_id }} does not answer",
            "{{ $labels.instance }} has not answered for 2 minutes. Other engines serve {{ $labels.model }}.",
        ),
        Alert(
            "EngineVanished", "ticket", "10m",
            'group by (model, instance_id) (last_over_time(up{job="vllm"}[1h]))'
            ' unless group by (model, instance_id) (up{job="vllm"})',
            "{{ $labels.instance_id }} is no target any more",
            "{{ $labels.instance_id }} of {{ $labels.model }} was a target of Prometheus within the last hour.",
        ),
        Alert(
            "EngineTargetsAbsent", "page", "10m",
            'absent(up{job="vllm"})',
            "Prometheus has no engine to look at",
            "No engine is a target of Prometheus, so that no other alert about engines can fire.",
        ),
        Alert(
            "EngineErrorRatio", "ticket", "5m",
            '(sum by (model) (rate(vllm:request_success_total{finished_reason="error"}[5m]))'
            f" / ({_TOTAL_5M} > 0)) > <error_ratio> and on (model) {_TOTAL_5M} >= <ratio_requests_per_second>",
            "Engines of {{ $labels.model }} break requests off",
            "{{ $value | humanizePercentage }} of the requests of {{ $labels.model }} ended with an error in the"
            " engine.",
        ),
        Alert(
            "EngineStalled", "page", "5m",
            "sum by (model, instance_id) (vllm:num_requests_running + vllm:num_requests_waiting) > 0"
            " and on (model, instance_id) sum by (model, instance_id)"
            " (rate(vllm:generation_tokens_total[5m]) + rate(vllm:prompt_tokens_total[5m])) == 0",
            "{{ $labels.instance_id }} has requests and makes no token",
            "{{ $value }} requests are in {{ $labels.instance_id }}, and no token has come for 5 minutes.",
        ),
        Alert(
            "EngineKvCacheFull", "ticket", "10m",
            "max by (model, instance_id) (vllm:kv_cache_usage_perc) > <kv_cache_usage>",
            "The KV cache of {{ $labels.instance_id }} is full",
            "{{ $value | humanizePercentage }} of the KV cache of {{ $labels.instance_id }} is in use: requests wait"
            " or are preempted.",
        ),
        Alert(
            "EngineKvCacheBelowPlan", "ticket", "10m",
            "gpuhosts_engine_kv_cache_tokens_effective"
            " / (gpuhosts_engine_kv_cache_tokens_planned > 0) < <kv_cache_planned_ratio>",
            "{{ $labels.instance_id }} has less KV cache than planned",
            "The KV cache of {{ $labels.instance_id }} has {{ $value | humanizePercentage }} of the tokens that the"
            " plan promises.",
        ),
        Alert(
            "EngineQueue", "ticket", "5m",
            "sum by (model) (vllm:num_requests_waiting)"
            ' / (sum by (model) (up{job="vllm"}) > 0) > <waiting_per_engine>',
            "Requests for {{ $labels.model }} queue",
            '{{ $value | printf "%.0f" }} requests wait in each engine of {{ $labels.model }} that is up.',
        ),
        Alert(
            "EnginePreemptions", "ticket", "10m",
            "sum by (model, instance_id) (rate(vllm:num_preemptions_total[5m])) > <preemptions_per_second>",
            "{{ $labels.instance_id }} preempts requests",
            '{{ $value | printf "%.2f" }} requests a second lose their place in the KV cache and are computed again.',
        ),
        Alert(
            "EngineRejections", "ticket", "5m",
            "sum by (model) (rate(vllm:admission_rejections_total[5m])) > <rejections_per_second>",
            "Engines of {{ $labels.model }} refuse requests",
            '{{ $value | printf "%.2f" }} requests a second are refused with 503, because the queues are full.',
        ),
        Alert(
            "EngineRestarts", "ticket", "0s",
            # An epoch is 0 in between, or is not seen to be: the steps up count.
            'changes(gpuhosts_keeper_epoch{rank="0"}[1h]) - resets(gpuhosts_keeper_epoch{rank="0"}[1h]) >'
            ' <restarts_per_hour>',
            "{{ $labels.id }} starts again and again",
            "{{ $labels.id }} on {{ $labels.host }} has started {{ $value }} times within an hour.",
        ),
        Alert(
            "EngineStartsFail", "ticket", "1m",
            'gpuhosts_keeper_failed_epochs{rank="0"} > <failed_starts>',
            "{{ $labels.id }} does not come up",
            "{{ $labels.id }} on {{ $labels.host }} has been started {{ $value }} times in a row and never answered.",
        ),
        Alert(
            "EngineNotServing", "ticket", "45m",
            'gpuhosts_keeper_state{rank="0",state="serving"} == 0',
            "{{ $labels.id }} does not serve",
            "The keeper of {{ $labels.id }} on {{ $labels.host }} has not had an engine that serves for 45 minutes.",
        ),
    ),
)  # fmt: skip

RAY = Area(
    "ray",
    "Instances over several hosts",
    (
        Alert(
            "RayNodeMissing", "ticket", "10m",
            'gpuhosts_keeper_waits{rank="0",what=~"rank .+"} == 1',  # not a pause after starts that failed
            "{{ $labels.id }} waits for {{ $labels.what }}",
            "The head of {{ $labels.id }} on {{ $labels.host }} has waited for {{ $labels.what }} for 10 minutes. It"
            " starts nothing until"
            " all nodes are there.",
        ),
        Alert(
            "RayNodeVanished", "ticket", "5m",
            "group by (id, rank) (last_over_time(gpuhosts_keeper_epoch[1h])) unless group by (id, rank)"
            " (gpuhosts_keeper_epoch)"
            " and on (id) group by (id) (gpuhosts_keeper_epoch)",
            "Rank {{ $labels.rank }} of {{ $labels.id }} is not heard of",
            "The keeper of rank {{ $labels.rank }} of {{ $labels.id }} told its state within the last hour, and does"
            " not now, while other"
            " ranks do.",
        ),
        Alert(
            "RayNodesApart", "ticket", "5m",
            "max by (id) (gpuhosts_keeper_epoch) != min by (id) (gpuhosts_keeper_epoch)",
            "The nodes of {{ $labels.id }} are in different epochs",
            "The nodes of {{ $labels.id }} have not been in the same epoch for 5 minutes: some are cut off from the"
            " head.",
        ),
    ),
)  # fmt: skip
