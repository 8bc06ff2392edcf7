"""What engines had is kept, found again under the same conditions, and never makes a plan ask for more than that."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import CalibrationError, PlacementError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.calibration import (
    Measurement,
    digest,
    read_measurements,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.catalogue import gpu_type
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.engine_options import EngineOptions, kv_options
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.kv_cache import plan_kv_cache
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.regimes import regime_of
from ansible_collections.gpuhosts.vllm.plugins.module_utils._units import GIB
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.effective import compared
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.fleets import H100, L40S, RTX4090, Kind, facts, host, plan

SMALL = "llama-3.1-8b-instruct"
LARGE = "llama-3.3-70b-instruct"


def ran(instance: dict[str, Any], kv_bytes: int, boot: str | None = "cold", at: str = "gpu1") -> dict[str, Any]:
    """The entry of effective.json of an engine that found so much memory for its KV cache."""
    arguments, conditions = instance["engine_args"], instance["budget"]["conditions"]
    spec = read_model(facts(instance["model"])["config"])
    regime = regime_of(conditions["vllm"])
    options = EngineOptions(max_model_len=arguments["max-model-len"], max_num_seqs=arguments.get("max-num-seqs"))
    shape = (instance["parallelism"]["tensor"], 1)
    wanted = kv_options(spec, gpu_type(conditions["gpu"]), regime, options, shape)  # type: ignore[arg-type]
    granted = plan_kv_cache(spec, [kv_bytes], wanted, regime.kv)  # type: ignore[union-attr]
    effective = {"num_gpu_blocks": granted.num_blocks, "kv_cache_size_tokens": granted.tokens}
    shown = {**instance, "endpoint": {"host": at}, "effective": {**effective, **({"boot": boot} if boot else {})}}
    (entry,) = compared({"instances": [shown]}, "2026-11-23")
    return entry


def measure(instance: dict[str, Any], gib: float, boot: str | None = "cold", at: str = "gpu1") -> Measurement:
    (found,) = read_measurements([ran(instance, int(gib * GIB), boot, at)])
    return found


def unpinned(model: dict[str, Any], *hosts: dict[str, Any], **options: Any) -> dict[str, Any]:
    return dict(plan([copy.deepcopy(model)], *hosts, pin_kv_cache=False, **options)["instances"][0])


def first(model: dict[str, Any], *hosts: dict[str, Any], **options: Any) -> dict[str, Any]:
    return dict(plan([copy.deepcopy(model)], *hosts, **options)["instances"][0])


def test_a_first_boot_replaces_the_prediction_and_narrows_the_margin() -> None:
    one, wish = host("gpu1", 1), {"name": SMALL}
    before = first(wish, one)
    predicted = before["budget"]["kv_cache"]
    found = measure(unpinned(wish, one), predicted + 0.4)
    after = first(wish, one, calibration=[found])
    budget, pinned = after["budget"], after["budget"]["pinned"]
    assert budget["kv_cache"] == pytest.approx(predicted + 0.4, abs=0.02)
    assert budget["confidence"] == "calibrated"
    assert (pinned["margin"], budget["error"]["kv_cache"]) == (0.15, 0.15)
    assert before["budget"]["pinned"]["margin"] > 1
    assert pinned["kv_cache_tokens"] > before["budget"]["pinned"]["kv_cache_tokens"]
    assert after["why"][3] == (
        f"KV cache {predicted + 0.4:.2f} GiB: calibrated by gpu1 on 2026-11-23; {predicted:.2f} were predicted, "
        f"give or take {before['budget']['error']['kv_cache']:.2f}"
    )
    parts = ("weights", "activations", "cuda_graphs", "non_torch", "cold_compile", "kv_cache")
    assert sum(budget[part] for part in parts) == pytest.approx(budget["requested"], abs=0.05)


def test_without_pinning_the_plan_promises_what_was_measured_to_the_token() -> None:
    one, wish = host("gpu1", 1), {"name": SMALL}
    running = unpinned(wish, one)
    found = measure(running, running["budget"]["kv_cache"] - 0.3)
    again = unpinned(wish, one, calibration=[found])
    assert again["budget"]["kv_cache_tokens"] == found.tokens


@pytest.mark.parametrize("boot", ["warm", None])
def test_a_boot_that_may_have_had_more_never_raises_the_promise(boot: str | None) -> None:
    one, wish = host("gpu1", 1), {"name": SMALL}
    before = first(wish, one)
    predicted = before["budget"]["kv_cache"]
    more = first(wish, one, calibration=[measure(unpinned(wish, one), predicted + 0.3, boot)])
    assert more["budget"] == before["budget"]
    assert "not on a first boot with this context, so the prediction stands" in more["why"][3]
    less = first(wish, one, calibration=[measure(unpinned(wish, one), predicted - 0.3, boot)])
    assert less["budget"]["kv_cache"] == pytest.approx(predicted - 0.3, abs=0.02)
    assert less["budget"]["pinned"]["margin"] == before["budget"]["pinned"]["margin"]
    assert less["budget"]["confidence"] == before["budget"]["confidence"]
    assert "no more than gpu1 on 2026-11-23 had" in less["why"][3]


@pytest.mark.parametrize(
    ("wish", "version"),
    [({"name": SMALL, "extra_args": {"enforce-eager": True}}, "0.33.0"), ({"name": SMALL}, "0.22.0")],
)
def test_where_all_boots_are_alike_any_counts(wish: dict[str, Any], version: str) -> None:
    one = host("gpu1", 1)
    running = unpinned(wish, one, version=version)
    found = measure(running, running["budget"]["kv_cache"] + 0.1, None)
    assert first(wish, one, version=version, calibration=[found])["budget"]["confidence"] == "calibrated"


def test_the_least_of_several_counts() -> None:
    one, wish = host("gpu1", 2), {"name": SMALL}
    running = unpinned(wish, one)
    predicted = running["budget"]["kv_cache"]
    found = [measure(running, predicted + extra, at=at) for extra, at in ((0.3, "gpu1"), (0.1, "gpu2"), (0.2, "gpu3"))]
    after = first(wish, one, calibration=found)
    assert after["budget"]["kv_cache"] == pytest.approx(predicted + 0.1, abs=0.02)
    assert "calibrated by gpu2" in after["why"][3]
    warm = measure(running, predicted - 0.5, "warm", "gpu4")
    assert "calibrated by gpu4" in first(wish, one, calibration=[*found, warm])["why"][3]


def test_a_tight_fit_that_is_known_to_fit_is_pinned() -> None:
    one, wish = host("gpu1", 1, RTX4090), {"name": SMALL, "context_length": 37000}
    made = plan([dict(wish)], one)
    assert "a tight fit" in made["warnings"][0]
    running = made["instances"][0]
    found = measure(running, running["budget"]["kv_cache"])
    after = plan([dict(wish)], one, calibration=[found])
    assert after["warnings"] == []
    assert after["instances"][0]["engine_args"]["kv-cache-memory-bytes"] < found.blocks * 2 * (1 << 20)


def test_a_context_that_was_chosen_and_measured_stays_chosen() -> None:
    """At any other context the measurement could only lower the prediction, with its whole margin."""
    one, wish = host("gpu1", 1, RTX4090), {"name": SMALL}
    running = unpinned(wish, one)
    length = running["engine_args"]["max-model-len"]
    assert length < 131072
    found = measure(running, running["budget"]["kv_cache"] - 0.3)
    after = first(wish, one, calibration=[found])
    assert after["engine_args"]["max-model-len"] == length
    assert after["budget"]["confidence"] == "calibrated"
    assert after["engine_args"]["kv-cache-memory-bytes"] <= found.blocks * 2 * (1 << 20)


def test_at_another_context_a_measurement_can_only_lower() -> None:
    one, wish = host("gpu1", 1), {"name": SMALL, "context_length": 65536}
    running = unpinned(wish, one)
    predicted = running["budget"]["kv_cache"]
    other = {"name": SMALL, "context_length": 32768}
    plain = first(other, one)
    assert first(other, one, calibration=[measure(running, predicted + 0.4)])["budget"] == plain["budget"]
    less = first(other, one, calibration=[measure(running, predicted - 0.4)])
    assert less["budget"]["kv_cache"] == pytest.approx(plain["budget"]["kv_cache"] - 0.4, abs=0.02)
    assert less["budget"]["pinned"]["margin"] == plain["budget"]["pinned"]["margin"]


CHANGED: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    ("version", {"name": SMALL}, host("gpu1", 1), "0.32.0", "version of vLLM (0.33.0 then, 0.32.0 now)"),
    ("source", {"name": SMALL, "source": "b/c"}, host("gpu1", 1), "0.33.0", "files, source or revision"),
    ("revision", {"name": SMALL, "revision": "abc"}, host("gpu1", 1), "0.33.0", "files, source or revision"),
    ("config", {"name": SMALL, "config": "qwen3-8b"}, host("gpu1", 1), "0.33.0", "files, source or revision"),
    ("option", {"name": SMALL, "extra_args": {"max-num-batched-tokens": 4096}}, host("gpu1", 1), "0.33.0", "options"),
    ("seqs", {"name": SMALL, "concurrency": 2}, host("gpu1", 1), "0.33.0", "options or environment"),
    ("use", {"name": SMALL, "gpu_memory_utilization": 0.8}, host("gpu1", 1), "0.33.0", "options or environment"),
    ("cache", {"name": SMALL, "kv_cache_dtype": "fp8"}, host("gpu1", 1), "0.33.0", "options or environment"),
    ("env", {"name": SMALL, "env": {"NCCL_NVLS_ENABLE": 0}}, host("gpu1", 1), "0.33.0", "options or environment"),
    ("gpu", {"name": SMALL}, host("gpu1", 1, L40S), "0.33.0", "GPU (H100 80GB then, L40S now)"),
    ("memory", {"name": SMALL}, host("gpu1", 1, total_gib=79.0), "0.33.0", "GPU memory (79.1 then, 78.45 now)"),
    ("shape", {"name": SMALL, "parallelism": {"tensor": 2}}, host("gpu1", 2), "0.33.0", "parallel size (1 then"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wish", "hardware", "version", "reason"), [row[1:] for row in CHANGED], ids=[row[0] for row in CHANGED]
)
@pytest.mark.parametrize("gib", [20.0, 54.5])
def test_nothing_is_used_where_anything_differs_and_the_plan_says_so(
    wish: dict[str, Any], hardware: dict[str, Any], version: str, reason: str, gib: float
) -> None:
    found = measure(unpinned({"name": SMALL}, host("gpu1", 1)), gib)
    plain = plan([copy.deepcopy(wish)], hardware, version=version)
    made = plan([copy.deepcopy(wish)], hardware, version=version, calibration=[found])
    assert made["instances"] == plain["instances"]
    (warning,) = [text for text in made["warnings"] if text not in plain["warnings"]]
    assert warning.startswith(f"{SMALL}: the calibration by gpu1 on 2026-11-23 is not used, because these differ: ")
    assert reason in warning


def test_another_driver_branch_is_another_condition() -> None:
    one, wish = host("gpu1", 1), {"name": SMALL}
    found = measure(unpinned(wish, one), 54.5)
    one["gpu_facts"]["driver_version"] = "595.91.07"
    (warning,) = plan([wish], one, calibration=[found])["warnings"]
    assert "driver branch (580 then, 595 now)" in warning


def test_a_link_is_a_condition_where_gpus_share_an_instance() -> None:
    wish = {"name": SMALL, "parallelism": {"tensor": 2}}
    found = measure(unpinned(wish, host("gpu1", 2)), 60)
    warnings = plan([copy.deepcopy(wish)], host("gpu1", 2, (*H100[:4], "pcie")), calibration=[found])["warnings"]
    assert "NVLink (True then, False now)" in warnings[0]
    alone = {"name": SMALL}
    found = measure(unpinned(alone, host("gpu1", 2)), 55)
    one = first(alone, host("gpu1", 1, (*H100[:4], "pcie")), calibration=[found])
    assert one["budget"]["confidence"] == "calibrated"


def test_measurements_of_models_that_are_not_planned_are_nobodys_business() -> None:
    found = measure(unpinned({"name": SMALL}, host("gpu1", 1)), 50)
    assert plan([{"name": LARGE}], host("gpu1"), calibration=[found]) == plan([{"name": LARGE}], host("gpu1"))


def test_on_another_kind_of_host_the_plan_stays_as_it_is() -> None:
    wish = {"name": SMALL}
    found = measure(unpinned(wish, host("gpu1", 1)), 54.5)
    made = plan([wish], host("gpu1", 1), host("gpu2", 1, L40S), calibration=[found])
    assert [one["budget"]["confidence"] for one in made["instances"]] == ["calibrated", "high"]
    assert not any("calibration" in warning for warning in made["warnings"])


def test_more_than_can_be_is_not_believed() -> None:
    one, wish = host("gpu1", 1), {"name": SMALL}
    plain = plan([dict(wish)], one)
    found = measure(unpinned(wish, one), plain["instances"][0]["budget"]["kv_cache"] + 3)
    made = plan([dict(wish)], one, calibration=[found])
    assert made["instances"] == plain["instances"]
    (warning,) = made["warnings"]
    assert "is not used: 58" in warning
    assert "more than can be" in warning


def test_much_less_than_predicted_is_planned_with_and_told() -> None:
    one, wish = host("gpu1", 1), {"name": SMALL}
    found = measure(unpinned(wish, one), 45)
    made = plan([wish], one, calibration=[found])
    assert made["instances"][0]["budget"]["pinned"]["kv_cache"] == pytest.approx(44.85, abs=0.01)
    (warning,) = made["warnings"]
    assert "which is less than its GPU explains" in warning


def test_blocks_and_tokens_that_do_not_belong_together_are_not_used() -> None:
    one, wish = host("gpu1", 1), {"name": SMALL}
    entry = ran(unpinned(wish, one), 54 * GIB)
    entry["measurement"]["blocks"] += 1000
    plain = plan([dict(wish)], one)
    made = plan([dict(wish)], one, calibration=read_measurements([entry]))
    assert made["instances"] == plain["instances"]
    (warning,) = made["warnings"]
    assert "28648 blocks do not make 442368 tokens of this model" in warning


def test_engines_that_tell_nothing_are_no_measurement() -> None:
    one, wish = host("gpu1", 1), {"name": SMALL}
    pinned = first(wish, one)
    for instance in (
        pinned,
        first({"name": SMALL, "extra_args": {"kv-cache-memory-bytes": 20 * GIB}}, one),
        first(wish, one, version="0.99.0"),
        first({"name": SMALL, "context_length": 512}, one, version="0.32.0+cpu"),
        unpinned({"name": SMALL, "extra_args": {"cpu-offload-gb": 4}}, one),
        unpinned({"name": SMALL, "parallelism": {"pipeline": 2}}, host("gpu1", 2)),
    ):
        effective = {"num_gpu_blocks": 100, "kv_cache_size_tokens": 1600}
        entries = compared({"instances": [{**instance, "effective": effective}]}, "2026-11-23")
        assert [entry["measurement"] for entry in entries] == [None]
        assert read_measurements(entries) == []
    silent = compared({"instances": [{**unpinned(wish, one), "effective": {"max_model_len": 512}}]}, "2026-11-23")
    assert silent[0]["measurement"] is None


def test_a_refusal_counts_with_what_was_measured() -> None:
    one, wish = host("gpu1", 1, RTX4090), {"name": SMALL, "context_length": 33792}
    found = measure(unpinned(wish, one), 4.3)
    with pytest.raises(PlacementError) as caught:
        plan([{**wish, "concurrency": None, "context_length": 38000}], one, calibration=[found])
    (row,) = caught.value.rejected
    assert row["needed_gib"] > row["available_gib"]


def broken(**changes: Any) -> list[Any]:
    entry = ran(unpinned({"name": SMALL}, host("gpu1", 1)), 54 * GIB)
    entry["measurement"].update(changes)
    return [entry]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "it is no list; keep a copy of reports/effective.json as serve.yml writes it"),
        ([1], "entry 0 is not of reports/effective.json"),
        ([{"id": "tiny-1"}], "entry 0 is not of reports/effective.json"),
        ([{"measurement": {"host": "gpu1"}, "model": "a"}], "the measurement of entry 0 is incomplete"),
        (broken(smell="burnt"), "the measurement of entry 0 is incomplete or not of this version"),
        (broken(boot="hot"), "the measurement of entry 0 has a model, host, date or boot that cannot be one"),
        (broken(host=None), "the measurement of entry 0 has a model, host, date or boot that cannot be one"),
        (broken(blocks=0), "the measurement of entry 0 has blocks 0 and tokens"),
        (broken(tokens="many"), "which are no counts"),
        (broken(conditions={"gpu": "H100"}), "was made with another version of this collection; measure anew"),
    ],
)
def test_what_is_no_calibration_is_an_error(content: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        read_measurements(content)


def test_a_digest_is_of_the_content() -> None:
    assert digest({"a": 1, "b": [2]}, None) == digest({"b": [2], "a": 1}, None)
    assert digest({"a": 1}) != digest({"a": 2})


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(SMALL, H100), (SMALL, RTX4090), ("gpt-oss-20b", H100), ("qwen3-30b-a3b", H100), (LARGE, L40S)]),
    st.lists(
        st.tuples(st.floats(-4, 4), st.sampled_from(["cold", "warm", None]), st.booleans()), min_size=1, max_size=4
    ),
    st.sampled_from(["auto", 8192]),
)
def test_no_plan_is_over_budget(
    case: tuple[str, Kind], runs: list[tuple[float, str | None, bool]], length: Any
) -> None:
    """Whatever was measured: the promise is below every measurement, and raised by first boots alone."""
    name, kind = case
    one, wish = host("gpu1", 8, kind), {"name": name, "context_length": length}
    plain = first(wish, one)
    running = unpinned(wish, one)
    shorter = unpinned({**wish, "context_length": 4096}, one)
    found = [
        measure(origin, max(origin["budget"]["kv_cache"] + extra, 3), boot)
        for extra, boot, same in runs
        for origin in [running if same else shorter]
    ]
    try:
        after = first(wish, one, calibration=found)
    except PlacementError:
        return
    if after["parallelism"] != plain["parallelism"]:
        return
    budget = after["budget"]
    parts = ("weights", "activations", "cuda_graphs", "non_torch", "cold_compile", "kv_cache")
    assert sum(budget[part] for part in parts) <= budget["requested"] + 0.05 <= budget["total"]
    assert min(budget[part] for part in parts) >= 0
    size = after["engine_args"].get("kv-cache-memory-bytes", 0)
    length = after["engine_args"]["max-model-len"]
    same = [one for one in found if one.conditions["context_length"] == length]
    block = running["budget"]["kv_cache"] * GIB / running["budget"]["kv_cache_tokens"]
    for measured in same:
        believed = measured.tokens * block <= (plain["budget"]["kv_cache"] + plain["budget"]["error"]["kv_cache"]) * GIB
        if budget["confidence"] == "calibrated" or believed:
            assert size <= measured.tokens * block * 1.001 + (1 << 20)
    if not any(measured.boot == "cold" for measured in same) and length == plain["engine_args"]["max-model-len"]:
        assert size <= plain["engine_args"]["kv-cache-memory-bytes"]
