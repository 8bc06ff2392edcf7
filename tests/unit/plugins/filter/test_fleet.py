"""What the filters make of a fleet plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpuhosts.vllm.plugins.filter import fleet

from tests.tools import docs


def instance(model: str, number: int, address: str, *hosts: str) -> dict[str, Any]:
    return {
        "id": f"{model}-{number}",
        "model": model,
        "task": "generate",
        "runtime": "systemd",
        "executor": "mp" if len(hosts) > 1 else None,
        "endpoint": {"host": hosts[0], "address": address, "port": 8000},
        "rendezvous_port": 29501 if len(hosts) > 1 else None,
        "nodes": [
            {
                "host": host,
                "address": f"10.1.0.{host[3:]}",
                "rank": rank,
                "role": "worker" if rank else "head",
                "gpus": [{"index": 0, "uuid": None}],
            }
            for rank, host in enumerate(hosts)
        ],
        "engine_args": {"model": model},
        "env": {"PLAIN": "word"},
    }


SMALL_2 = instance("small", 2, "10.0.0.2", "gpu2")
SMALL_1 = instance("small", 1, "10.0.0.1", "gpu1")
LARGE_1 = instance("large", 1, "10.0.0.3", "gpu3", "gpu2")
PLAN = {"instances": [SMALL_2, LARGE_1, SMALL_1]}


def test_what_a_host_starts_is_sorted_by_instance() -> None:
    def started(host: str) -> list[tuple[str, int]]:
        return [(record["id"], record["node"]["rank"]) for record in fleet.launches_on(PLAN, host)]

    assert started("gpu1") == [("small-1", 0)]
    assert started("gpu2") == [("large-1", 1), ("small-2", 0)]
    assert started("gpu3") == [("large-1", 0)]
    assert started("gpu4") == []


def test_adapters_have_the_servers_of_their_model() -> None:
    plan = {"instances": [SMALL_1 | {"adapters": [{"name": "sql", "source": "/sql"}]}, LARGE_1]}
    large, small = fleet.backends(plan)
    assert (large["adapters"], small["adapters"]) == ([], ["sql"])
    assert [entry["name"] for entry in fleet.served_names(plan)] == ["large", "small", "sql"]


def test_what_a_front_door_is_asked() -> None:
    plan = {
        "instances": [
            SMALL_2,
            SMALL_1,
            LARGE_1 | {"task": "embed"},
            instance("rows", 1, "10.0.0.9", "gpu1") | {"task": "classify"},
        ]
    }
    assert fleet.served_names(plan) == [{"name": "large", "task": "embed"}, {"name": "small", "task": "generate"}]


def test_the_name_of_earlier_releases_leads_there() -> None:
    runtime = yaml.safe_load((Path(__file__).parents[4] / "meta/runtime.yml").read_text())
    routed = runtime["plugin_routing"]["filter"]["instances_on"]
    assert routed["redirect"] == "gpuhosts.vllm.launches_on"
    assert "launches_on" in routed["deprecation"]["warning_text"]
    variables = {"plan": PLAN}
    text = "{{ plan | gpuhosts.vllm.instances_on('gpu2') | map(attribute='id') | join(' ') }}"
    docs.find_collection()
    assert Templar(DataLoader(), variables=variables).template(trust_as_template(text)) == "large-1 small-2"


@pytest.mark.parametrize("name", ["plan_report", "verdict"])
def test_a_filter_that_is_gone_names_what_does_its_work(name: str) -> None:
    docs.find_collection()
    with pytest.raises(AnsibleError, match=r"gpuhosts\.vllm\.fleet_(report|verdict)"):
        Templar(DataLoader(), variables={"plan": PLAN}).template(
            trust_as_template(f"{{{{ plan | gpuhosts.vllm.{name} }}}}")
        )


def test_backends_are_sorted_by_model_and_instance() -> None:
    assert fleet.backends(PLAN) == [
        {"name": "large", "servers": [{"id": "large-1", "address": "10.0.0.3", "port": 8000}], "adapters": []},
        {
            "name": "small",
            "servers": [
                {"id": "small-1", "address": "10.0.0.1", "port": 8000},
                {"id": "small-2", "address": "10.0.0.2", "port": 8000},
            ],
            "adapters": [],
        },
    ]


def test_every_engine_is_a_target() -> None:
    assert fleet.scrape_targets(PLAN) == [
        {"targets": ["10.0.0.3:8000"], "labels": {"model": "large", "instance_id": "large-1"}},
        {"targets": ["10.0.0.1:8000"], "labels": {"model": "small", "instance_id": "small-1"}},
        {"targets": ["10.0.0.2:8000"], "labels": {"model": "small", "instance_id": "small-2"}},
    ]


def test_an_engine_is_held_against_the_plan_on_the_host_of_its_api() -> None:
    budget = {"confidence": "high", "pinned": None, "kv_cache_tokens": 1000}
    plan = {
        "instances": [
            SMALL_2 | {"budget": budget | {"pinned": {"kv_cache_tokens": 900}}},
            SMALL_1 | {"budget": budget | {"confidence": "none"}},
            LARGE_1 | {"budget": budget},
        ]
    }
    assert fleet.engines_on(plan, "gpu2") == [
        {"id": "small-2", "model": "small", "url": "http://10.0.0.2:8000", "planned": 900}
    ]
    assert [one["planned"] for host in ("gpu1", "gpu3") for one in fleet.engines_on(plan, host)] == [None, 1000]


def test_an_empty_plan() -> None:
    assert (fleet.backends({"instances": []}), fleet.scrape_targets({"instances": []})) == ([], [])
