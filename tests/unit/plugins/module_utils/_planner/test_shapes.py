"""Instances over several hosts: when, over which, and that they stay there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.fleets import (
    A100,
    GB200,
    H100,
    L40S,
    LARGE,
    SMALL,
    carried_out,
    first,
    host,
    indices,
    plan,
    refusal,
    shapes,
)


@pytest.mark.parametrize(
    "other",
    [host("gpu2", 8, A100), host("gpu2", 4), host("gpu2", 8, (*H100[:4], "pcie")), host("gpu2", driver="575.57.08")],
    ids=["type", "number", "link", "driver"],
)
def test_hosts_that_are_not_alike_do_not_add_up(other: dict[str, Any]) -> None:
    assert "alike hosts; there is 1." in str(refusal([{"name": "deepseek-v3"}], host("gpu1"), other))


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
        first(made)["why"][3],  # how fast that is predicted to be
        "the GPUs of a stage: linked by NVLink",
        "between the hosts: TCP, as no InfiniBand or RoCE port is active on gpu1, gpu2",
        "replicas auto: as many as fit; of the automatic models that with the fewest instances gets the next one",
    ]
    assert first(made)["why"][3].startswith("predicted on H100 80GB: ")
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


OVER_HOSTS: dict[str, Any] = {"name": "llama-3.1-8b-instruct", "replicas": 1, "parallelism": {"tensor": 2}}


def test_a_stated_tensor_size_that_no_host_has_goes_over_hosts_with_a_warning() -> None:
    made = plan([dict(OVER_HOSTS)], host("gpu1", 1), host("gpu2", 1))
    (instance,) = made["instances"]
    assert [(node["host"], len(node["gpus"])) for node in instance["nodes"]] == [("gpu1", 1), ("gpu2", 1)]
    assert instance["parallelism"] == {"tensor": 2, "pipeline": 1, "expert": False}
    assert instance["executor"] == "mp"
    assert "tensor parallel over hosts: joined by the network between them" in instance["why"]
    (warning,) = [text for text in made["warnings"] if "hosts, because" in text]
    assert "tensor 2 goes over 2 hosts, because vllm_models[0].parallelism says so" in warning
    assert warning.endswith("{tensor: 1, pipeline: 2} would send far less.")


def test_and_every_stage_of_a_pipeline_likewise() -> None:
    model = OVER_HOSTS | {"parallelism": {"tensor": 4, "pipeline": 2}}
    (instance,) = plan([model], *(host(f"gpu{number}", 2) for number in range(1, 5)))["instances"]
    assert [len(node["gpus"]) for node in instance["nodes"]] == [2, 2, 2, 2]


def test_it_stays_on_one_host_where_any_has_the_gpus() -> None:
    """The pair of small hosts has as much room, and the network between them."""
    (instance,) = plan([dict(OVER_HOSTS)], host("gpu1", 1), host("gpu2", 1), host("gpu3", 2))["instances"]
    assert [node["host"] for node in instance["nodes"]] == ["gpu3"]


def test_an_automatic_choice_never_does() -> None:
    automatic = {"name": "llama-3.3-70b-instruct", "objective": "latency"}
    made = plan([automatic], *(host(f"gpu{number}", 1) for number in range(1, 5)))
    assert [instance["parallelism"]["tensor"] for instance in made["instances"]] == [1]


def test_what_runs_over_hosts_stays_there() -> None:
    hosts = [host("gpu1", 1), host("gpu2", 1)]
    made = plan([dict(OVER_HOSTS)], *hosts)
    more = [host("gpu0", 1), *carried_out(made, *hosts)]
    assert plan([dict(OVER_HOSTS)], *more)["instances"] == made["instances"]
