"""Inputs that went wrong once, each an example of a kind of fault, with the right value."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError

from tests.unit.fleets import A100, H100, L40S, LARGE, RTX4090, SMALL, T4, carried_out, first, host, indices, plan

V3: dict[str, Any] = {"name": "deepseek-v3", "hosts": ["gpu1", "gpu2"], "replicas": 1}
MIXED = [host("gpu1"), host("gpu2"), host("gpu3", 4, A100), host("gpu4", 8, L40S)]


def runs(name: str, model: str, gpus: list[int], tensor: int, port: int = 8000, **more: Any) -> dict[str, Any]:
    """An entry of a local fact, of an earlier release: its GPUs are told by index."""
    return {"id": name, "model": model, "gpus": gpus, "tensor": tensor, "port": port, **more}


def plan_unsized(models: list[dict[str, Any]], *hosts: dict[str, Any]) -> dict[str, Any]:
    return plan([model | {"config": None} for model in models], *hosts)


def places(made: dict[str, Any]) -> dict[str, list[tuple[str, list[int]]]]:
    return {one["id"]: [(node["host"], indices(node)) for node in one["nodes"]] for one in made["instances"]}


def of(made: dict[str, Any], model: str) -> dict[str, Any]:
    return next(dict(one) for one in made["instances"] if one["model"] == model)


@pytest.mark.parametrize("objective", ["latency", "throughput", "balanced"])
def test_a_mixed_fleet_gives_the_faster_hardware(objective: str) -> None:
    """The 70B went to L40S over PCIe, with room for 1.0 request, while A100 with NVLink were idle."""
    small = {"name": "qwen3-8b"}
    made = plan([V3, LARGE | {"replicas": 1, "objective": objective}, small], *MIXED)
    large = of(made, LARGE["name"])
    assert [(node["host"], len(node["gpus"])) for node in large["nodes"]] == [("gpu3", 4)]
    assert large["engine_args"]["max-model-len"] == 131072
    assert large["budget"]["pinned"]["max_concurrency"] > 3
    told = " ".join(large["why"])
    assert f"tensor 4 x pipeline 1: {objective}: " in told
    assert "predicted on A100 80GB: 36 tokens/s for one request" in told
    assert "H100 80GB would be faster" in told
    assert told.endswith("but there is no room for it")
    assert {node["host"] for one in made["instances"] if one["model"] == "qwen3-8b" for node in one["nodes"]} == {
        "gpu4"
    }


def test_the_faster_hardware_also_where_models_compete_for_it() -> None:
    """As above with a 32B that fits neither one A100 nor one L40S: it goes where the 70B had the worst of it."""
    other: dict[str, Any] = {
        "name": "mixtral-8x7b-instruct-v0.1",
        "replicas": 1,
        "concurrency": 4,
        "context_length": 16384,
    }
    made = plan([V3, LARGE | {"replicas": 1}, other], *MIXED)
    assert of(made, LARGE["name"])["nodes"][0]["host"] == "gpu3"
    assert of(made, other["name"])["nodes"][0]["host"] == "gpu4"


def test_what_runs_holds_slower_hardware_and_says_so() -> None:
    wish = LARGE | {"replicas": 1}
    before = plan([copy.deepcopy(wish)], host("gpu2", 8, L40S))
    after = plan([wish], *carried_out(before, host("gpu2", 8, L40S)), host("gpu1"))
    assert places(after) == places(before)
    assert first(after)["why"][-1].endswith("but what runs stays where it is")
    assert plan([LARGE | {"replicas": 1}], host("gpu1"), host("gpu2", 8, L40S))["instances"][0]["nodes"][0]["host"] == (
        "gpu1"
    )


def test_adding_a_small_model_kills_no_replica() -> None:
    hosts = [host("gpu1", 4), host("gpu2", 4), host("gpu3", 2)]
    for one, name in zip(hosts, ("llama-3.3-70b-instruct-1", "llama-3.3-70b-instruct-2"), strict=False):
        one["instances"] = [runs(name, LARGE["name"], [0, 1, 2, 3], 4)]
    small = {"name": "llama-3.2-1b-instruct", "replicas": 1}
    made = plan([LARGE, small], *hosts)
    assert places(made) == {
        "llama-3.3-70b-instruct-1": [("gpu1", [0, 1, 2, 3])],
        "llama-3.3-70b-instruct-2": [("gpu2", [0, 1, 2, 3])],
        "llama-3.2-1b-instruct-1": [("gpu3", [0])],
    }
    assert made["changes"] == []


def test_adding_a_model_drops_no_replica() -> None:
    hosts = [host("gpu1", 2), host("gpu2", 1)]
    name = SMALL["name"]
    hosts[0]["instances"] = [runs(f"{name}-1", name, [0], 1), runs(f"{name}-2", name, [1], 1, 8001)]
    made = plan([SMALL | {"hosts": "gpu1"}, {"name": "qwen3-8b", "replicas": 1}], *hosts)
    assert places(made) == {
        f"{name}-1": [("gpu1", [0])],
        f"{name}-2": [("gpu1", [1])],
        "qwen3-8b-1": [("gpu2", [0])],
    }
    assert made["changes"] == []


def test_adding_a_host_drops_no_replica() -> None:
    hosts = [host("gpu1", 2), host("gpu2", 3)]
    one = {"name": "a", "source": "org/a", "parallelism": {"tensor": 1}, "replicas": "auto"}
    two = {"name": "b", "source": "org/b", "parallelism": {"tensor": 2}, "replicas": "auto"}
    hosts[0]["instances"] = [runs("a-1", "a", [0], 1), runs("a-3", "a", [1], 1, 8001)]
    hosts[1]["instances"] = [runs("a-2", "a", [2], 1), runs("b-1", "b", [0, 1], 2, 8001)]
    made = plan_unsized([one, two], *hosts, host("gpu9", 3))
    found = places(made)
    assert {name: found[name] for name in ("a-1", "a-2", "a-3", "b-1")} == {
        "a-1": [("gpu1", [0])],
        "a-2": [("gpu2", [2])],
        "a-3": [("gpu1", [1])],
        "b-1": [("gpu2", [0, 1])],
    }
    assert sum(len(gpus) for parts in found.values() for _, gpus in parts) == 8, "no GPU is left idle"
    assert made["changes"] == []


def test_a_weak_host_shrinks_no_context() -> None:
    hosts = [host("gpu1", 2), host("gpu2", 1, RTX4090)]
    name = SMALL["name"]
    hosts[0]["instances"] = [runs(f"{name}-1", name, [0], 1), runs(f"{name}-2", name, [1], 1, 8001)]
    made = plan([SMALL], *hosts)
    assert places(made) == {f"{name}-1": [("gpu1", [0])], f"{name}-2": [("gpu1", [1])]}
    assert {one["engine_args"]["max-model-len"] for one in made["instances"]} == {131072}
    (warning,) = made["warnings"]
    assert warning.startswith(f"{name}: RTX 4090 is left out: it has room for 33792 tokens of context")
    assert warning.endswith("Set vllm_models[0].context_length to 33792 to use it as well.")


# What has to give way is told.


def change(made: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    return [(row["instance"], row["action"], row["reason"], row["last"]) for row in made["changes"]]


TINY = {"name": "tiny", "source": "/srv/models/tiny", "parallelism": {"tensor": 1}}


def test_a_full_fleet_gives_a_new_model_one_instance() -> None:
    before = plan_unsized([TINY | {"replicas": "auto"}], host("gpu1", 2))
    other = {"name": "other", "source": "org/other", "parallelism": {"tensor": 1}, "replicas": "auto"}
    made = plan_unsized([TINY | {"replicas": "auto"}, other], *carried_out(before, host("gpu1", 2)))
    assert change(made) == [("tiny-2", "stopped", "it makes room for other-1", False)]


def test_fewer_replicas_and_models_that_go() -> None:
    before = plan_unsized([TINY | {"replicas": 3}], host("gpu1", 3))
    other = {"name": "other", "source": "org/other", "parallelism": {"tensor": 1}, "replicas": 1}
    made = plan_unsized([TINY | {"replicas": 1}], *carried_out(before, host("gpu1", 3)))
    assert change(made) == [
        ("tiny-2", "stopped", "vllm_models[0].replicas is 1", False),
        ("tiny-3", "stopped", "vllm_models[0].replicas is 1", False),
    ]
    gone = change(plan_unsized([other], *carried_out(before, host("gpu1", 3))))
    assert {row[1:] for row in gone} == {("stopped", "tiny is not in vllm_models any more", True)}


def test_a_card_that_is_gone_moves_its_instance() -> None:
    before = plan_unsized([TINY | {"replicas": 1}], host("gpu1", 2))
    (replaced,) = carried_out(before, host("gpu1", 2))
    replaced["gpu_facts"]["gpus"][0]["uuid"] = "GPU-new"
    ((name, action, reason, last),) = change(plan_unsized([TINY | {"replicas": 1}], replaced))
    assert (name, action, last) == ("tiny-1", "moved", False)
    assert reason.endswith("gpu1: GPU 0 (GPU-gpu1-0) is not there any more")


def test_a_shape_that_is_smaller_and_a_context_that_is_shorter() -> None:
    wide = TINY | {"replicas": 1, "parallelism": {"tensor": 2}}
    before = plan_unsized([wide], host("gpu1", 2))
    ((name, action, reason, _),) = change(plan_unsized([TINY | {"replicas": 1}], *carried_out(before, host("gpu1", 2))))
    assert (name, action) == ("tiny-1", "shrunk")
    assert reason == "to gpu1 GPU 0: its model has tensor 1 now, and had 2"
    for length, expected in ((4096, "shrunk"), (16384, "restarted")):
        made = plan_unsized([TINY | {"replicas": 1, "context_length": 8192}], host("gpu1", 1))
        there = carried_out(made, host("gpu1", 1))
        after = plan_unsized([TINY | {"replicas": 1, "context_length": length}], *there)
        assert change(after) == [("tiny-1", expected, f"its context_length is {length}, and was 8192", False)]


def test_another_port_is_a_restart() -> None:
    before = plan_unsized([TINY | {"replicas": 1}], host("gpu1", 1))
    made = plan_unsized([TINY | {"replicas": 1, "port": 9000}], *carried_out(before, host("gpu1", 1)))
    assert change(made) == [("tiny-1", "restarted", "its port is 9000, and was 8000", False)]


# Fleets that grow: many, of all kinds.

NAMES = ("llama-3.2-1b-instruct", "qwen3-8b", "gpt-oss-20b", "gemma-2-9b-it", "qwen3-30b-a3b", "llama-3.3-70b-instruct")


def fleet(chance: random.Random) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    models = [
        {
            "name": name,
            "objective": chance.choice(["throughput", "balanced", "latency"]),
            "replicas": chance.choice(["auto", 1, 2]),
            "context_length": chance.choice(["auto", 4096]),
        }
        for name in chance.sample(NAMES, chance.randint(1, 3))
    ]
    kinds = [(chance.choice([1, 2, 4, 8]), chance.choice([H100, A100, L40S, RTX4090, T4])) for _ in range(4)]
    return models, [host(f"gpu{number}", count, kind) for number, (count, kind) in enumerate(kinds, 1)]


def planned(models: list[dict[str, Any]], hosts: list[dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return plan(copy.deepcopy(models), *hosts)
    except PlacementError:
        return None


@pytest.mark.parametrize("seed", range(40))
def test_what_runs_stays_when_hosts_and_models_come(seed: int) -> None:
    chance = random.Random(seed)
    models, hosts = fleet(chance)
    before = planned(models, hosts)
    if before is None:
        return
    there = carried_out(before, *hosts)
    lengths = {one["id"]: one["engine_args"].get("max-model-len") for one in before["instances"]}
    for kind in (H100, L40S, T4):
        after = planned(models, [*there, host("gpu9", chance.choice([1, 4, 8]), kind)])
        assert after is not None
        assert places(after).items() >= places(before).items()
        assert {
            one["id"]: one["engine_args"].get("max-model-len") for one in after["instances"]
        }.items() >= lengths.items()
        assert after["changes"] == []
    new = next(name for name in NAMES if name not in {model["name"] for model in models})
    after = planned([*models, {"name": new, "replicas": 1}], there)
    if after is not None:
        moved = {name for name, place in places(before).items() if places(after).get(name) != place}
        assert moved <= {row["instance"] for row in after["changes"]}, "what gives way is told"
