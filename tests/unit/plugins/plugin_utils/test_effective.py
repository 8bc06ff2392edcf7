"""What engines report, beside what the plan promised."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.effective import compared, comparison_table, with_effective
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.plan_files import effective_files

from tests.unit import fleets

MODEL = "llama-3.1-8b-instruct"


def ready(instance: dict[str, Any], **effective: float) -> dict[str, Any]:
    return {"item": instance, "effective": effective}


def test_reports_are_compared_with_the_promise() -> None:
    plan = fleets.plan([{"name": MODEL, "replicas": 3}], fleets.host("gpu1", 2), fleets.host("gpu2", 1))
    first, second, third = plan["instances"]
    pinned = first["budget"]["pinned"]["kv_cache_tokens"]
    reports = [
        ready(first, kv_cache_size_tokens=pinned, max_model_len=131072, kv_cache_max_concurrency=3.4),
        {"item": third, "skipped": True},
        ready(second, kv_cache_size_tokens=pinned * 0.9),
    ]
    running = with_effective(plan, reports)
    assert "effective" not in plan["instances"][0]
    entries = compared(running, "2026-11-23")
    assert [entry["difference_percent"]["kv_cache_tokens"] for entry in entries] == [0.0, -10.0, None]
    assert entries[0]["promised"] == {"kv_cache_tokens": pinned, "max_concurrency": 3.4, "max_model_len": 131072}
    lines = comparison_table(entries)
    assert lines[1].split() == [f"{MODEL}-1", str(pinned), "(+0.0", "%)", "3.4", "(+0.0", "%)", "131072", "(+0.0", "%)"]
    assert lines[3].split() == [f"{MODEL}-3", *["not", "reported"] * 3]
    report, page = effective_files(running, entries, [])
    assert json.loads(report["content"]) == entries
    assert f"{MODEL}-2" in page["content"]


def test_what_was_not_promised_is_shown_without_a_difference() -> None:
    plan = fleets.plan([{"name": MODEL, "replicas": 1}], fleets.host("gpu1", 1), version="0.99.0")
    (instance,) = plan["instances"]
    (entry,) = compared(with_effective(plan, [ready(instance, kv_cache_size_tokens=4711)]), "2026-11-23")
    assert entry["promised"]["kv_cache_tokens"] is None
    assert (entry["effective"]["kv_cache_tokens"], entry["difference_percent"]["kv_cache_tokens"]) == (4711, None)
