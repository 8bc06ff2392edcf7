"""Hosts as the planner sees them: what runs there by their local facts, and which GPUs can be used."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.hosts import Host, Running

from tests.unit.unsized import TINY, host, plan, refusal, where


def placed(gpus: list[Any], cards: list[str | None], model: str = "tiny", **more: Any) -> Host:
    """gpu1 with these cards (by uuid) in the order of their indices, where one instance was started on ``gpus``."""
    facts = [
        {"index": index, "uuid": uuid, "total_gib": 79.6, "lost": uuid is None} for index, uuid in enumerate(cards)
    ]
    present = [index for index, uuid in enumerate(cards) if uuid]
    return Host.from_dict(
        {
            "name": "gpu1",
            "address": "10.0.0.1",
            "gpu_facts": {"gpus": facts, "domains": [present], "link": "nvlink", "reason": None},
            "instances": [{"id": f"{model}-1", "model": model, "gpus": gpus, "port": 8003, **more}],
        }
    )


def test_facts_of_earlier_releases_are_read() -> None:
    assert where(plan([TINY], placed([1], ["GPU-a", "GPU-b"]))) == {"tiny-1": "gpu1/1:8003"}


@pytest.mark.parametrize(
    ("cards", "place"),
    [
        pytest.param(["GPU-a", "GPU-b", "GPU-c"], "gpu1/1:8003", id="as it was"),
        pytest.param(["GPU-b", "GPU-c"], "gpu1/0:8003", id="a card below it is gone, so all moved up"),
        pytest.param(["GPU-new", "GPU-a", "GPU-b", "GPU-c"], "gpu1/2:8003", id="a card was put in below it"),
    ],
)
def test_an_instance_is_found_again_by_the_uuid_of_its_gpu(cards: list[str | None], place: str) -> None:
    made = plan([TINY], placed([{"index": 1, "uuid": "GPU-b"}], cards))
    assert where(made) == {"tiny-1": place}
    assert made["warnings"] == []


@pytest.mark.parametrize(
    "cards",
    [
        pytest.param(["GPU-a", "GPU-new", "GPU-c"], id="replaced"),
        pytest.param(["GPU-a", "GPU-c"], id="vanished"),
        pytest.param(["GPU-a", None, "GPU-c"], id="lost"),
    ],
)
def test_an_instance_whose_card_is_gone_does_not_run_on_the_card_that_has_its_index(cards: list[str | None]) -> None:
    gone = placed([{"index": 1, "uuid": "GPU-b"}], cards)
    assert gone.running[0].gpu_indices == ()
    made = plan([TINY], gone)
    assert where(made) == {"tiny-1": "gpu1/0:8003"}, "as on free hardware, but clients find it at its port"
    assert (
        "gpu1: GPU 1 (GPU-b), where tiny-1 was started, is not there any more; that instance is planned anew."
        in made["warnings"]
    )


def test_an_instance_of_two_gpus_of_which_one_is_gone_keeps_its_shape() -> None:
    gpus = [{"index": 0, "uuid": "GPU-a"}, {"index": 1, "uuid": "GPU-b"}]
    one = placed(gpus, ["GPU-b", "GPU-c", "GPU-d"], tensor=2)
    assert (one.running[0].gpu_indices, one.running[0].gpu_count) == ((0,), 2)
    assert where(plan([TINY | {"parallelism": {"tensor": 2}}], one)) == {"tiny-1": "gpu1/0,1:8003"}


def test_a_version_one_fact_that_names_an_index_that_is_gone() -> None:
    assert where(plan([TINY], placed([5], ["GPU-a", "GPU-b"]))) == {"tiny-1": "gpu1/0:8003"}


def test_a_host_whose_gpus_were_not_read_is_an_error_that_names_it() -> None:
    with pytest.raises(PlacementError, match=r"^gpu7: its GPUs were not read\. Bring the host back"):
        Host.from_dict({"name": "gpu7", "address": "10.0.0.7", "gpu_facts": {}})


def test_a_host_whose_gpus_cannot_be_read_but_whose_instances_run_is_an_error_until_its_fact_is_gone() -> None:
    unread = placed([{"index": 0, "uuid": "GPU-a"}], [])
    error = refusal([TINY], unread, host("gpu2"))
    assert str(error).startswith("gpu1: no GPU can be read there (no reason is known), but by /etc/ansible/facts.d/")
    assert "If its GPUs are gone for good, remove that file." in str(error)
    assert where(plan([TINY], replace(unread, running=()), host("gpu2"))) == {"tiny-1": "gpu2/0:8000"}


@pytest.mark.parametrize(
    ("broken", "warning"),
    [
        (host("gpu1", 0), "gpu1: no GPU: no NVIDIA driver is installed."),
        (
            host("gpu1", 1, lost=True),
            "gpu1: GPU 0 is left out: lost (fell off the bus); reboot the host or replace the GPU.",
        ),
        (
            host("gpu1", 1, mig_enabled=True),
            "gpu1: GPU 0 is left out: MIG on, 0 slices; turn MIG mode off to use it as a whole.",
        ),
        (
            host("gpu1", 1, compute_capability="7.0"),
            "gpu1: GPU 0 is left out: it has compute capability 7.0; vLLM is built for 7.5 and newer.",
        ),
    ],
)
def test_gpus_that_cannot_be_used_are_left_out_and_named(broken: Host, warning: str) -> None:
    assert plan([TINY], broken, host("gpu2"))["warnings"] == [warning]
    assert str(refusal([TINY], broken)) == (
        "tiny: one instance (tensor 1 x pipeline 1) needs 1 GPU of one host; "
        "none of its hosts (gpu1) has a usable one. "
        f"See to the GPUs of these hosts, or widen vllm_models[0].hosts.\n{warning}"
    )


def test_two_hosts_with_one_address() -> None:
    twin = Host("gpu2", "10.0.0.1", host("gpu1").hardware)
    with pytest.raises(PlacementError) as caught:
        plan([TINY], host("gpu1"), twin)
    assert str(caught.value) == (
        "gpu1 and gpu2 both have the address 10.0.0.1, so an instance could not be told from another. "
        "Correct ansible_host, fleet_address or fleet_cluster_address."
    )


def test_hosts_come_from_plain_data() -> None:
    hardware = host("gpu1").hardware
    facts = {
        "name": "gpu1",
        "address": "10.0.0.1",
        "gpu_facts": json.loads(json.dumps(hardware.to_dict())),
        "instances": [{"id": "tiny-1", "model": "tiny", "gpus": [1, 0], "port": 8000}],
    }
    assert Host.from_dict(facts) == Host("gpu1", "10.0.0.1", hardware, (Running("tiny-1", "tiny", (0, 1), 8000),))
