"""The module gpu_facts, from its arguments to its JSON, and the action that sends it on its way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.gpuhosts.vllm.plugins.action import gpu_facts as action
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import nvml
from ansible_collections.gpuhosts.vllm.plugins.modules import gpu_facts

from tests.unit.plugins.conftest import RunModule


@pytest.fixture(autouse=True)
def own_search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module, which is a process of its own on a host, puts its binding in front of everything."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("check", [False, True])
def test_a_host_without_a_driver_is_no_failure(run_module: RunModule, tmp_path: Path, check: bool) -> None:
    arguments = {"_ansible_remote_tmp": str(tmp_path), "_ansible_check_mode": check}
    result = run_module(gpu_facts, binding=nvml.pack_binding(), **arguments)
    facts = result["ansible_facts"]["gpu_facts"]
    assert not result["changed"]
    assert (facts["gpus"], facts["domains"], facts["link"]) == ([], [], None)
    assert "NVML error" in facts["reason"]


def test_without_any_binding_the_package_is_named(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    message = run_module(gpu_facts)["msg"]
    assert "nvidia-ml-py" in message
    assert (
        "on the controller, from where it is sent along (python3 -m pip install nvidia-ml-py), or on the host"
        in message
    )


def test_the_action_sends_the_binding_of_the_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    execute = Mock(return_value={"ansible_facts": {}})
    plugin = action.ActionModule(Mock(args={}), *[Mock() for _ in range(5)])
    monkeypatch.setattr(plugin, "_execute_module", execute)
    assert plugin.run(task_vars={}) == {"ansible_facts": {}}
    name, arguments = execute.call_args.args
    assert name == "gpuhosts.vllm.gpu_facts"
    assert arguments == {"binding": nvml.pack_binding()}


def test_ansible_runs_it_end_to_end(ansible_environment: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    """Through the action and the module as Ansible packs it, with a Python that has no packages of its own."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", "-m", "gpuhosts.vllm.gpu_facts"]
    variables = ["-e", f"ansible_python_interpreter={bare}/bin/python", "-e", f"ansible_remote_tmp={tmp_path}/remote"]
    run = subprocess.run(
        [*command, *variables], env=ansible_environment("2xl40s"), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("name: NVIDIA L40S") == 2
    assert "binding" not in run.stdout
