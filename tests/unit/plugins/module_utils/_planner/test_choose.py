"""Facts of models and GPUs become shapes and contexts; what holds for every plan."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.fleets import (
    A100,
    GB200,
    H100,
    L40S,
    LARGE,
    RTX4090,
    SMALL,
    T4,
    carried_out,
    first,
    host,
    indices,
    plan,
    shapes,
)


@pytest.mark.parametrize(
    ("fleet", "model", "objective", "tensor", "pipeline", "instances", "context"),
    [
        pytest.param([host("gpu1")], SMALL, "throughput", 1, 1, 8, 131072, id="DGX H100, 8B"),
        pytest.param([host("gpu1")], SMALL, "balanced", 1, 1, 8, 131072, id="DGX H100, 8B, balanced"),
        pytest.param([host("gpu1")], SMALL, "latency", 8, 1, 1, 131072, id="DGX H100, 8B, latency"),
        pytest.param([host("gpu1")], LARGE, "throughput", 4, 1, 2, 131072, id="DGX H100, 70B"),
        pytest.param([host("gpu1", 8, A100)], LARGE, "throughput", 4, 1, 2, 131072, id="HGX A100, 70B"),
        pytest.param([host("gpu1", 8, L40S)], LARGE, "throughput", 4, 1, 2, 37632, id="8x L40S PCIe, 70B"),
        pytest.param([host("gpu1", 8, L40S)], SMALL, "latency", 8, 1, 1, 131072, id="8x L40S PCIe, 8B, latency"),
        pytest.param([host("gpu1", 4, RTX4090)], SMALL, "throughput", 1, 1, 4, 33792, id="4x RTX 4090, 8B"),
        pytest.param([host("gpu1", 1, T4)], {"name": "llama-3.2-1b-instruct"}, "throughput", 1, 1, 1, None, id="T4"),
        pytest.param([host("gpu1", 4, GB200)], LARGE, "throughput", 2, 1, 2, 131072, id="GB200, 70B"),
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


def test_on_mixed_hosts_the_context_is_not_cut_to_what_the_least_gpu_holds() -> None:
    made = plan([LARGE], host("gpu1"), host("gpu2", 8, L40S))
    assert {instance["budget"]["gpu"] for instance in made["instances"]} == {"H100 80GB"}
    assert {instance["engine_args"]["max-model-len"] for instance in made["instances"]} == {131072}
    (warning,) = made["warnings"]
    knob = "Set vllm_models[0].context_length to 37632 to use it as well."
    assert warning.startswith("llama-3.3-70b-instruct: L40S is left out: it has room for 37632 tokens of context")
    assert warning.endswith(knob)
    turned = plan([LARGE | {"context_length": 37632}], host("gpu1"), host("gpu2", 8, L40S))
    assert {instance["budget"]["gpu"] for instance in turned["instances"]} == {"H100 80GB", "L40S"}


def test_on_mixed_hosts_every_instance_has_the_account_of_its_gpus_and_all_take_one_length() -> None:
    made = plan([LARGE | {"replicas": 4}], host("gpu1"), host("gpu2", 8, L40S))
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


def test_gpus_in_mig_mode_are_left_out() -> None:
    made = plan([SMALL], host("gpu1", 2), host("gpu2", 2, mig_enabled=True))
    assert {instance["endpoint"]["host"] for instance in made["instances"]} == {"gpu1"}
    assert made["warnings"][0].startswith("gpu2: GPU 0 is left out: MIG on")


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
