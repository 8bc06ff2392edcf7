"""The numbers that alerts go by, and what an operator has set of them; private to the collection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from .kinds import Threshold

__all__ = ["THRESHOLDS", "merged", "mistakes"]

# Buckets of vllm:time_to_first_token_seconds: vllm/v1/metrics/loggers.py of vLLM 0.32 and 0.33. What lies between two
# of them cannot be told from the histogram.
TTFT_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip

THRESHOLDS = {
    "availability_objective": Threshold(0.99, 0.5, 0.99999, "share of the requests of a model that must not fail"),
    "ttft_objective": Threshold(0.95, 0.5, 0.9999, "share of the requests of a model that must have a token in time"),
    "ttft_seconds": Threshold(2.5, 0.001, 2560, "what in time means, in seconds: a bucket of vLLM", TTFT_BUCKETS),
    "objective_requests": Threshold(
        50, 0, 1e6, "requests of a model in the long window of a burn rate, below which nothing is concluded from it"
    ),
    "ratio_requests_per_second": Threshold(0.1, 0, 1e6, "the same for shares over 5 minutes, as a rate"),
    "error_ratio": Threshold(0.05, 0, 1, "share of requests that fail in the engines of a model"),
    "kv_cache_usage": Threshold(0.95, 0, 1, "part of an engine's KV cache that is in use"),
    "kv_cache_planned_ratio": Threshold(0.9, 0, 1, "tokens of the KV cache, as part of what the plan promised"),
    "waiting_per_engine": Threshold(20, 0, 1e6, "requests that wait, for each engine of a model that is up"),
    "preemptions_per_second": Threshold(0.5, 0, 1e6, "preemptions of an engine"),
    "rejections_per_second": Threshold(
        0.1, 0, 1e6, "requests that the engines of a model refuse because they are full"
    ),
    "restarts_per_hour": Threshold(3, 0, 1000, "starts of an engine"),
    "failed_starts": Threshold(2, 0, 1000, "starts in a row after which an engine never answered"),
    "first_byte_seconds": Threshold(10, 0.05, 300, "the 95th percentile of the time to the first byte, in seconds"),
    "client_closed_ratio": Threshold(0.2, 0, 1, "share of requests whose clients went before the answer (499)"),
    "bad_gateway_ratio": Threshold(0.02, 0, 1, "share of requests that no server took (502, 503)"),
    "gateway_timeout_ratio": Threshold(0.02, 0, 1, "share of requests that a server did not answer in time (504)"),
    "servers_down_ratio": Threshold(0.5, 0, 1, "part of a model's servers that may be down"),
    "drained_hours": Threshold(4, 0, 8760, "hours that a server may be drained"),
    "certificate_days": Threshold(21, 0, 825, "days of life that a certificate must have"),
    "certificate_page_days": Threshold(3, 0, 825, "the same, before somebody is woken"),
    "gpu_celsius": Threshold(87, 30, 120, "temperature of a GPU"),
    "ecc_corrected_per_hour": Threshold(1000, 0, 1e9, "corrected errors of a GPU's memory"),
    "nvlink_errors_per_hour": Threshold(100, 0, 1e9, "transfers over NVLink that had to be repeated"),
    "pcie_replays_per_hour": Threshold(600, 0, 1e9, "transfers over PCIe that had to be repeated"),
    "orphan_gib": Threshold(2, 0, 1e4, "memory of a GPU, in GiB, held by processes that belong to no engine"),
    "model_disk_free_ratio": Threshold(0.15, 0, 1, "free part of the file system that models lie on"),
    "filesystem_free_ratio": Threshold(0.1, 0, 1, "free part of any other file system"),
    "memory_available_ratio": Threshold(0.05, 0, 1, "part of a host's memory that is available"),
    "drill": Threshold(
        1, 1, 60, "how many times sooner all alerts come: durations and windows are divided by it, to try who is told"
    ),
    "converged_days": Threshold(45, 0, 3650, "days since the playbooks last ran on a host"),
}


def mistakes(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the thresholds that an operator has set, a sentence each."""
    return list(_mistakes(given)) or list(_contradictions(merged(given)))


def merged(given: Mapping[str, Any]) -> dict[str, float]:
    """Every threshold: as given, or else its default."""
    return {name: given.get(name, threshold.default) for name, threshold in THRESHOLDS.items()}


def _mistakes(given: Mapping[str, Any]) -> Iterator[str]:
    for name, value in sorted(given.items()):
        threshold = THRESHOLDS.get(name)
        if threshold is None:
            near = get_close_matches(name, THRESHOLDS, n=1)
            meant = f"did you mean {near[0]}?" if near else "docs/alerts/README.md lists them."
            yield f"prometheus_thresholds has '{name}', which is no threshold; {meant}"
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            yield f"prometheus_thresholds, {name}: {value!r} is no number; {threshold.default:g} is the default."
        elif not threshold.least <= value <= threshold.most:
            yield (
                f"prometheus_thresholds, {name} is {value:g}; it must be from {threshold.least:g} to"
                f" {threshold.most:g} "
                f"({threshold.about})."
            )
        elif threshold.among and value not in threshold.among:
            yield (
                f"prometheus_thresholds, {name} is {value:g}; it must be one of "
                f"{', '.join(f'{one:g}' for one in threshold.among)}: a histogram tells nothing in between."
            )


def _contradictions(thresholds: Mapping[str, float]) -> Iterator[str]:
    if thresholds["certificate_page_days"] > thresholds["certificate_days"]:
        yield (
            f"prometheus_thresholds, certificate_page_days is {thresholds['certificate_page_days']:g}, more than "
            f"certificate_days, {thresholds['certificate_days']:g}: the page would come before the ticket."
        )
