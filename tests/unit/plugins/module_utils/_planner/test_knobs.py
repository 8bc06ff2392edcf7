"""A refusal names changes that cure it: each is carried out as it is printed, and the plan is made again."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.choose import Sizer
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.fit import Accounts
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.hosts import Host
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.plan import plan_fleet
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import read_wishes

from tests.unit.fleets import A100, H100, L40S, RTX4090, T4, facts, host

YARN = Path(__file__).parents[3] / "fixtures" / "cases" / "qwen3-yarn.json"
L4 = ("NVIDIA L4", 23.0, 0.5, "8.9", "pcie")
# A model of the fixtures, what is wished of it, hosts, and the fields that the first changes are of.
REFUSED: list[tuple[str, dict[str, Any], list[dict[str, Any]], list[str]]] = [
    ("yarn", {"context_length": 131072}, [host("gpu1", 2)], ["context_length", "extra_args.hf-overrides"]),
    ("qwen3-8b", {"context_length": 65536}, [host("gpu1", 1)], ["context_length"]),
    ("llama-3.1-8b-instruct", {"gpu_memory_utilization": 1.0}, [host("gpu1", 1)], ["gpu_memory_utilization"]),
    ("llama-3.1-8b-instruct", {"gpu_memory_utilization": 0.2}, [host("gpu1", 1)], ["gpu_memory_utilization"]),
    (
        "llama-3.1-8b-instruct",
        {"gpu_memory_utilization": 1.0, "context_length": 32768, "concurrency": 16},
        [host("gpu1", 1, L4)],
        ["gpu_memory_utilization"],
    ),
    ("llama-3.1-8b-instruct", {"context_length": 131072}, [host("gpu1", 1, RTX4090)], ["context_length"]),
    ("llama-3.1-8b-instruct", {"context_length": 65536, "concurrency": 8}, [host("gpu1", 1)], ["kv_cache_dtype"]),
    ("llama-3.1-8b-instruct", {"context_length": 65536, "concurrency": 8}, [host("gpu1", 1, A100)], ["concurrency"]),
    ("llama-3.1-8b-instruct", {"parallelism": {"tensor": 3}}, [host("gpu1")], ["parallelism.tensor"]),
    ("llama-3.1-8b-instruct", {"parallelism": {"expert": True}}, [host("gpu1")], ["parallelism.expert"]),
    ("gemma-2-9b-it", {"extra_args": {"dtype": "float16"}}, [host("gpu1", 1)], ["extra_args.dtype"]),
    ("llama-3.3-70b-instruct", {"parallelism": {"tensor": 1}}, [host("gpu1")], ["parallelism"]),
    ("deepseek-v3", {"parallelism": {"tensor": 4, "pipeline": 2}}, [host("gpu1"), host("gpu2")], ["parallelism"]),
    (
        "llama-3.1-8b-instruct",
        {"extra_args": {"kv-cache-memory-bytes": 10**13}},
        [host("gpu1", 1)],
        ["extra_args.kv-cache-memory-bytes"],
    ),
    ("phi-4", {}, [host("gpu1", 1, L4)], ["extra_args.quantization"]),
    ("qwen2.5-7b-instruct", {"context_length": 32768, "concurrency": 2}, [host("gpu1", 1, L40S)], []),
]  # fmt: skip
VALUE = r"(\{.*?\}|[^\s,]+?)(?=$|,| and |\.$)"
CHANGE = re.compile(rf"(?:set|raise|lower) vllm_models\[0\]\.(\S+) to {VALUE}", re.IGNORECASE)


def known(name: str) -> dict[str, Any]:
    return {"config": json.loads(YARN.read_text(encoding="utf-8"))} if name == "yarn" else facts(name)


def plan(name: str, wish: dict[str, Any], hosts: list[dict[str, Any]]) -> dict[str, Any]:
    wishes, _ = read_wishes([{"name": name, "source": "owner/model", **wish}], "0.33.0")
    sizer = Sizer(Accounts({name: known(name)}, "0.33.0"))
    return plan_fleet(wishes, [Host.from_dict(record) for record in hosts], sizer=sizer)


def changed(wish: dict[str, Any], sentence: str) -> tuple[list[str], dict[str, Any]]:
    """The fields that a sentence names, and the wish with all of them set as it says."""
    wish, fields = copy.deepcopy(wish), []
    for path, value in CHANGE.findall(sentence):
        *outer, last = path.split(".")
        place = wish
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = yaml.safe_load(value)
        fields.append(path)
    return fields, wish


@pytest.mark.parametrize(("name", "wish", "hosts", "first"), REFUSED)
def test_every_change_that_is_named_cures(
    name: str, wish: dict[str, Any], hosts: list[dict[str, Any]], first: list[str]
) -> None:
    if not first:
        assert plan(name, wish, hosts)["instances"]
        return
    with pytest.raises(PlacementError) as caught:
        plan(name, wish, hosts)
    (row,) = caught.value.rejected
    told = [changed(wish, sentence) for sentence in row["knob"].split(", or ")]
    assert [fields[0] for fields, _ in told][: len(first)] == first
    for fields, other in told:
        assert fields
        assert plan(name, other, hosts)["instances"], row["knob"]


def test_where_nothing_cures_other_hardware_is_named() -> None:
    with pytest.raises(PlacementError) as caught:
        plan("gpt-oss-20b", {"parallelism": {"tensor": 1}}, [host("gpu1", 1, T4)])
    assert caught.value.rejected[0]["knob"] == "Take other GPUs, or another model as vllm_models[0].source."
    with pytest.raises(PlacementError) as caught:
        plan("deepseek-v3", {}, [host("gpu1", 1, H100)])
    assert "larger GPUs" in caught.value.rejected[0]["knob"]
