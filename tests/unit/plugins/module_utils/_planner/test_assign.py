"""Models that compete for GPUs: who takes which choice."""

from __future__ import annotations

from typing import Any

from tests.unit.fleets import A100, H100, L40S, carried_out, host, plan

SMALL = {"name": "llama-3.2-1b-instruct", "objective": "latency", "replicas": 1}
MIDDLE = {"name": "qwen3-8b", "objective": "latency", "replicas": 1}


def hosts_of(made: dict[str, Any]) -> dict[str, str]:
    return {one["model"]: one["nodes"][0]["host"] for one in made["instances"]}


def test_the_one_that_gains_more_has_the_faster_gpu() -> None:
    """Alone either takes the H100; a model eight times as large gains more by it."""
    fleet = [host("gpu1", 1, H100), host("gpu2", 1, L40S)]
    alone = [hosts_of(plan([dict(model)], *fleet)) for model in (SMALL, MIDDLE)]
    assert alone == [{"llama-3.2-1b-instruct": "gpu1"}, {"qwen3-8b": "gpu1"}]
    assert hosts_of(plan([dict(SMALL), dict(MIDDLE)], *fleet)) == {"llama-3.2-1b-instruct": "gpu2", "qwen3-8b": "gpu1"}


def test_what_runs_is_not_exchanged() -> None:
    fleet = [host("gpu1", 1, H100), host("gpu2", 1, L40S)]
    before = plan([dict(SMALL)], *fleet)
    after = plan([dict(SMALL), dict(MIDDLE)], *carried_out(before, *fleet))
    assert hosts_of(after) == {"llama-3.2-1b-instruct": "gpu1", "qwen3-8b": "gpu2"}
    assert after["changes"] == []


def test_an_automatic_model_leaves_the_others_what_they_need() -> None:
    fleet = [host("gpu1", 2, A100), host("gpu2", 2, L40S)]
    made = plan([{"name": "qwen3-8b"}, {"name": "llama-3.2-1b-instruct", "replicas": 3}], *fleet)
    assert sum(one["model"] == "llama-3.2-1b-instruct" for one in made["instances"]) == 3
    assert sum(one["model"] == "qwen3-8b" for one in made["instances"]) == 1
