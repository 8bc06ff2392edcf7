"""What there is no room for is refused with what is needed, what there is, and what to change."""

from __future__ import annotations

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.plan import plan_fleet
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import read_wishes

from tests.unit.unsized import TINY, WIDE, host, refusal


def test_parallelism_that_exceeds_the_gpus() -> None:
    error = refusal([TINY | {"parallelism": {"tensor": 8}}], host("gpu1"), host("gpu2"))
    assert str(error) == (
        "tiny: one instance (tensor 8 x pipeline 1) needs 8 GPUs of one host that are linked with each other; "
        "the largest such set has 2 (gpu1, gpu2). "
        "Lower vllm_models[0].parallelism.tensor to at most 2; a pipeline may span several hosts."
    )
    assert error.rejected == [
        {
            "model": "tiny",
            "shape": "tensor 8 x pipeline 1",
            "reason": "one instance (tensor 8 x pipeline 1) needs 8 GPUs of one host that are linked with each other; "
            "the largest such set has 2 (gpu1, gpu2).",
            "needed_gib": None,
            "available_gib": None,
            "nearest_fit": "2 GPUs",
            "knob": "Lower vllm_models[0].parallelism.tensor to at most 2; a pipeline may span several hosts.",
        }
    ]


def test_gpus_of_two_domains_do_not_add_up() -> None:
    error = refusal([TINY | {"parallelism": {"tensor": 4}}], host("gpu1", 4, domains=2))
    assert "the largest such set has 2 (gpu1)." in str(error)


def test_a_pipeline_that_there_are_not_the_hosts_for() -> None:
    model = TINY | {"parallelism": {"tensor": 2, "pipeline": 4}}
    hosts = [host("gpu1"), host("gpu2"), host("gpu3", 2, link="pcie")]
    (row,) = refusal([model], *hosts).rejected
    assert row["reason"] == (
        "one instance (tensor 2 x pipeline 4 over 4 hosts) needs 8 GPUs over 4 alike hosts; there are 2 "
        "(GPU without a name)."
    )
    assert row["nearest_fit"] == "tensor 2 x pipeline 2 over 2 hosts"
    assert row["knob"] == "Lower vllm_models[0].parallelism.pipeline to 2, or add such hosts."


def test_more_instances_over_hosts_than_there_is_room_for() -> None:
    error = refusal([WIDE | {"replicas": 2}], host("gpu1"), host("gpu2"), host("gpu3"))
    assert str(error) == (
        "wide: 2 instances of 4 GPUs each over 2 alike hosts need 8 GPUs; its hosts have 6 usable ones, "
        "and beside the other models there is room for 1 of the 2. "
        "Lower vllm_models[0].replicas to 1, or those of another model, or add GPUs."
    )


def test_every_model_that_is_too_large_is_named() -> None:
    models = [TINY | {"name": name, "parallelism": {"tensor": 4}} for name in "ab"]
    assert [record["model"] for record in refusal(models, host("gpu1")).rejected] == ["a", "b"]


def test_of_many_hosts_a_few_are_named() -> None:
    hosts = [host(f"gpu{number}") for number in range(1, 10)]
    assert "(gpu1, gpu2, gpu3, 6 more)" in str(refusal([TINY | {"parallelism": {"tensor": 32}}], *hosts))


def test_more_replicas_than_there_is_room_for() -> None:
    models = [TINY | {"replicas": 3, "parallelism": {"tensor": 2}}, TINY | {"name": "other", "hosts": "gpu1"}]
    error = refusal(models, host("gpu1"), host("gpu2"))
    assert str(error) == (
        "tiny: 3 instances of 2 GPUs each need 6 GPUs; its hosts have 4 usable ones, "
        "and beside the other models there is room for 2 of the 3. "
        "Lower vllm_models[0].replicas to 2, or those of another model, or add GPUs."
    )
    assert error.rejected[0]["nearest_fit"] == "replicas 2"


def test_no_room_for_even_one() -> None:
    error = refusal([TINY, TINY | {"name": "other"}], host("gpu1", 1))
    assert str(error) == (
        "tiny: 1 instance of 1 GPU needs 1 GPU; its hosts have 1 usable one, "
        "and beside the other models there is room for 0 of the 1. "
        "Lower the replicas of another model, or add GPUs."
    )


def test_hosts_that_are_no_gpu_hosts() -> None:
    wishes, _ = read_wishes([TINY | {"hosts": "lb1"}], groups={"all": ["gpu1", "lb1"]})
    with pytest.raises(PlacementError, match=r"none of its hosts \(no host of gpu_hosts\) has a usable one"):
        plan_fleet(wishes, [host("gpu1")])
