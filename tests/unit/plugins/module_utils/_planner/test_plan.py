"""Wishes and hosts become the fleet plan, or a refusal that says what to do."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.gpu import Gpu, GpuHost
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.hosts import Host, Running
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.plan import plan_fleet
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.table import format_table
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import read_wishes

# Nothing is known of it, so its shape has to be stated.
TINY: dict[str, Any] = {
    "name": "tiny",
    "source": "/srv/models/tiny",
    "replicas": 1,
    "parallelism": {"tensor": 1},
}


def host(name: str, gpus: int = 2, *running: Running, domains: int = 1, link: str = "nvlink", **gpu: Any) -> Host:
    """A host with so many GPUs, dealt out to so many domains; ``gpu`` changes the last one."""
    cards = [
        Gpu(index=index, uuid=f"GPU-{name}-{index}", total_gib=79.6, compute_capability="9.0") for index in range(gpus)
    ]
    if gpu:
        cards[-1] = Gpu(index=gpus - 1, **gpu)
    size = gpus // domains
    sets = tuple(tuple(range(start, start + size)) for start in range(0, gpus, size)) if gpus else ()
    reason = None if gpus else "no NVIDIA driver is installed"
    hardware = GpuHost(gpus=tuple(cards), domains=sets, link=link, reason=reason)
    return Host(name, f"10.0.0.{name[3:]}", hardware, running)


def plan(models: list[dict[str, Any]], *hosts: Host, base_port: int = 8000) -> dict[str, Any]:
    groups = {"all": [host.name for host in hosts]}
    made = plan_fleet(read_wishes(models, "0.33.0", groups)[0], hosts, base_port)
    # Nothing is known of these models; what the planner makes of facts is in test_choose.py.
    made["warnings"] = [warning for warning in made["warnings"] if "it is not sized" not in warning]
    return made


def running_on(before: dict[str, Any], *hosts: Host) -> list[Host]:
    """The hosts as they are when a plan has been carried out."""
    return [
        Host(
            host.name,
            host.address,
            host.hardware,
            tuple(
                Running(
                    instance["id"],
                    instance["model"],
                    tuple(gpu["index"] for gpu in node["gpus"]),
                    instance["endpoint"]["port"],
                    node["rank"],
                    instance["rendezvous_port"],
                    instance["parallelism"]["tensor"],
                )
                for instance in before["instances"]
                for node in instance["nodes"]
                if node["host"] == host.name
            ),
        )
        for host in hosts
    ]


def where(made: dict[str, Any]) -> dict[str, str]:
    """Every instance as host/GPUs:port."""
    return {
        instance[
            "id"
        ]: f"{node['host']}/{','.join(str(gpu['index']) for gpu in node['gpus'])}:{instance['endpoint']['port']}"
        for instance in made["instances"]
        for node in instance["nodes"]
    }


def refusal(models: list[dict[str, Any]], *hosts: Host) -> PlacementError:
    with pytest.raises(PlacementError) as caught:
        plan(models, *hosts)
    return caught.value


def test_the_whole_plan() -> None:
    model = TINY | {
        "parallelism": {"tensor": 2},
        "revision": "abc",
        "context_length": 512,
        "concurrency": 4,
        "gpu_memory_utilization": 0.5,
        "kv_cache_dtype": "fp8",
        "extra_args": {"enforce_eager": True},
        "env": {"OMP_NUM_THREADS": 1},
    }
    assert plan([model], host("gpu1")) == {
        "version": 2,
        "instances": [
            {
                "id": "tiny-1",
                "model": "tiny",
                "task": "generate",
                "runtime": "systemd",
                "executor": None,
                "parallelism": {"tensor": 2, "pipeline": 1, "expert": False},
                "endpoint": {"host": "gpu1", "address": "10.0.0.1", "port": 8000},
                "rendezvous_port": None,
                "nodes": [
                    {
                        "host": "gpu1",
                        "address": "10.0.0.1",
                        "rank": 0,
                        "role": "head",
                        "gpus": [{"index": 0, "uuid": "GPU-gpu1-0"}, {"index": 1, "uuid": "GPU-gpu1-1"}],
                    }
                ],
                "engine_args": {
                    "model": "/srv/models/tiny",
                    "revision": "abc",
                    "served-model-name": "tiny",
                    "tensor-parallel-size": 2,
                    "pipeline-parallel-size": 1,
                    "gpu-memory-utilization": 0.5,
                    "max-model-len": 512,
                    "max-num-seqs": 4,
                    "kv-cache-dtype": "fp8",
                    "enforce-eager": True,
                },
                "env": {"OMP_NUM_THREADS": "1"},
                "budget": {
                    "total": 79.6,
                    "requested": 39.8,
                    "weights": None,
                    "activations": None,
                    "cuda_graphs": None,
                    "non_torch": None,
                    "kv_cache": None,
                    "kv_cache_tokens": None,
                    "max_concurrency": None,
                    "cold_compile": None,
                    "confidence": "none",
                    "gpu": "GPU without a name",
                    "error": None,
                    "pinned": None,
                    "conditions": None,
                },
                "why": ["tensor 2 x pipeline 1: as the inventory says", "GPUs 0, 1: linked by NVLink"],
            }
        ],
        "rollout": [["gpu1"]],
        "rejected": [],
        "warnings": [],
    }


def test_what_is_left_to_vllm_is_not_among_its_arguments() -> None:
    (instance,) = plan([TINY], host("gpu1", 1, total_gib=None))["instances"]
    assert instance["engine_args"] == {
        "model": "/srv/models/tiny",
        "served-model-name": "tiny",
        "tensor-parallel-size": 1,
        "pipeline-parallel-size": 1,
        "gpu-memory-utilization": 0.92,
    }
    assert instance["executor"] is None
    assert (instance["budget"]["total"], instance["budget"]["requested"]) == (None, None)
    assert instance["why"] == ["tensor 1 x pipeline 1: as the inventory says"]


def test_expert_parallelism_and_pipelines() -> None:
    parallelism = {"tensor": 2, "pipeline": 2, "expert": True}
    (instance,) = plan([TINY | {"parallelism": parallelism}], host("gpu1", 4))["instances"]
    assert instance["parallelism"] == parallelism
    assert [gpu["index"] for gpu in instance["nodes"][0]["gpus"]] == [0, 1, 2, 3]
    arguments = instance["engine_args"]
    assert (arguments["pipeline-parallel-size"], arguments["enable-expert-parallel"]) == (2, True)


def test_ten_replicas_are_sorted_as_people_count() -> None:
    made = plan([TINY | {"replicas": 10}], host("gpu1", 10))
    assert [instance["id"] for instance in made["instances"]] == [f"tiny-{number}" for number in range(1, 11)]


def test_automatic_replicas_fill_the_fleet() -> None:
    made = plan([TINY | {"replicas": "auto"}], host("gpu1"), host("gpu2", 1))
    assert where(made) == {"tiny-1": "gpu1/0:8000", "tiny-2": "gpu2/0:8000", "tiny-3": "gpu1/1:8001"}
    assert made["instances"][0]["why"][-1] == "replicas auto: as many as fit, in turns with the other automatic models"


def test_a_model_keeps_to_its_hosts() -> None:
    made = plan([TINY | {"replicas": 2, "hosts": ["gpu2"]}], host("gpu1", 8), host("gpu2"))
    assert where(made) == {"tiny-1": "gpu2/0:8000", "tiny-2": "gpu2/1:8001"}


# Stability


def test_a_second_run_and_the_order_of_everything_change_nothing() -> None:
    models = [TINY | {"name": name, "replicas": replicas} for name, replicas in [("a", 2), ("b", "auto"), ("c", 1)]]
    models[2] |= {"parallelism": {"tensor": 2}, "port": 8001}
    hosts = [host("gpu1", 4), host("gpu2", 4, domains=2), host("gpu3", 2)]
    first = plan(models, *hosts)
    assert plan(models, *running_on(first, *hosts)) == first
    chance = random.Random(7)
    for _ in range(5):
        chance.shuffle(models)
        chance.shuffle(hosts)
        assert plan(models, *hosts) == first
        assert plan(models, *running_on(first, *hosts)) == first


def test_a_new_host_or_model_moves_nothing() -> None:
    hosts = [host("gpu1"), host("gpu2")]
    first = plan([TINY | {"replicas": 2}], *hosts)
    now = running_on(first, *hosts)
    assert plan([TINY | {"replicas": 2}], *now, host("gpu0", 8)) == first | {"rollout": [["gpu0", "gpu1"], ["gpu2"]]}
    second = where(plan([{**TINY, "name": "a", "parallelism": {"tensor": 1}}, TINY | {"replicas": 2}], *now))
    assert second == {**where(first), "a-1": "gpu1/1:8001"}


def test_an_instance_on_a_gpu_that_is_lost_moves() -> None:
    (one,) = running_on(plan([TINY], host("gpu1", 1)), host("gpu1", 1))
    broken = Host(one.name, one.address, GpuHost(gpus=(Gpu(index=0, lost=True),)), one.running)
    made = plan([TINY], broken, host("gpu2"))
    assert where(made) == {"tiny-1": "gpu2/0:8000"}
    assert made["warnings"] == ["gpu1: GPU 0 is left out: lost (fell off the bus); reboot the host or replace the GPU."]


def test_running_instances_of_other_names_are_left_to_the_role() -> None:
    strangers = (Running("tiny", "tiny", (0,), 8000), Running("old-1", "old", (1,), 8001))
    assert where(plan([TINY], host("gpu1", 2, *strangers))) == {"tiny-1": "gpu1/0:8000"}


# Ports


def test_a_wished_port_is_kept_free_for_its_model_and_its_replicas_count_up() -> None:
    models = [TINY | {"name": "a", "replicas": 2}, TINY | {"name": "b", "replicas": 2, "port": 8000}]
    assert where(plan(models, host("gpu1", 4))) == {
        "a-1": "gpu1/0:8002",
        "a-2": "gpu1/1:8003",
        "b-1": "gpu1/2:8000",
        "b-2": "gpu1/3:8001",
    }


def test_replicas_pass_over_the_wished_port_of_another_model() -> None:
    models = [TINY | {"name": "a", "replicas": 2, "port": 8000}, TINY | {"name": "b", "port": 8001}]
    made = plan(models, host("gpu1", 3))
    assert where(made) == {"a-1": "gpu1/0:8000", "a-2": "gpu1/1:8002", "b-1": "gpu1/2:8001"}
    assert plan(models, *running_on(made, host("gpu1", 3))) == made


def test_a_running_instance_keeps_its_port_unless_a_model_wishes_it() -> None:
    running = Running("tiny-1", "tiny", (0,), 8005)
    other = TINY | {"name": "a"}
    assert where(plan([TINY, other], host("gpu1", 2, running))) == {"a-1": "gpu1/1:8000", "tiny-1": "gpu1/0:8005"}
    wished = where(plan([TINY, other | {"port": 8005}], host("gpu1", 2, running)))
    assert wished == {"a-1": "gpu1/1:8005", "tiny-1": "gpu1/0:8000"}
    assert where(plan([TINY | {"port": 9000}], host("gpu1", 2, running))) == {"tiny-1": "gpu1/0:9000"}


def test_a_new_instance_takes_no_port_that_another_one_has() -> None:
    running = Running("z-1", "z", (0,), 8000)
    made = plan([TINY | {"name": "z"}, TINY | {"name": "a"}], host("gpu1", 2, running))
    assert where(made) == {"a-1": "gpu1/1:8001", "z-1": "gpu1/0:8000"}


def test_ports_begin_at_the_base_port() -> None:
    assert where(plan([TINY], host("gpu1"), base_port=9000)) == {"tiny-1": "gpu1/0:9000"}


# Instances that span hosts


WIDE: dict[str, Any] = TINY | {"name": "wide", "parallelism": {"tensor": 2, "pipeline": 2}}


def test_an_instance_over_hosts() -> None:
    (instance,) = plan([WIDE | {"env": {"NCCL_DEBUG": "INFO"}}], host("gpu1"), host("gpu2"))["instances"]
    assert instance["endpoint"] == {"host": "gpu1", "address": "10.0.0.1", "port": 8000}
    assert (instance["executor"], instance["rendezvous_port"]) == ("mp", 29501)
    assert instance["engine_args"] == {
        "model": "/srv/models/tiny",
        "served-model-name": "wide",
        "tensor-parallel-size": 2,
        "pipeline-parallel-size": 2,
        "gpu-memory-utilization": 0.92,
    }, "nothing of where it runs"
    assert instance["env"] == {"NCCL_DEBUG": "INFO"}
    assert instance["nodes"] == [
        {
            "host": name,
            "address": address,
            "rank": rank,
            "role": role,
            "gpus": [{"index": index, "uuid": f"GPU-{name}-{index}"} for index in (0, 1)],
        }
        for rank, (name, address, role) in enumerate((("gpu1", "10.0.0.1", "head"), ("gpu2", "10.0.0.2", "worker")))
    ]
    assert instance["why"] == [
        "tensor 2 x pipeline 2 over 2 hosts: as the inventory says",
        "the GPUs of a stage: linked by NVLink",
    ]


def test_a_pipeline_that_fits_one_host_stays_on_one() -> None:
    assert where(plan([WIDE], host("gpu1"), host("gpu2"), host("gpu3", 4))) == {"wide-1": "gpu3/0,1,2,3:8000"}
    assert where(plan([WIDE], host("gpu1"), host("gpu2", 4, domains=2))) == {"wide-1": "gpu2/0,1,2,3:8000"}


def test_a_second_run_and_a_new_host_leave_it_where_it_is() -> None:
    models = [WIDE, TINY | {"replicas": 2}]
    hosts = [host("gpu2", 3), host("gpu3", 3)]
    first = plan(models, *hosts)
    assert plan(models, *running_on(first, *hosts)) == first
    more = plan(models, *running_on(first, *hosts), host("gpu1", 3), host("gpu4", 8))
    assert more["instances"] == first["instances"]
    assert (first["rollout"], more["rollout"]) == ([["gpu2", "gpu3"]], [["gpu1", "gpu2", "gpu3", "gpu4"]])


def test_it_moves_when_one_of_its_hosts_is_gone() -> None:
    hosts = [host("gpu1"), host("gpu2"), host("gpu3")]
    _, two, three = running_on(plan([WIDE], *hosts), *hosts)
    (instance,) = plan([WIDE], two, three)["instances"]
    assert [node["host"] for node in instance["nodes"]] == ["gpu2", "gpu3"]


def nodes(made: dict[str, Any]) -> dict[str, tuple[list[str], int, int]]:
    """Hosts, port of the endpoint and rendezvous port of every instance."""
    return {
        instance["id"]: (
            [node["host"] for node in instance["nodes"]],
            instance["endpoint"]["port"],
            instance["rendezvous_port"],
        )
        for instance in made["instances"]
    }


def test_instances_with_one_head_meet_at_ports_of_their_own() -> None:
    model = WIDE | {"replicas": 2, "parallelism": {"tensor": 2, "pipeline": 3}}
    hosts = ["gpu1", "gpu2", "gpu3"]
    made = plan([model], *(host(name, 4) for name in hosts))
    assert nodes(made) == {"wide-1": (hosts, 8000, 29501), "wide-2": (hosts, 8001, 29502)}
    rest = [
        Host(one.name, one.address, one.hardware, one.running[1:])
        for one in running_on(made, *map(host, hosts, [4] * 3))
    ]
    assert nodes(plan([model], *rest)) == nodes(made), "the second stays at the second"


def test_a_rendezvous_port_is_kept_but_gives_way_to_wishes_and_endpoints() -> None:
    def running(port: int, master: int) -> list[Host]:
        return [
            host(name, 3, Running("wide-1", "wide", (0, 1), port, rank, master))
            for rank, name in enumerate(("gpu1", "gpu2"))
        ]

    assert nodes(plan([WIDE], *running(8001, 29507))) == {"wide-1": (["gpu1", "gpu2"], 8001, 29507)}
    assert nodes(plan([WIDE], *running(29501, 29501))) == {"wide-1": (["gpu1", "gpu2"], 29501, 29502)}
    assert nodes(plan([WIDE | {"port": 29507}], *running(8001, 29507))) == {"wide-1": (["gpu1", "gpu2"], 29507, 29501)}
    wished = plan([WIDE, TINY | {"port": 29507}], *running(8001, 29507))
    assert wished["instances"][1]["rendezvous_port"] == 29501


def test_an_endpoint_passes_over_a_rendezvous_port() -> None:
    hosts = [
        host(name, 3, Running("wide-1", "wide", (0, 1), 9000, rank, 8000)) for rank, name in enumerate(("gpu1", "gpu2"))
    ]
    made = plan([WIDE, TINY], *hosts)
    assert made["instances"][0]["endpoint"] == {"host": "gpu1", "address": "10.0.0.1", "port": 8001}
    assert made["instances"][1]["rendezvous_port"] == 8000


# What runs now, by the local facts


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


# Refusals


def test_parallelism_that_exceeds_the_gpus() -> None:
    error = refusal([TINY | {"parallelism": {"tensor": 4}}], host("gpu1"), host("gpu2"))
    assert str(error) == (
        "tiny: one instance (tensor 4 x pipeline 1) needs 4 GPUs of one host that are linked with each other; "
        "the largest such set has 2 (gpu1, gpu2). "
        "Lower vllm_models[0].parallelism.tensor to at most 2; a pipeline may span several hosts."
    )
    assert error.rejected == [
        {
            "model": "tiny",
            "shape": "tensor 4 x pipeline 1",
            "reason": "one instance (tensor 4 x pipeline 1) needs 4 GPUs of one host that are linked with each other; "
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
    assert "(gpu1, gpu2, gpu3, 6 more)" in str(refusal([TINY | {"parallelism": {"tensor": 4}}], *hosts))


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


def test_hosts_that_are_no_gpu_hosts() -> None:
    wishes, _ = read_wishes([TINY | {"hosts": "lb1"}], groups={"all": ["gpu1", "lb1"]})
    with pytest.raises(PlacementError, match=r"none of its hosts \(no host of gpu_hosts\) has a usable one"):
        plan_fleet(wishes, [host("gpu1")])


def test_two_hosts_with_one_address() -> None:
    twin = Host("gpu2", "10.0.0.1", host("gpu1").hardware)
    with pytest.raises(PlacementError) as caught:
        plan([TINY], host("gpu1"), twin)
    assert str(caught.value) == (
        "gpu1 and gpu2 both have the address 10.0.0.1, so an instance could not be told from another. "
        "Correct ansible_host or fleet_address."
    )


# The table


def test_the_table() -> None:
    made = plan([TINY | {"replicas": 2, "parallelism": {"tensor": 2}}], host("gpu1"), host("gpu2", 3, lost=True))
    assert format_table(made) == "\n".join(
        [
            "INSTANCE  HOST  GPUS  TP  PP  GIB/GPU  ENDPOINT",
            "tiny-1    gpu1  0-1   2   1   73.2     10.0.0.1:8000",
            "tiny-2    gpu2  0-1   2   1   73.2     10.0.0.2:8000",
            "",
            "2 instances of 1 model on 4 GPUs",
            "warning: gpu2: GPU 2 is left out: lost (fell off the bus); reboot the host or replace the GPU.",
        ]
    )


def test_the_table_has_a_line_for_every_node() -> None:
    made = plan([WIDE], host("gpu1"), host("gpu2"))
    assert format_table(made).splitlines()[:3] == [
        "INSTANCE  HOST  GPUS  TP  PP  GIB/GPU  ENDPOINT",
        "wide-1    gpu1  0-1   2   2   73.2     10.0.0.1:8000",
        "          gpu2  0-1",
    ]


def test_the_table_fits_a_hundred_columns() -> None:
    name = "a-model-with-a-name-that-is-as-long-as-the-names-of-models-are-these-days-70b"
    long = Host("gpu-host-in-rack-17.example.org", "gpu-host-in-rack-17.example.org", host("gpu1", 8).hardware)
    table = format_table(plan([TINY | {"name": name, "parallelism": {"tensor": 8}}], long))
    assert max(map(len, table.splitlines())) <= 100
    assert "-70b-1" in table, "the end tells instances apart"


def test_hosts_come_from_plain_data() -> None:
    hardware = host("gpu1").hardware
    facts = {
        "name": "gpu1",
        "address": "10.0.0.1",
        "gpu_facts": json.loads(json.dumps(hardware.to_dict())),
        "instances": [{"id": "tiny-1", "model": "tiny", "gpus": [1, 0], "port": 8000}],
    }
    assert Host.from_dict(facts) == Host("gpu1", "10.0.0.1", hardware, (Running("tiny-1", "tiny", (0, 1), 8000),))
