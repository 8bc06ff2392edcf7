"""``--limit``: the plan is of the whole fleet, hosts outside are read and never changed, nothing passes in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .conftest import AWAY, Play

PLAYBOOKS = ("validate", "detect", "plan", "models", "balance", "verify")


def test_every_playbook_works_on_a_part_and_plans_the_whole(
    play: Play, inventory: dict[str, Any], tmp_path: Path
) -> None:
    """The front door is there for nobody, so verify.yml, which comes last, has to say so."""
    inventory["load_balancers"]["hosts"]["lb1"]["fleet_address"] = "127.0.0.1:1"
    del inventory["monitoring"]
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/config.json").write_text("{}")
    done = play(*PLAYBOOKS, "--limit", "gpu1")
    plan = json.loads((tmp_path / "site/reports/plan.json").read_text())
    assert [instance["endpoint"]["host"] for instance in plan["instances"]] == ["gpu1", "gpu2"]
    assert done.code != 0
    (failure,) = json.loads((tmp_path / "site/reports/verify.json").read_text())["failures"]
    assert failure.startswith("lb1: tiny: ")
    assert failure in done.text
    assert set(done.recap) == {"gpu1"}
    assert done.recap["gpu1"]["failed"] == 1


def test_the_limit_may_leave_no_gpu_host(play: Play, tmp_path: Path) -> None:
    assert play("plan", "--limit", "lb1").code == 0
    plan = json.loads((tmp_path / "site/reports/plan.json").read_text())
    assert [instance["endpoint"]["host"] for instance in plan["instances"]] == ["gpu1", "gpu2"]


def test_a_host_outside_that_does_not_answer_stops_the_plan(
    play: Play, inventory: dict[str, Any], tmp_path: Path
) -> None:
    inventory["gpu_hosts"]["hosts"]["gpu2"] = AWAY
    done = play("plan", "--limit", "gpu1")
    assert done.code != 0
    assert "No answer from gpu2. --limit leaves it unchanged, but the plan is made of the whole fleet" in done.text
    assert not (tmp_path / "site/reports").exists()
