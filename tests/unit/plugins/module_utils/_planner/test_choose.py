"""Facts of models and GPUs become shapes, contexts and pinned caches, or a refusal that says what would do."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.choose import Sizer
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.fit import LEAST_CONTEXT, Accounts
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.table import format_table
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import read_wishes
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.fleets import A100, GB200, H100, L40S, RTX4090, T4, carried_out, host, plan

SMALL = {"name": "llama-3.1-8b-instruct"}
LARGE = {"name": "llama-3.3-70b-instruct"}
GIB = 1 << 30


def shapes(made: dict[str, Any]) -> set[tuple[str, int, int]]:
    return {
        (instance["model"], instance["parallelism"]["tensor"], instance["parallelism"]["pipeline"])
        for instance in made["instances"]
    }


def indices(node: dict[str, Any]) -> list[int]:
    return [gpu["index"] for gpu in node["gpus"]]


def first(made: dict[str, Any]) -> dict[str, Any]:
    return dict(made["instances"][0])


def refusal(models: list[dict[str, Any]], *hosts: dict[str, Any]) -> PlacementError:
    with pytest.raises(PlacementError) as caught:
        plan(models, *hosts)
    return caught.value


# Golden fleets: (hosts, model, objective) -> tensor, pipeline, instances, context


@pytest.mark.parametrize(
    ("fleet", "model", "objective", "tensor", "pipeline", "instances", "context"),
    [
        pytest.param([host("gpu1")], SMALL, "throughput", 1, 1, 8, 131072, id="DGX H100, 8B"),
        pytest.param([host("gpu1")], SMALL, "balanced", 2, 1, 4, 131072, id="DGX H100, 8B, balanced"),
        pytest.param([host("gpu1")], SMALL, "latency", 8, 1, 1, 131072, id="DGX H100, 8B, latency"),
        pytest.param([host("gpu1")], LARGE, "throughput", 4, 1, 2, 131072, id="DGX H100, 70B"),
        pytest.param([host("gpu1", 8, A100)], LARGE, "throughput", 4, 1, 2, 131072, id="HGX A100, 70B"),
        pytest.param([host("gpu1", 8, L40S)], LARGE, "throughput", 4, 1, 2, 37632, id="8x L40S PCIe, 70B"),
        pytest.param([host("gpu1", 8, L40S)], SMALL, "latency", 1, 1, 8, 131072, id="8x L40S PCIe, 8B, latency"),
        pytest.param([host("gpu1", 4, RTX4090)], SMALL, "throughput", 1, 1, 4, 33792, id="4x RTX 4090, 8B"),
        pytest.param([host("gpu1", 1, T4)], {"name": "llama-3.2-1b-instruct"}, "throughput", 1, 1, 1, None, id="T4"),
        pytest.param([host("gpu1", 4, GB200)], LARGE, "throughput", 1, 1, 4, 82176, id="GB200, 70B"),
        pytest.param([host("gpu1"), host("gpu2", 0)], SMALL, "throughput", 1, 1, 8, 131072, id="an empty host beside"),
    ],
)
def test_golden_fleets(
    fleet: list[dict[str, Any]],
    model: dict[str, Any],
    objective: str,
    tensor: int,
    pipeline: int,
    instances: int,
    context: int | None,
) -> None:
    made = plan([model | {"objective": objective}], *fleet)
    assert shapes(made) == {(model["name"], tensor, pipeline)}
    assert len(made["instances"]) == instances
    assert context is None or first(made)["engine_args"]["max-model-len"] == context


def test_on_mixed_hosts_every_instance_has_the_account_of_its_gpus_and_all_take_one_length() -> None:
    made = plan([LARGE], host("gpu1"), host("gpu2", 8, L40S))
    budgets = {instance["endpoint"]["host"]: instance["budget"] for instance in made["instances"]}
    assert {name: budget["gpu"] for name, budget in budgets.items()} == {"gpu1": "H100 80GB", "gpu2": "L40S"}
    assert budgets["gpu1"]["kv_cache_tokens"] > 5 * budgets["gpu2"]["kv_cache_tokens"]
    assert {instance["engine_args"]["max-model-len"] for instance in made["instances"]} == {37632}
    assert made["warnings"][0].startswith(
        "llama-3.3-70b-instruct: context_length auto is 37632 on all instances, because that is what fits L40S"
    )
    assert "goes over PCIe" in made["warnings"][1]


def test_gpus_of_two_types_in_one_host_are_not_mixed_in_one_instance() -> None:
    mixed = host("gpu1", 4)
    mixed["gpu_facts"]["gpus"][2:] = [{**gpu, "index": index} for index, gpu in enumerate(
        host("gpu1", 4, L40S)["gpu_facts"]["gpus"][2:], 2)]  # fmt: skip
    made = plan([SMALL | {"parallelism": {"tensor": 2}}], mixed)
    assert [indices(instance["nodes"][0]) for instance in made["instances"]] == [[0, 1], [2, 3]]
    assert [instance["budget"]["gpu"] for instance in made["instances"]] == ["H100 80GB", "L40S"]
    assert made["warnings"][0] == (
        "gpu1: different GPUs (2 x NVIDIA H100 80GB HBM3 and 2 x NVIDIA L40S); an instance gets GPUs of one type only."
    )


def test_hosts_that_do_not_fit_the_chosen_shape_are_left_out() -> None:
    made = plan([SMALL | {"replicas": 3}], host("gpu1", 1, T4), host("gpu2", 4, RTX4090))
    assert {instance["endpoint"]["host"] for instance in made["instances"]} == {"gpu2"}
    (row,) = made["rejected"]
    assert (row["shape"], row["nearest_fit"]) == ("tensor 1 x pipeline 1 on T4", "tensor 1 x pipeline 1")
    assert row["needed_gib"] > row["available_gib"]


def test_shapes_that_were_rejected_say_why() -> None:
    one, two = plan([LARGE], host("gpu1"))["rejected"]
    assert one["reason"] == "the weights alone take 131.4 GiB per GPU; vLLM may use 72.8 GiB."
    assert two["shape"] == "tensor 2 x pipeline 1 on H100 80GB"
    assert "a margin for the error of these numbers" in two["reason"]
    assert two["needed_gib"] > two["available_gib"] == 72.77


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


def test_concurrency_is_a_constraint_that_costs_context() -> None:
    sixteen = first(plan([SMALL | {"concurrency": 16}], host("gpu1", 1)))
    assert sixteen["engine_args"]["max-num-seqs"] == 16
    assert LEAST_CONTEXT < sixteen["engine_args"]["max-model-len"] < 131072
    assert sixteen["budget"]["pinned"]["max_concurrency"] >= 16
    both = plan([SMALL | {"concurrency": 16, "context_length": 65536}], host("gpu1", 8))
    assert shapes(both) == {(SMALL["name"], 4, 1)}


def test_a_shape_that_holds_more_than_asked_for_gives_no_longer_context_than_the_models() -> None:
    assert first(plan([{"name": "gemma-2-9b-it"}], host("gpu1", 1)))["engine_args"]["max-model-len"] == 8192


def test_an_explicit_shape_is_checked() -> None:
    error = refusal([LARGE | {"parallelism": {"tensor": 2}, "context_length": 131072}], host("gpu1"))
    (row,) = error.rejected
    assert row["needed_gib"] > row["available_gib"]
    error = refusal([SMALL | {"parallelism": {"tensor": 3}}], host("gpu1"))
    assert "the number of attention heads (32) cannot be divided by tensor parallel size 3" in str(error)


def test_a_context_that_does_not_fit_names_the_one_that_does() -> None:
    error = refusal([SMALL | {"context_length": 131072}], host("gpu1", 1, RTX4090))
    (row,) = error.rejected
    assert row["nearest_fit"] == "context_length 33792 with tensor 1 x pipeline 1 on RTX 4090"
    assert row["knob"] == "Lower vllm_models[0].context_length to 33792."
    fits = plan([SMALL | {"context_length": 33792}], host("gpu1", 1, RTX4090))
    assert len(fits["instances"]) == 1


def test_a_context_beyond_the_models_own_is_refused_unless_vllm_is_told_so() -> None:
    wish = {"name": "qwen3-8b", "context_length": 65536}
    assert "the model's longest is 40960" in str(refusal([wish], host("gpu1", 1)))
    env = {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}
    assert first(plan([{**wish, "env": env}], host("gpu1", 1)))["engine_args"]["max-model-len"] == 65536


def test_weights_that_fit_no_host_say_how_many_would_do() -> None:
    (row,) = refusal([{"name": "deepseek-v3"}], host("gpu1")).rejected
    assert row["reason"] == "the weights alone take 79.6 GiB per GPU; vLLM may use 72.8 GiB."
    assert row["needed_gib"] > row["available_gib"]
    assert row["nearest_fit"] == "tensor 8 x pipeline 2 over 2 hosts on H100 80GB"
    assert row["knob"] == (
        "Tensor 8 x pipeline 2 over 2 hosts would do, but it needs 16 GPUs over 2 alike hosts; there is 1. Add such "
        "hosts, or hosts with more of these GPUs; take larger GPUs, or a quantised or smaller model as "
        "vllm_models[0].source."
    )


def test_a_parallelism_that_is_too_small_for_the_weights() -> None:
    wish = {"name": "deepseek-v3", "parallelism": {"tensor": 4, "pipeline": 2}}
    (row,) = refusal([wish], host("gpu1"), host("gpu2")).rejected
    assert row["nearest_fit"] == "about 10 x H100 80GB"
    assert row["knob"].endswith("or widen its parallelism.")


@pytest.mark.parametrize(
    "other",
    [host("gpu2", 8, A100), host("gpu2", 4), host("gpu2", 8, (*H100[:4], "pcie")), host("gpu2", driver="575.57.08")],
    ids=["type", "number", "link", "driver"],
)
def test_hosts_that_are_not_alike_do_not_add_up(other: dict[str, Any]) -> None:
    assert "alike hosts; there is 1." in str(refusal([{"name": "deepseek-v3"}], host("gpu1"), other))


# Instances over several hosts


@pytest.mark.parametrize(
    ("fleet", "model", "objective", "tensor", "pipeline", "nodes", "instances"),
    [
        pytest.param([H100] * 2, "deepseek-v3", "throughput", 8, 2, 2, 1, id="DeepSeek-V3 on 2 HGX H100"),
        pytest.param([H100] * 5, "deepseek-v3", "throughput", 8, 2, 2, 2, id="DeepSeek-V3 on 5 HGX H100"),
        pytest.param([H100, A100, H100, A100], "deepseek-v3", "balanced", 8, 2, 2, 2, id="2 HGX H100 and 2 HGX A100"),
        pytest.param([L40S] * 4, "deepseek-v3", "latency", 8, 3, 3, 1, id="DeepSeek-V3 on 4 x 8 L40S"),
        pytest.param([H100] * 2, "llama-3.1-405b-instruct", "throughput", 8, 2, 2, 1, id="405B on 2 HGX H100"),
        pytest.param([A100] * 2, "llama-3.1-405b-instruct", "latency", 8, 2, 2, 1, id="405B on 2 HGX A100, latency"),
        pytest.param([A100] * 2, "llama-3.3-70b-instruct", "throughput", 4, 1, 1, 4, id="70B needs one"),
    ],
)
def test_golden_fleets_of_several_hosts(
    fleet: list[Any], model: str, objective: str, tensor: int, pipeline: int, nodes: int, instances: int
) -> None:
    hosts = [host(f"gpu{number}", 8, kind) for number, kind in enumerate(fleet, 1)]
    made = plan([{"name": model, "objective": objective}], *hosts)
    assert shapes(made) == {(model, tensor, pipeline)}
    assert len(made["instances"]) == instances
    kinds = {one["name"]: kind for one, kind in zip(hosts, fleet, strict=True)}
    for instance in made["instances"]:
        assert len(instance["nodes"]) == nodes
        assert len({kinds[node["host"]] for node in instance["nodes"]}) == 1
        assert {len(node["gpus"]) for node in instance["nodes"]} == {tensor * pipeline // nodes}


def test_kinds_that_need_different_numbers_of_hosts() -> None:
    few, many = [host("gpu1"), host("gpu2")], [host(f"gpu{number}", 8, L40S) for number in range(3, 21)]
    assert shapes(plan([{"name": "deepseek-v3"}], *few, *many)) == {("deepseek-v3", 8, 2)}, "the fewest GPUs"
    assert shapes(plan([{"name": "deepseek-v3", "replicas": 2}], *few, *many)) == {("deepseek-v3", 8, 3)}, (
        "there is room"
    )


def test_an_explicit_shape_is_on_one_host_if_that_has_room_for_all() -> None:
    wish = SMALL | {"parallelism": {"tensor": 2, "pipeline": 2}}
    hosts = [host("gpu1", 4), *(host(f"gpu{number}", 2) for number in range(2, 8))]
    assert [len(one["nodes"]) for one in plan([wish | {"replicas": 1}], *hosts)["instances"]] == [1]
    assert [len(one["nodes"]) for one in plan([wish | {"replicas": 3}], *hosts)["instances"]] == [2, 2, 2]


def test_why_it_takes_more_than_one_host() -> None:
    made = plan([{"name": "deepseek-v3"}], host("gpu1"), host("gpu2"))
    assert first(made)["why"] == [
        "tensor 8 x pipeline 2 over 2 hosts: throughput: the fewest GPUs that hold the model",
        "pipeline 2 over 2 hosts: on one (tensor 8 x pipeline 1) " + made["rejected"][3]["reason"].rstrip("."),
        "context 163,840: the model's own",
        "the GPUs of a stage: linked by NVLink",
        "replicas auto: as many as fit, in turns with the other automatic models",
    ]
    assert all("over 2 hosts" not in row["shape"] for row in made["rejected"])


def test_the_least_stage_of_a_pipeline_decides() -> None:
    budget = first(plan([{"name": "deepseek-v3"}], host("gpu1"), host("gpu2")))["budget"]
    # The stages after the first have no dense layers, hence more experts, and less room.
    assert budget["kv_cache"] - budget["pinned"]["kv_cache"] > budget["pinned"]["margin"] + 1


def test_more_requests_may_need_narrower_stages_or_more_hosts() -> None:
    wish = {"name": "deepseek-v3", "context_length": 163840}  # every GPU of a stage holds MLA's whole cache
    hosts = [host(f"gpu{number}") for number in (1, 2, 3)]
    found = [shapes(plan([wish | {"concurrency": requests}], *hosts)) for requests in (4, 8, 16, 40)]
    assert [(tensor, pipeline) for ((_, tensor, pipeline),) in found] == [(8, 2), (4, 4), (2, 8), (1, 24)]


def test_stages_of_one_host_may_be_in_several_domains() -> None:
    halves = host("gpu1", 8, L40S)
    halves["gpu_facts"]["domains"] = [[0, 2, 4, 6], [1, 3, 5, 7]]
    made = plan([{"name": "qwen3-235b-a22b-fp8"}], halves)
    assert shapes(made) == {("qwen3-235b-a22b-fp8", 4, 2)}
    (node,) = first(made)["nodes"]
    assert indices(node) == [0, 2, 4, 6, 1, 3, 5, 7], "every stage has a domain of its own"


def test_a_model_that_cannot_be_cut_is_not_spread() -> None:
    hosts = [host(f"gpu{number}", 1) for number in (1, 2, 3)]
    assert shapes(plan([LARGE], *hosts)) == {(LARGE["name"], 1, 3)}
    other = LARGE | {"extra_args": {"hf-overrides": '{"architectures": ["Zamba2ForCausalLM"]}'}}
    assert "It would take about 2 of them" in str(refusal([other], *hosts))


def where(made: dict[str, Any]) -> dict[str, Any]:
    return {instance["id"]: (instance["nodes"], instance["rendezvous_port"]) for instance in made["instances"]}


@pytest.mark.parametrize("kind", [H100, GB200], ids=["hosts like those", "hosts that need only one"])
def test_new_hosts_do_not_move_what_spans_hosts(kind: Any) -> None:
    wish = {"name": "deepseek-v3"}
    hosts = [host("gpu5"), host("gpu6")]
    before = plan([dict(wish)], *hosts)
    more = [*carried_out(before, *hosts), *(host(f"gpu{number}", 8, kind) for number in (1, 2, 7, 8))]
    after = plan([dict(wish)], *more)
    assert where(after).items() >= where(before).items()


def test_a_new_model_does_not_move_what_spans_hosts() -> None:
    wishes: list[dict[str, Any]] = [{"name": "deepseek-v3", "replicas": 1}, SMALL | {"replicas": 4}]
    hosts = [host("gpu1"), host("gpu2"), host("gpu3")]
    before = plan([dict(wish) for wish in wishes[:1]], *hosts)
    after = plan([dict(wish) for wish in wishes], *carried_out(before, *hosts))
    assert where(after).items() >= where(before).items()


def test_a_tight_fit_that_runs_stays_when_more_hosts_would_do_better() -> None:
    wish = {"name": "deepseek-v3", "context_length": 163840, "concurrency": 35}
    hosts = [host("gpu1"), host("gpu2")]
    before = plan([dict(wish)], *hosts)
    assert "a tight fit on H100 80GB" in before["warnings"][0]
    after = plan([dict(wish)], *carried_out(before, *hosts), host("gpu3"))
    assert where(after) == where(before)
    assert shapes(plan([dict(wish)], *hosts, host("gpu3"))) != shapes(before)


def test_an_old_driver_is_refused_before_anything_is_installed() -> None:
    old = host("gpu1")
    old["gpu_facts"]["driver_version"] = "550.54.15"
    assert "driver 550; the default wheel of vLLM 0.33.0 needs branch 580 or newer" in str(refusal([SMALL], old))


def test_fp8_weights_need_no_fewer_gpus_on_a_card_that_is_too_old() -> None:
    assert "compute capability 7.5" in str(
        refusal([{"name": "gpt-oss-20b", "parallelism": {"tensor": 1}}], host("gpu1", 1, T4))
    )


def test_a_tight_fit_is_planned_with_a_warning_and_not_pinned() -> None:
    made = plan([SMALL | {"context_length": 37000}], host("gpu1", 1, RTX4090))
    assert "kv-cache-memory-bytes" not in first(made)["engine_args"]
    assert "a tight fit on RTX 4090" in made["warnings"][0]


def test_doubts_about_the_hardware_are_warnings_said_once() -> None:
    process = [{"pid": 4711, "used_gib": 20.0}]
    made = plan([SMALL], host("gpu1", 1, ecc_enabled=False), host("gpu2", 1, ecc_enabled=False, processes=process))
    ecc, orphan = made["warnings"]
    assert ecc.startswith("gpu1, gpu2: GPU 0: ECC off")
    assert orphan.startswith("gpu2: GPU 0: held by a process that is no instance of this fleet (pid 4711)")
    settled = carried_out(made, host("gpu1", 1), host("gpu2", 1, processes=process))
    assert plan([SMALL], *settled)["warnings"] == []


@pytest.mark.parametrize("state", ["not_started", "in_progress"])
def test_a_fabric_that_is_not_complete_is_a_warning(state: str) -> None:
    made = plan([SMALL], host("gpu1", 2, fabric_state=state), host("gpu2", 2, fabric_state="completed"))
    (warning,) = made["warnings"]
    assert warning.startswith(f"gpu1: GPUs 0-1: fabric {state}; CUDA does not start there until")


@pytest.mark.parametrize("version", ["0.19.0", "0.33.0"])
def test_what_is_left_to_the_planner_of_memory_is_what_the_engine_is_told(version: str) -> None:
    """Releases before 0.20 would take 0.9 by themselves."""
    instance = first(plan([SMALL], host("gpu1", 1), version=version))
    assert instance["engine_args"]["gpu-memory-utilization"] == 0.92
    assert instance["budget"]["requested"] == pytest.approx(0.92 * instance["budget"]["total"], abs=0.01)


def test_memory_that_is_the_hosts_too_is_not_sized() -> None:
    spark = ("NVIDIA GB10", 0.0, 0.0, "12.1", "host")
    made = plan([SMALL], host("gpu1", 1, spark, total_gib=None, reserved_gib=None))  # NVML has no memory to tell of
    assert first(made)["budget"]["confidence"] == "none"
    assert "GB10 shares its memory with the host; what is free there cannot be computed" in made["warnings"][0]
    assert "kv-cache-memory-bytes" not in first(made)["engine_args"]


def test_gpus_in_mig_mode_are_left_out() -> None:
    made = plan([SMALL], host("gpu1", 2), host("gpu2", 2, mig_enabled=True))
    assert {instance["endpoint"]["host"] for instance in made["instances"]} == {"gpu1"}
    assert made["warnings"][0].startswith("gpu2: GPU 0 is left out: MIG on")


@pytest.mark.parametrize("version", ["0.34.0", "nightly"])
def test_what_is_not_known_is_not_sized(version: str) -> None:
    made = plan([SMALL | {"parallelism": {"tensor": 1}}], host("gpu1"), version=version)
    assert shapes(made) == {(SMALL["name"], 1, 1)}
    assert first(made)["budget"]["confidence"] == "none"
    assert "it is not sized, because" in made["warnings"][0]


def test_a_model_without_facts_and_one_that_is_no_model() -> None:
    wishes, _ = read_wishes([SMALL | {"source": "a/b", "parallelism": {"tensor": 1}}], "0.33.0")
    no_model: dict[str, Any] = {SMALL["name"]: {"config": {}}}
    for sizer in (Sizer(), Sizer(version="0.33.0"), Sizer(no_model, "0.33.0")):
        choice = sizer.choose(wishes[0], [])
        assert "it is not sized" in choice.warnings[0]


def test_facts_of_the_files_count_more_than_the_formula() -> None:
    wishes, _ = read_wishes([SMALL | {"source": "a/b"}], "0.33.0")
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "intermediate_size": 128, "vocab_size": 512, "max_position_embeddings": 512}  # fmt: skip
    tensors = [{"name": "model.layers.*.mlp.down_proj.weight", "dtype": "BF16", "shape": [64, 128], "bytes": 4711}]
    model = Accounts({SMALL["name"]: {"config": config, "tensors": tensors}}, "0.33.0").model(wishes[0])
    assert (model.weights.total_bytes, model.weights.source) == (4711, "headers")  # type: ignore[union-attr]


def test_options_that_the_account_does_not_follow_are_named_and_nothing_is_pinned() -> None:
    made = plan([SMALL | {"extra_args": {"cpu-offload-gb": 4}}], host("gpu1", 1))
    assert "the memory account does not follow cpu-offload-gb of extra_args" in made["warnings"][0]
    assert first(made)["budget"]["pinned"] is None


def test_a_new_kind_of_host_does_not_change_the_shape_of_what_runs() -> None:
    hosts = [host("gpu1", 8, L40S)]
    before = plan([LARGE], *hosts)
    after = plan([LARGE], *carried_out(before, *hosts), host("gpu2", 8, GB200))
    places = {instance["id"]: instance["nodes"] for instance in before["instances"]}
    assert {instance["id"]: instance["nodes"] for instance in after["instances"]}.items() >= places.items()


def test_a_new_objective_does() -> None:
    hosts = [host("gpu1")]
    before = plan([SMALL], *hosts)
    after = plan([SMALL | {"objective": "latency"}], *carried_out(before, *hosts))
    assert shapes(after) == {(SMALL["name"], 8, 1)}


# Properties of every plan


NAMES = (
    "llama-3.2-1b-instruct",
    "qwen3-8b",
    "gpt-oss-20b",
    "gemma-2-9b-it",
    "qwen3-30b-a3b",
    "mixtral-8x7b-instruct-v0.1",
    "llama-3.3-70b-instruct",
)


@st.composite
def wishes_and_hosts(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    models = [
        {
            "name": name,
            "objective": draw(st.sampled_from(["throughput", "balanced", "latency"])),
            "replicas": draw(st.sampled_from(["auto", 1, 2])),
            "context_length": draw(st.sampled_from(["auto", 4096])),
            "concurrency": draw(st.sampled_from(["auto", 4])),
        }
        for name in names
    ]
    alike = st.tuples(
        st.integers(1, 3), st.sampled_from([1, 2, 4, 8]), st.sampled_from([H100, A100, L40S, RTX4090, T4])
    )
    groups = draw(st.lists(alike, min_size=1, max_size=3))
    kinds = [(count, kind) for number, count, kind in groups for _ in range(number)]
    hosts = [host(f"gpu{number}", count, kind) for number, (count, kind) in enumerate(kinds, 1)]
    for one in hosts:
        gpus = one["gpu_facts"]["domains"][0]
        if len(gpus) > 1 and draw(st.booleans()):
            one["gpu_facts"]["domains"] = [gpus[::2], gpus[1::2]]
    return models, hosts


def planned(models: list[dict[str, Any]], hosts: list[dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return plan(copy.deepcopy(models), *hosts)
    except PlacementError:
        return None


@settings(max_examples=80, deadline=None)
@given(wishes_and_hosts(), st.randoms(use_true_random=False))
def test_properties(fleet: tuple[list[dict[str, Any]], list[dict[str, Any]]], chance: random.Random) -> None:
    models, hosts = fleet
    made = planned(models, hosts)
    if made is None:
        return
    taken: set[tuple[str, int]] = set()
    kinds = {entry["name"]: entry["gpu_facts"] for entry in hosts}
    for instance in made["instances"]:
        shape, nodes = instance["parallelism"], instance["nodes"]
        assert [node["rank"] for node in nodes] == list(range(len({node["host"] for node in nodes})))
        assert len({kinds[node["host"]]["gpus"][0]["name"] for node in nodes}) == 1, "its hosts are alike"
        assert {len(node["gpus"]) for node in nodes} == {shape["tensor"] * shape["pipeline"] // len(nodes)}
        for node in nodes:
            gpus = {(node["host"], index) for index in indices(node)}
            assert len(gpus) == len(node["gpus"])
            assert not gpus & taken, "a GPU belongs to one instance"
            taken |= gpus
            for start in range(0, len(node["gpus"]), shape["tensor"]):
                stage = set(indices(node)[start : start + shape["tensor"]])
                assert any(stage <= set(domain) for domain in kinds[node["host"]]["domains"]), "a stage is in a domain"
        budget = instance["budget"]
        parts = ("weights", "activations", "cuda_graphs", "non_torch", "kv_cache")
        assert sum(budget[part] for part in parts) <= budget["requested"] + 0.05 <= budget["total"]
        granted = (budget["pinned"] or budget)["max_concurrency"]
        asked = next(model["concurrency"] for model in models if model["name"] == instance["model"])
        assert granted >= (1 if asked == "auto" else asked)
    assert planned(models, hosts) == made, "equal input, equal plan"
    shuffled = [*hosts]
    chance.shuffle(shuffled)
    assert planned(models, shuffled) == made, "the order of hosts does not matter"
    assert planned(models, carried_out(made, *hosts)) == made, "a second run changes nothing"
    grown = planned(models, [*carried_out(made, *hosts), host("gpu9", 8)])
    assert grown is not None
    places = {instance["id"]: instance["nodes"] for instance in made["instances"]}
    assert {instance["id"]: instance["nodes"] for instance in grown["instances"]}.items() >= places.items()


def test_the_table_of_a_sized_plan() -> None:
    lines = format_table(
        plan([SMALL | {"replicas": 1}, LARGE | {"replicas": 2}], host("gpu1"), host("gpu2"))
    ).splitlines()
    assert [line.split() for line in lines[5:8]] == [
        ["MODEL", "GPU", "CONTEXT", "WEIGHTS", "KV", "CACHE", "MARGIN", "WARM+", "KV", "TOKENS", "REQUESTS"],
        ["llama-3.1-8b-instruct", "H100", "80GB", "131072", "15.0", "54.37", "1.01", "1.67", "445376", "3.4"],
        ["llama-3.3-70b-instruct", "H100", "80GB", "131072", "32.9", "33.21", "2.30", "2.96", "435296", "3.3"],
    ]
    assert max(map(len, lines)) <= 100
