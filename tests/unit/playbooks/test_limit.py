"""``--limit``: the plan is of the whole fleet, hosts outside are read and never changed, nothing passes in silence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .conftest import AWAY, ROOT, Play, on_debian

DRIVER = ("-e", "nvidia_driver_version=580.178.04")  # driver_upgrade.yml has to be told
CHANGED = re.compile(r"changed: \[(?:\S+ -> )?([^\]]+)\]")
PLAYBOOKS = ("detect", "models", "balance", "verify")  # they import validate, preflight and plan


def test_every_playbook_works_on_a_part_and_plans_the_whole(
    play: Play, inventory: dict[str, Any], tmp_path: Path
) -> None:
    """The front door is there for nobody, so verify.yml, which comes last, has to say so."""
    inventory["load_balancers"]["hosts"]["lb1"]["fleet_address"] = "127.0.0.1:1"
    del inventory["monitoring"]
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/config.json").write_text("{}")
    inventory["all"] = {"vars": {"ansible_become": False}}
    done = play(on_debian(tmp_path, *PLAYBOOKS), "--limit", "gpu1")
    plan = json.loads((tmp_path / "site/reports/plan.json").read_text())
    assert [instance["endpoint"]["host"] for instance in plan["instances"]] == ["gpu1", "gpu2"]
    assert done.code != 0
    (failure,) = json.loads((tmp_path / "site/reports/verify.json").read_text())["failures"]
    assert failure.startswith("lb1: tiny: ")
    assert failure in done.text
    assert set(done.recap) == {"gpu1"}
    assert done.recap["gpu1"]["failed"] == 1


def test_reports_of_an_inventory_that_is_a_directory_lie_beside_it(play: Play, tmp_path: Path) -> None:
    """What lies in it is read as inventory by the next run."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/config.json").write_text("{}")
    assert play("plan", "-i", str(tmp_path / "site")).code == 0
    assert (tmp_path / "reports/site/plan.json").exists()
    assert not (tmp_path / "site/reports").exists()


def test_a_host_outside_that_does_not_answer_stops_the_plan(
    play: Play, inventory: dict[str, Any], tmp_path: Path
) -> None:
    inventory["gpu_hosts"]["hosts"]["gpu2"] = AWAY
    done = play("plan", "--limit", "gpu1")
    assert done.code != 0
    assert "No answer from gpu2. --limit leaves it unchanged, but the plan is made of the whole fleet" in done.text
    assert not (tmp_path / "site/reports").exists()


def test_a_stage_that_the_limit_leaves_no_host_passes_and_changes_none(
    play: Play, inventory: dict[str, Any], tmp_path: Path
) -> None:
    inventory["all"] = {"vars": {"ansible_become": False}}
    done = play(on_debian(tmp_path, "hardware", "serve", "driver_upgrade"), "--limit", "lb1", *DRIVER)
    assert (done.code, set(done.recap)) == (0, {"lb1"})
    assert set(CHANGED.findall(done.text)) == {"localhost"}  # the plan is kept there, of the whole fleet
    plan = json.loads((tmp_path / "site/reports/plan.json").read_text())
    assert [instance["endpoint"]["host"] for instance in plan["instances"]] == ["gpu1", "gpu2"]


def test_a_limit_that_cuts_an_instance_in_two_is_refused_before_any_change(
    play: Play, inventory: dict[str, Any], tmp_path: Path
) -> None:
    inventory["gpu_hosts"]["vars"]["vllm_models"][0] |= {"replicas": 1, "parallelism": {"pipeline": 2}}
    inventory["all"] = {"vars": {"ansible_become": False}}
    done = play(on_debian(tmp_path, "plan", "stages/serve"), "--limit", "gpu1")
    assert done.code != 0
    assert "--limit leaves out gpu2, where tiny-1 has nodes as well." in done.text
    assert "Add gpu2 to --limit." in done.text
    assert "What is new, on all hosts at once" not in done.text


def test_the_doctor_judges_the_limit(play: Play, tmp_path: Path) -> None:
    done = play("doctor", "--limit", "lb1")
    verdict = json.loads((tmp_path / "site/reports/doctor.json").read_text())
    assert verdict["summary"].startswith("1 host, ")
    assert {entry["host"] for entry in verdict["failures"] + verdict["warnings"] + verdict["not_judged"]} <= {"lb1"}
    assert done.code == (0 if verdict["ok"] else 2)


def test_what_runs_on_other_hosts_than_those_of_the_play_only_reads() -> None:
    """Ansible itself keeps a play to the limit; what a task is delegated to, it does not."""
    reads = {"ansible.builtin.setup", "ansible.builtin.uri", "ansible.builtin.wait_for_connection"}
    reads |= {f"gpuhosts.vllm.{name}" for name in ("engine_idle", "model_probe", "gpu_facts", "model_facts")}
    delegated = [
        task
        for place in ("playbooks", "roles")
        for path in (ROOT / place).rglob("*.yml")
        for task in tasks(yaml.safe_load(path.read_text()))
        if task.get("delegate_to", "localhost") != "localhost"
    ]
    assert len(delegated) > 4
    # The store tells hosts that have looked and no other (test_distribution.py); those are hosts of the play.
    of_the_play = ("{{ __model_store_work.handing_out }}", "{{ model_store_looks | gpuhosts.vllm.model_origins(")
    others = [task for task in delegated if not str(task.get("loop")).startswith(of_the_play)]
    assert len(delegated) - len(others) == 3
    # Whoever watches a host is told of the work on it, wherever that is.
    reads.add("gpuhosts.vllm.alert_silence")
    # The lock of the fleet is in one place, whatever the limit.
    reads.add("gpuhosts.vllm.fleet_lock")
    assert [task["name"] for task in others if not reads & set(task)] == []


def tasks(part: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a piece of YAML, but for what an included role applies.

    That is the drain of the front doors, which are no hosts to work on: nobody works on GPU hosts without it.
    """
    if isinstance(part, list):
        for inside in part:
            yield from tasks(inside)
    elif isinstance(part, dict):
        yield part
        for name, inside in part.items():
            if name != "ansible.builtin.include_role":
                yield from tasks(inside)
