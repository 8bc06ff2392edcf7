"""The memory account of an instance, and what its engine is told of it."""

from __future__ import annotations

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._units import GIB

from tests.unit.fleets import (
    RTX4090,
    SMALL,
    first,
    host,
    plan,
)


def test_pinned_by_default_below_the_prediction() -> None:
    instance = first(plan([SMALL], host("gpu1", 1)))
    budget, pinned = instance["budget"], instance["budget"]["pinned"]
    assert instance["engine_args"]["kv-cache-memory-bytes"] == pytest.approx(pinned["kv_cache"] * GIB, rel=1e-3)
    assert pinned["kv_cache"] == pytest.approx(budget["kv_cache"] - pinned["margin"], abs=0.02)
    assert pinned["margin"] == pytest.approx(budget["error"]["kv_cache"], abs=0.01)
    assert pinned["warm_extra"] == pytest.approx(pinned["margin"] + budget["cold_compile"], abs=0.02)
    assert 0 < pinned["kv_cache_tokens"] < budget["kv_cache_tokens"]
    parts = ("weights", "activations", "cuda_graphs", "non_torch", "cold_compile", "kv_cache")
    assert sum(budget[part] for part in parts) == pytest.approx(budget["requested"], abs=0.05)


def test_pinning_can_be_switched_off_and_an_operator_can_do_it_himself() -> None:
    assert "kv-cache-memory-bytes" not in first(plan([SMALL], host("gpu1", 1), pin_kv_cache=False))["engine_args"]
    own = first(plan([SMALL | {"extra_args": {"kv-cache-memory-bytes": 20 * GIB}}], host("gpu1", 1)))
    assert own["engine_args"]["kv-cache-memory-bytes"] == 20 * GIB
    assert own["budget"]["kv_cache"] == 20
    assert own["budget"]["pinned"] is None


def test_the_cpu_build_is_sized_but_told_nothing_of_it() -> None:
    made = plan([SMALL | {"context_length": 512}], host("gpu1", 1), version="0.32.0+cpu")
    arguments = first(made)["engine_args"]
    assert (arguments["max-model-len"], arguments["gpu-memory-utilization"]) == (512, 0.92)
    assert "kv-cache-memory-bytes" not in arguments
    assert first(made)["budget"]["pinned"] is None
    assert first(made)["budget"]["weights"] > 14
    assert first(made)["budget"]["confidence"] == "none"
    assert any("CPU build" in reason for reason in first(made)["why"])
    assert "max-model-len" not in first(plan([SMALL], host("gpu1", 1), version="0.32.0+cpu"))["engine_args"]


def test_a_tight_fit_is_planned_with_a_warning_and_not_pinned() -> None:
    made = plan([SMALL | {"context_length": 37000}], host("gpu1", 1, RTX4090))
    assert "kv-cache-memory-bytes" not in first(made)["engine_args"]
    assert "a tight fit on RTX 4090" in made["warnings"][0]


@pytest.mark.parametrize("version", ["0.19.0", "0.33.0"])
def test_what_is_left_to_the_planner_of_memory_is_what_the_engine_is_told(version: str) -> None:
    """Releases before 0.20 would take 0.9 by themselves."""
    instance = first(plan([SMALL], host("gpu1", 1), version=version))
    assert instance["engine_args"]["gpu-memory-utilization"] == 0.92
    assert instance["budget"]["requested"] == pytest.approx(0.92 * instance["budget"]["total"], abs=0.01)


def test_options_that_the_account_does_not_follow_are_named_and_nothing_is_pinned() -> None:
    made = plan([SMALL | {"extra_args": {"cpu-offload-gb": 4}}], host("gpu1", 1))
    assert "the memory account does not follow cpu-offload-gb of extra_args" in made["warnings"][0]
    assert first(made)["budget"]["pinned"] is None
