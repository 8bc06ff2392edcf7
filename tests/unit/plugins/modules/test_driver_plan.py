"""The module driver_plan, from its arguments to its JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from ansible.plugins.action import ActionBase
from ansible_collections.gpuhosts.vllm.plugins.action import driver_plan as action
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import nvml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import Driver
from ansible_collections.gpuhosts.vllm.plugins.modules import driver_plan

from tests.unit.plugins.conftest import RunModule

ROOT = Path(__file__).resolve().parents[4]
TABLE = ROOT / "roles/nvidia_driver/vars/main/platforms.yml"
ARGUMENTS: dict[str, Any] = {
    "host": "gpu1",
    "distribution": "Debian",
    "distribution_version": "12.11",
    "platforms": yaml.safe_load(TABLE.read_text())["_nvidia_driver_platforms"],
}


@pytest.fixture(autouse=True)
def fresh_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host with nothing on it."""
    monkeypatch.setattr(driver_plan, "ROOT", tmp_path)
    monkeypatch.setattr(driver_plan, "read_driver", lambda: Driver(kernel="6.1.0-41-amd64"))


def test_a_fresh_host_needs_everything_and_is_told_why(run_module: RunModule) -> None:
    result = run_module(driver_plan, **ARGUMENTS, wishes={"source": "nvidia"})
    plan = result["plan"]
    assert not plan["settled"]
    assert plan["todo"] == {
        "repository": True,
        "units": True,
        "packages": True,
        "locks": True,
        "files": True,
        "services": True,
        "build": False,
        "load": False,
        "reboot": False,
    }
    assert plan["differs"]["packages"][0] == "nvidia-driver-cuda is not installed"
    assert "Open kernel module: " in result["say"][0]
    assert result["ansible_facts"]["driver_facts"]["kernel"] == "6.1.0-41-amd64"


def test_a_refusal_fails_and_names_the_host(run_module: RunModule) -> None:
    result = run_module(driver_plan, **ARGUMENTS, wishes={"branch": "570"})
    assert result["failed"]
    assert "The branch is 580 or later" in result["msg"]


def test_a_driver_of_somebody_elses_is_left_alone(run_module: RunModule) -> None:
    result = run_module(driver_plan, **ARGUMENTS | {"distribution": "Fedora"}, wishes={"source": "none"})
    assert result["plan"]["settled"]
    assert "gpu1 has no driver from none, which somebody else takes care of" in result["say"][0]


def test_a_pending_reboot_is_told_where_it_is_not_allowed(
    run_module: RunModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Driver(kernel="6.1", reboot_pending=True, reboot_reason="because")
    monkeypatch.setattr(driver_plan, "read_driver", lambda: waiting)
    told = run_module(driver_plan, **ARGUMENTS, wishes={"reboot": "never"})["say"]
    assert told[-1].startswith("gpu1 waits for a reboot: because (nvidia_driver_reboot: never).")
    assert not any("waits" in line for line in run_module(driver_plan, **ARGUMENTS, wishes={})["say"])


def test_the_repository_is_asked(run_module: RunModule, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "apt-cache"
    program.write_text("#!/bin/sh\necho ' nvidia-driver-cuda | 580.178.04-1 | http://mirror Packages'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    result = run_module(driver_plan, **ARGUMENTS, wishes={}, ask=True)
    assert result["plan"]["version"] == "580.178.04"
    assert (
        "has no driver 580.1.1" in run_module(driver_plan, **ARGUMENTS, wishes={"version": "580.1.1"}, ask=True)["msg"]
    )

    program.write_text("#!/bin/sh\necho no lists >&2\nexit 100\n")
    assert (
        "gpu1: apt-cache madison nvidia-driver-cuda failed: no lists"
        in (run_module(driver_plan, **ARGUMENTS, wishes={}, ask=True)["msg"])
    )


def test_a_word_that_is_no_wish(run_module: RunModule) -> None:
    message = run_module(driver_plan, **ARGUMENTS, wishes={"flavor": "open"})["msg"]
    assert message.startswith("wishes: there is no flavor; there are branch, ")


def test_the_gpus_are_read_where_they_are_asked_for(
    run_module: RunModule, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    more = {"gpus": True, "binding": nvml.pack_binding(), "_ansible_remote_tmp": str(tmp_path)}
    for source in ("none", "nvidia"):
        facts = run_module(driver_plan, **ARGUMENTS, **more, wishes={"source": source})["ansible_facts"]
        assert "NVML error" in facts["gpu_facts"]["reason"]
    assert "gpu_facts" not in run_module(driver_plan, **ARGUMENTS, wishes={})["ansible_facts"]


def test_models_that_are_directories_are_read_where_they_are_asked_for(run_module: RunModule, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/config.json").write_text('{"hidden_size": 8}')
    models = [
        {"name": "tiny", "source": str(tmp_path / "tiny")},
        {"name": "gone", "source": str(tmp_path / "gone")},
        {"name": "of the hub", "source": "some/model"},
    ]
    for source in ("none", "nvidia"):
        facts = run_module(driver_plan, **ARGUMENTS, models=models, wishes={"source": source})["ansible_facts"]
        assert facts["model_facts"]["tiny"]["config"] == {"hidden_size": 8}
        assert "problem" in facts["model_facts"]["gone"]
        assert "of the hub" not in facts["model_facts"]
    assert "model_facts" not in run_module(driver_plan, **ARGUMENTS, wishes={})["ansible_facts"]


def test_gpus_that_nothing_can_be_asked_about_fail(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "nvidia-ml-py" in run_module(driver_plan, **ARGUMENTS, gpus=True, wishes={})["msg"]
    assert "failed" not in run_module(driver_plan, **ARGUMENTS, wishes={})


@pytest.mark.parametrize(("given", "sent"), [({"gpus": "yes"}, True), ({"gpus": False}, False), ({}, False)])
def test_the_action_sends_the_binding_only_for_the_gpus(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], sent: bool
) -> None:
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    execute = Mock(return_value={"plan": {}})
    plugin = action.ActionModule(Mock(args=given), *[Mock() for _ in range(5)])
    monkeypatch.setattr(plugin, "_execute_module", execute)
    assert plugin.run(task_vars={}) == {"plan": {}}
    name, arguments = execute.call_args.args
    assert name == "gpuhosts.vllm.driver_plan"
    assert arguments == given | {"binding": nvml.pack_binding() if sent else None}
