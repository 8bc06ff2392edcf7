"""What stops for good is agreed to first: ``fleet_allow_stops``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from .conftest import ROOT, Play


def row(name: str, action: str = "stopped", *, last: bool = False) -> dict[str, object]:
    model = name.rpartition("-")[0]
    return {"instance": name, "model": model, "action": action, "reason": f"of {name}", "last": last}


ONE = [row("a-2")]
TWO = [row("a-2"), row("a-3")]
LAST = [row("a-1", last=True)]
MOVED = [row("a-1", "moved"), row("a-2", "moved"), row("a-3", "shrunk"), row("b-1", "restarted")]


def playbook(place: Path, changes: list[dict[str, object]]) -> str:
    task = {"ansible.builtin.import_role": {"name": "gpuhosts.vllm.fleet", "tasks_from": "stops"}}
    found = {"hosts": "gpu1", "gather_facts": False, "vars": {"fleet_plan": {"changes": changes}}, "tasks": [task]}
    (place / "play.yml").write_text(yaml.safe_dump([found]))
    return str(place / "play.yml")


@pytest.mark.parametrize("changes", [[], ONE, MOVED], ids=["nothing", "one of several", "what goes on elsewhere"])
def test_goes_on(play: Play, tmp_path: Path, changes: list[dict[str, object]]) -> None:
    assert play(playbook(tmp_path, changes)).code == 0


def test_more_than_one(play: Play, tmp_path: Path) -> None:
    done = play(playbook(tmp_path, TWO))
    assert done.code != 0
    assert "The plan stops a-2, a-3: of a-2; of a-3." in done.text
    assert play(playbook(tmp_path, TWO), "-e", "fleet_allow_stops=true").code == 0
    assert play(playbook(tmp_path, TWO), "--check").code == 0, "to look is no change"


def test_the_last_one(play: Play, tmp_path: Path) -> None:
    done = play(playbook(tmp_path, LAST))
    assert done.code != 0
    assert "Nothing would serve a then." in done.text
    assert "-e fleet_allow_stops=true" in done.text
    taken_away = json.dumps({"teardown_models": ["a"]})
    assert play(playbook(tmp_path, LAST), "-e", taken_away).code == 0, "teardown.yml was told so"


@pytest.mark.parametrize("stage", ["models", "serve"])
def test_stages_that_change_hosts_ask_first(stage: str) -> None:
    first, *_ = yaml.safe_load((ROOT / f"playbooks/stages/{stage}.yml").read_text())
    asked = [task["ansible.builtin.import_role"]["tasks_from"] for task in first["tasks"]]
    assert asked[-1] == "stops"
