"""What the engines report, held against what the plan promised; private to the collection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["compared", "comparison_table", "with_effective"]

# What is compared: name in the plan, name in what the engine reports, title.
FIELDS = (
    ("kv_cache_tokens", "kv_cache_size_tokens", "KV TOKENS"),
    ("max_concurrency", "kv_cache_max_concurrency", "REQUESTS"),
    ("max_model_len", "max_model_len", "CONTEXT"),
)


def with_effective(plan: Mapping[str, Any], reports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The plan with what every engine reported, as ``effective`` of its instance; None for one that was not asked.

    ``reports`` are results of engine_ready whose ``item`` is the instance.
    """
    reported = {report["item"]["id"]: report["effective"] for report in reports if "effective" in report}
    instances = [{**instance, "effective": reported.get(instance["id"])} for instance in plan["instances"]]
    return {**plan, "instances": instances}


def compared(plan: Mapping[str, Any], date: str) -> list[dict[str, Any]]:
    """One entry per instance: what was promised, what came, by how many percent it differs, and what that measures."""
    return [_compared(instance, date) for instance in plan["instances"]]


def _compared(instance: Mapping[str, Any], date: str) -> dict[str, Any]:
    effective = instance.get("effective") or {}
    promised = {name: _promise(instance, name) for name, _, _ in FIELDS}
    came = {name: effective.get(reported) for name, reported, _ in FIELDS}
    return {
        "id": instance["id"],
        "model": instance["model"],
        "gpu": instance["budget"]["gpu"],
        "parallelism": instance["parallelism"],
        "pinned": instance["budget"]["pinned"] is not None,
        "promised": promised,
        "effective": came,
        "difference_percent": {name: _difference(promised[name], came[name]) for name in promised},
        "measurement": _measurement(instance, effective, date),
    }


def _measurement(instance: Mapping[str, Any], effective: Mapping[str, Any], date: str) -> dict[str, Any] | None:
    """What the next plan may be calibrated with; None if the engine had not all the memory that there was."""
    budget = instance["budget"]
    counts = {"blocks": effective.get("num_gpu_blocks"), "tokens": effective.get("kv_cache_size_tokens")}
    if budget["pinned"] is not None or budget["conditions"] is None or None in counts.values():
        return None
    return {
        "host": instance["endpoint"]["host"],
        "date": date,
        "boot": effective.get("boot"),
        **counts,
        "conditions": budget["conditions"],
    }


def _promise(instance: Mapping[str, Any], name: str) -> float | None:
    if name == "max_model_len":
        return instance["engine_args"].get("max-model-len")
    if instance["budget"]["confidence"] == "none":
        return None
    return (instance["budget"]["pinned"] or instance["budget"]).get(name)


def _difference(promised: float | None, came: float | None) -> float | None:
    return None if not promised or came is None else round((came - promised) / promised * 100, 2)


def comparison_table(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The entries as lines for people."""
    rows = [("INSTANCE", *(title for _, _, title in FIELDS)), *(tuple(_row(entry)) for entry in entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(entry: Mapping[str, Any]) -> Iterator[str]:
    yield entry["id"]
    for name, _, _ in FIELDS:
        came, difference = entry["effective"][name], entry["difference_percent"][name]
        shown = "not reported" if came is None else f"{came:.6g}" if isinstance(came, float) else str(came)
        yield shown if difference is None else f"{shown} ({difference:+.1f} %)"
