"""Every endpoint and every rendezvous of instances over hosts has a port of its own, and keeps it."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.hosts import Host, Running

from tests.unit.unsized import TINY, WIDE, host, plan, running_on, where


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
    assert nodes(made) == {"wide-1": (hosts, 8000, 29501), "wide-2": (hosts, 8001, 29601)}
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
    assert nodes(plan([WIDE], *running(29501, 29501))) == {"wide-1": (["gpu1", "gpu2"], 29501, 29601)}
    assert nodes(plan([WIDE | {"port": 29507}], *running(8001, 29507))) == {"wide-1": (["gpu1", "gpu2"], 29507, 29601)}
    wished = plan([WIDE, TINY | {"port": 29507}], *running(8001, 29507))
    assert wished["instances"][1]["rendezvous_port"] == 29601


def test_an_endpoint_passes_over_a_rendezvous_port() -> None:
    hosts = [
        host(name, 3, Running("wide-1", "wide", (0, 1), 9000, rank, 8000)) for rank, name in enumerate(("gpu1", "gpu2"))
    ]
    made = plan([WIDE, TINY], *hosts)
    assert made["instances"][0]["endpoint"] == {"host": "gpu1", "address": "10.0.0.1", "port": 8099}
    assert made["instances"][1]["rendezvous_port"] == 8000


def test_blocks_are_apart_on_every_host_that_two_instances_share() -> None:
    """The worker of one is on the head of the other: what listens on all its hosts must be free on all of them."""
    three = {"parallelism": {"tensor": 2, "pipeline": 3}}
    order = {"one": ["gpu1", "gpu2", "gpu3"], "two": ["gpu3", "gpu2", "gpu1"]}
    hosts = [
        host(
            name,
            4,
            *(
                Running(f"{model}-1", model, gpus, 8000, order[model].index(name), 29501)
                for model, gpus in (("one", (0, 1)), ("two", (2, 3)))
            ),
        )
        for name in order["one"]
    ]
    found = nodes(plan([WIDE | three | {"name": model} for model in order], *hosts))
    assert found == {"one-1": (order["one"], 8000, 29501), "two-1": (order["two"], 8000, 29601)}


def test_an_endpoint_on_the_host_of_a_worker_is_not_in_the_block() -> None:
    made = plan([WIDE, TINY | {"hosts": ["gpu2"]}], host("gpu1", 3), host("gpu2", 3), base_port=29550)
    assert {instance["endpoint"]["port"] for instance in made["instances"]} == {29600}
    assert made["instances"][1]["rendezvous_port"] == 29501
