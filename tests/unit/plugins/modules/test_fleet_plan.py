"""The action fleet_plan, from its arguments to its result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.action import fleet_plan
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.effective import compared

from tests.unit import fleets
from tests.unit.plugins.conftest import RunAction

TINY: dict[str, Any] = {
    "name": "tiny",
    "source": "/srv/models/tiny",
    "replicas": 2,
    "parallelism": {"tensor": 1},
}
GPUS = [{"index": index, "total_gib": 79.6} for index in (0, 1)]
HOST: dict[str, Any] = {
    "name": "gpu1",
    "address": "10.0.0.1",
    "gpu_facts": {"gpus": GPUS, "domains": [[0, 1]], "link": "nvlink", "reason": None},
}


def test_a_plan_and_its_table(run_action: RunAction) -> None:
    result = run_action(fleet_plan, models=[TINY], hosts=[HOST])
    assert not result["changed"]
    assert [instance["id"] for instance in result["plan"]["instances"]] == ["tiny-1", "tiny-2"]
    assert "2 instances of 1 model on 2 GPUs" in result["table"].splitlines()
    assert result["hosts"] == [HOST | {"instances": []}]


def test_hosts_that_are_only_described_are_planned_instead(run_action: RunAction) -> None:
    described = [{"name": "gpu9", "gpus": "1 x L4"}]
    model = TINY | {"replicas": 1, "hosts": "gpu9"}
    result = run_action(
        fleet_plan, models=[model], hosts=[HOST], described_hosts=described, groups={"gpu_hosts": ["gpu1"]}
    )
    (instance,) = result["plan"]["instances"]
    assert (instance["endpoint"]["host"], instance["endpoint"]["address"]) == ("gpu9", "gpu9")
    assert [host["name"] for host in result["hosts"]] == ["gpu9"]


def test_the_first_host_that_could_read_a_model_counts() -> None:
    hosts: list[dict[str, Any]] = [
        {"name": "gpu3", "model_facts": {"a": {"config": {"x": 3}}}},
        {"name": "gpu1", "model_facts": {"a": {"problem": "not on gpu1"}, "b": {"problem": "first"}}},
        {"name": "gpu2", "model_facts": {"a": {"config": {"x": 2}}, "b": {"problem": "second"}}},
        {"name": "gpu4"},
    ]
    assert fleet_plan.known_models(hosts) == {"a": {"config": {"x": 2}}, "b": {"problem": "first"}}


def test_adapters_are_counted_and_listed(run_action: RunAction) -> None:
    sql = {"name": "sql", "source": "/srv/adapters/sql"}
    known = {"sql": {"source": "/srv/adapters/sql", "adapter": {"rank": 64, "base": "acme/other"}}}
    result = run_action(fleet_plan, models=[TINY | {"lora": [sql]}], hosts=[HOST | {"model_facts": known}])
    (first, _) = result["plan"]["instances"]
    assert first["adapters"] == [sql | {"revision": None}]
    assert {name: first["engine_args"][name] for name in ("enable-lora", "max-lora-rank")} == {
        "enable-lora": True,
        "max-lora-rank": 64,
    }
    assert "tiny: the adapter sql was made for acme/other, not for /srv/models/tiny" in result["plan"]["warnings"]


def test_what_is_stated_of_a_model_counts_before_what_was_read(run_action: RunAction) -> None:
    known = {"tiny": fleets.facts("llama-3.2-1b-instruct")}
    host = fleets.host("gpu1", 1) | {"model_facts": {"tiny": {"source": "/srv/models/tiny", "problem": "not there"}}}
    budgets = [
        run_action(fleet_plan, models=[TINY | {"replicas": 1}], hosts=[host], **more)["plan"]["instances"][0]["budget"]
        for more in ({}, {"model_facts": known})
    ]
    assert [budget["confidence"] for budget in budgets] == ["none", "high"]


def test_what_runs_stays(run_action: RunAction) -> None:
    running = {"id": "tiny-2", "model": "tiny", "gpus": [1], "port": 8007}
    result = run_action(fleet_plan, models=[TINY | {"replicas": 1}], hosts=[HOST | {"instances": [running]}])
    (instance,) = result["plan"]["instances"]
    assert (instance["id"], instance["nodes"][0]["gpus"][0]["index"], instance["endpoint"]["port"]) == (
        "tiny-2",
        1,
        8007,
    )


def test_what_runs_on_two_hosts_stays(run_action: RunAction) -> None:
    model = TINY | {"replicas": 1, "parallelism": {"tensor": 2, "pipeline": 2}}
    part = {"id": "tiny-1", "model": "tiny", "gpus": [0, 1], "port": 8000, "tensor": 2, "master_port": 29505}
    hosts = [
        HOST | {"name": name, "address": name, "instances": [part | {"rank": rank}] if rank is not None else []}
        for name, rank in (("gpu1", None), ("gpu2", 1), ("gpu3", 0))
    ]
    (instance,) = run_action(fleet_plan, models=[model], hosts=hosts)["plan"]["instances"]
    assert [node["host"] for node in instance["nodes"]] == ["gpu3", "gpu2"]
    assert instance["rendezvous_port"] == 29505


def test_without_hosts_the_wishes_are_validated(run_action: RunAction) -> None:
    result = run_action(fleet_plan, models=[TINY], vllm_version="0.99.0")
    assert (result["changed"], "plan" in result) == (False, False)
    (warning,) = result["warnings"]
    assert warning.startswith("vLLM 0.99.0 is not in the option catalogue, which knows 0.32, 0.33: extra_args are")


def test_warnings_about_wishes_and_hosts_are_in_the_plan(run_action: RunAction) -> None:
    bare = {"name": "gpu2", "address": "10.0.0.2", "gpu_facts": {"gpus": [], "reason": "no driver"}}
    result = run_action(fleet_plan, models=[TINY], hosts=[HOST, bare], vllm_version="0.99.0")
    catalogue, hardware, model = result["plan"]["warnings"]
    assert catalogue.startswith("vLLM 0.99.0 is not in the option catalogue")
    assert hardware == "gpu2: no GPU: no driver."
    assert model.startswith("tiny: it is not sized, because its files were not read")


def test_with_facts_a_model_is_sized_and_pinned_unless_switched_off(run_action: RunAction) -> None:
    known = {"tiny": fleets.facts("llama-3.2-1b-instruct")}
    host = fleets.host("gpu1", 1)
    for pin in (True, False):
        result = run_action(
            fleet_plan, models=[TINY | {"replicas": 1}], hosts=[host], model_facts=known, pin_kv_cache=pin
        )
        (instance,) = result["plan"]["instances"]
        assert instance["budget"]["confidence"] == "high"
        assert ("kv-cache-memory-bytes" in instance["engine_args"]) is pin


def test_a_calibration_is_used_where_the_environment_is_the_same(run_action: RunAction, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "models": [TINY | {"replicas": 1}],
        "hosts": [fleets.host("gpu1", 1)],
        "model_facts": {"tiny": fleets.facts("llama-3.2-1b-instruct")},
    }
    (instance,) = run_action(fleet_plan, pin_kv_cache=False, **arguments)["plan"]["instances"]
    budget = instance["budget"]
    effective = {"kv_cache_size_tokens": budget["kv_cache_tokens"], "num_gpu_blocks": budget["kv_cache_tokens"] // 16}
    shown = {**instance, "effective": {**effective, "boot": "cold"}}
    kept = tmp_path / "calibration.json"
    kept.write_text(json.dumps(compared({"instances": [shown]}, "2026-11-23")))
    made = run_action(fleet_plan, calibration=str(kept), **arguments)["plan"]
    assert (made["instances"][0]["budget"]["confidence"], made["warnings"]) == ("calibrated", [])
    other = run_action(fleet_plan, calibration=str(kept), engine_environment={"NCCL_DEBUG": "INFO"}, **arguments)
    assert other["plan"]["warnings"] == [
        "tiny: the calibration by gpu1 on 2026-11-23 is not used, because these differ: options or environment."
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory."),
        ("{", "it is no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))."),
        ("{}", "it is no list; keep a copy of reports/effective.json as serve.yml writes it."),
    ],
)
def test_what_is_no_calibration_stops_the_plan(
    run_action: RunAction, tmp_path: Path, content: str | None, problem: str
) -> None:
    kept = tmp_path / "calibration.json"
    if content is not None:
        kept.write_text(content)
    assert run_action(fleet_plan, models=[TINY], calibration=str(kept))["msg"] == (
        f"The calibration {kept} cannot be used: {problem}"
    )


def test_a_calibration_without_a_measurement_is_a_warning(run_action: RunAction, tmp_path: Path) -> None:
    kept = tmp_path / "calibration.json"
    kept.write_text('[{"id": "tiny-1", "model": "tiny", "measurement": null}]')
    warning = run_action(fleet_plan, models=[TINY], hosts=[HOST], calibration=str(kept))["plan"]["warnings"][0]
    assert warning.startswith(f"The calibration {kept} has no measurement in it: engines that are pinned")
    assert warning.endswith("Measure with vllm_pin_kv_cache: false.")


def test_every_mistake_is_told(run_action: RunAction) -> None:
    result = run_action(fleet_plan, models=[TINY | {"extra_args": {"max-num-seq": 8}}, TINY], vllm_version="0.32.0+cpu")
    assert result["failed"]
    assert result["problems"] == [
        "vllm_models[0].extra_args: vLLM 0.32.0+cpu has no option 'max-num-seq'; did you mean 'max-num-seqs'?",
        "vllm_models[1].name: 'tiny' is already the name of vllm_models[0]; give every model a name of its own.",
    ]
    assert result["msg"] == "2 mistakes in vllm_models:\n" + "\n".join(result["problems"])


def test_a_secret_in_the_environment_of_all_engines_is_refused_without_its_value(run_action: RunAction) -> None:
    result = run_action(fleet_plan, models=[TINY], engine_environment={"HF_TOKEN": "hf_s3cret"})
    assert result["msg"] == (
        "1 mistake in vllm_environment:\nvllm_environment: HF_TOKEN is not for vllm_environment: it would stand in "
        "readable files. Set vllm_hf_token."
    )
    both = run_action(fleet_plan, models=[TINY | {"nam": 1}], engine_environment={"HF_TOKEN": "hf_s3cret"})
    assert both["msg"].startswith("2 mistakes in vllm_models and vllm_environment:\n")


def test_the_groups_say_what_hosts_there_are(run_action: RunAction) -> None:
    result = run_action(fleet_plan, models=[TINY | {"hosts": "gpu_host"}], groups={"gpu_hosts": ["gpu1"]})
    assert result["msg"] == (
        "1 mistake in vllm_models:\n"
        "vllm_models[0].hosts: 'gpu_host' is no group and no host of the inventory; did you mean 'gpu_hosts'?"
    )


def test_a_refusal_carries_its_record(run_action: RunAction) -> None:
    result = run_action(fleet_plan, models=[TINY | {"parallelism": {"tensor": 4}}], hosts=[HOST])
    assert result["failed"]
    assert result["msg"].startswith(
        "The fleet does not fit its hosts:\ntiny: one instance (tensor 4 x pipeline 1) needs"
    )
    assert [record["nearest_fit"] for record in result["rejected"]] == ["2 GPUs"]
