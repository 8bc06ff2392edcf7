"""Wishes and hosts become the fleet plan, and a second run changes nothing."""

from __future__ import annotations

import random

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.gpu import Gpu, GpuHost
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.hosts import Host, Running

from tests.unit.unsized import TINY, WIDE, host, plan, running_on, where


def test_the_whole_plan() -> None:
    model = TINY | {
        "source": "acme/tiny",
        "parallelism": {"tensor": 2},
        "revision": "abc",
        "context_length": 512,
        "concurrency": 4,
        "gpu_memory_utilization": 0.5,
        "kv_cache_dtype": "fp8",
        "extra_args": {"enforce_eager": True},
        "env": {"OMP_NUM_THREADS": 1},
        "lora": [{"name": "sql", "source": "/srv/adapters/sql"}],
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
                    "model": "acme/tiny",
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
                "adapters": [{"name": "sql", "source": "/srv/adapters/sql", "revision": None}],
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
                "speed": None,
                "why": ["tensor 2 x pipeline 1: as the inventory says", "GPUs 0, 1: linked by NVLink"],
            }
        ],
        "rollout": [["gpu1"]],
        "changes": [],
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


def test_a_stated_task_is_what_vllm_is_told() -> None:
    (instance,) = plan([TINY | {"task": "embed"}], host("gpu1"))["instances"]
    assert (instance["task"], instance["engine_args"]["runner"]) == ("embed", "pooling")
    assert instance["engine_args"]["convert"] == "embed"


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
    assert (
        made["instances"][0]["why"][-1]
        == "replicas auto: as many as fit; of the automatic models that with the fewest instances gets the next one"
    )


def test_a_model_keeps_to_its_hosts() -> None:
    made = plan([TINY | {"replicas": 2, "hosts": ["gpu2"]}], host("gpu1", 8), host("gpu2"))
    assert where(made) == {"tiny-1": "gpu2/0:8000", "tiny-2": "gpu2/1:8001"}


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
        "between the hosts: TCP, as no InfiniBand or RoCE port is active on gpu1, gpu2",
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
