"""The module fleet_lock, with the action that knows which run this is: one run at a time changes a fleet."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.modules import fleet_lock
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils import controller

from tests.unit.plugins.conftest import RunModule

ROOT = Path(__file__).resolve().parents[4]
Lock = Callable[..., dict[str, Any]]


@pytest.fixture
def lock(run_module: RunModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lock:
    """Run the module as the run with this letter, at this time."""

    def run(letter: str, now: float = 1796000000, **more: Any) -> dict[str, Any]:
        monkeypatch.setattr(fleet_lock.time, "time", lambda: now)
        who = {"by": f"{letter}@controller", "pid": 7, "run": letter}
        return run_module(fleet_lock, file=str(tmp_path / "gpuhosts/lock.json"), who=who, **more)

    return run


def test_the_second_run_hears_who_has_it_and_since_when(lock: Lock) -> None:
    assert lock("a")["holder"]["by"] == "a@controller"
    lock("a", 1796000600)
    refused = lock("b", 1796000700)
    assert refused["failed"]
    assert "a@controller (process 7) has been changing this fleet since 2026-11-30 00:53:20 UTC" in refused["msg"]
    assert "last word came at 2026-11-30 01:03:20 UTC" in refused["msg"]
    assert lock("a", state="free")["holder"] == {}
    assert lock("b")["holder"]["by"] == "b@controller"


def test_nobody_gives_back_what_another_run_has(lock: Lock) -> None:
    lock("a")
    assert lock("b", state="free")["holder"]["run"] == "a"
    assert lock("b")["failed"]


@pytest.mark.parametrize(
    "way", [{"take": True}, {"dead": ["a"]}, {"now": 1796000000 + 7200}], ids=["taken", "known to be dead", "silent"]
)
def test_a_run_that_is_dead_is_passed_over(lock: Lock, way: dict[str, Any]) -> None:
    lock("a")
    assert lock("b", **way)["holder"]["run"] == "b"
    assert lock("a", 1796000001 + (7200 if "now" in way else 0))["failed"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"by": "a"}'])
def test_a_damaged_file_holds_nobody_up(lock: Lock, tmp_path: Path, content: str) -> None:
    (tmp_path / "gpuhosts").mkdir()
    (tmp_path / "gpuhosts/lock.json").write_text(content)
    assert lock("b")["holder"]["run"] == "b"


def test_check_mode_changes_nothing(lock: Lock, tmp_path: Path) -> None:
    lock("a", _ansible_check_mode=True)
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_of_a_lock_that_is_given_back(lock: Lock, tmp_path: Path) -> None:
    lock("a")
    lock("a", state="free")
    assert list((tmp_path / "gpuhosts").iterdir()) == []


def test_the_remedy_names_the_variable_that_the_role_hands_over(lock: Lock) -> None:
    lock("a")
    (variable,) = re.findall(r"-e (\w+)=true", lock("b")["msg"])
    tasks = yaml.safe_load((ROOT / "roles/maintenance/tasks/lock.yml").read_text())
    assert variable in tasks[0]["gpuhosts.vllm.fleet_lock"]["take"]
    assert lock("b", take=True)["holder"]["run"] == "b"


def test_a_process_of_this_controller_is_known_to_live_or_to_be_dead() -> None:
    told = "import json; from ansible_collections.gpuhosts.vllm.plugins.plugin_utils import controller as c;"
    command = [sys.executable, "-c", f"{told} print(json.dumps(c.this_run()), flush=True); input()"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "collections")}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        run = json.loads(process.stdout.readline())
        assert run["pid"] == process.pid
        assert not controller.is_gone(run["run"])
        process.kill()
        process.wait()
        process.stdin.close()
    assert controller.is_gone(run["run"])
    assert not controller.is_gone(controller.this_run()["run"])


@pytest.mark.parametrize("run", ["another-boot pid:[7] 1 1", "", "nonsense", "a b c d"])
def test_of_a_run_elsewhere_nobody_can_say_it(run: str) -> None:
    assert not controller.is_gone(run)
