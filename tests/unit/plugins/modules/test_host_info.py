"""The module host_info, from its arguments to its JSON, the action that sends it, and the playbook that judges."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from ansible.plugins.action import ActionBase
from ansible_collections.gpuhosts.vllm.plugins.action import host_info as action
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import nvml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.machine import Wanted
from ansible_collections.gpuhosts.vllm.plugins.modules import host_info

from tests.unit.plugins.conftest import ROOT, RunModule

PLAIN = Wanted().to_dict()
GPUS = Wanted(gpu_host=True, vllm_python=sys.executable).to_dict()


@pytest.fixture(autouse=True)
def own_search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module, which is a process of its own on a host, puts its binding in front of everything."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("check", [False, True])
def test_a_host_without_gpus(run_module: RunModule, check: bool) -> None:
    result = run_module(host_info, wanted=PLAIN, _ansible_check_mode=check)
    assert (result["changed"], result["gpu"], result["wanted"]) == (False, None, json.loads(json.dumps(PLAIN)))
    assert result["machine"]["python"] == sys.version.split()[0]


def test_a_gpu_host_without_a_driver(run_module: RunModule, tmp_path: Path) -> None:
    result = run_module(host_info, wanted=GPUS, binding=nvml.pack_binding(), _ansible_remote_tmp=str(tmp_path))
    assert result["gpu"]["gpus"] == []
    assert result["driver"]["source"] == "none"
    assert result["machine"]["vllm_python"] == sys.version.split()[0]


def test_an_old_python_tells_its_version_and_nothing_else(
    run_module: RunModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_info, "FLOOR", (99,))
    result = run_module(host_info, wanted=GPUS)
    assert (result["gpu"], result["driver"], list(result["machine"])) == (None, None, ["python"])


def test_without_any_binding_the_package_is_named(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "nvidia-ml-py" in run_module(host_info, wanted=GPUS)["msg"]


def test_the_action_says_what_is_wanted_and_notes_the_time_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    times = iter([10.0, 12.0])
    monkeypatch.setattr(action.time, "time", lambda: next(times))
    execute = Mock(return_value={"machine": {}})
    plugin = action.ActionModule(Mock(args={}), *[Mock() for _ in range(5)])
    monkeypatch.setattr(plugin, "_execute_module", execute)
    hostvars = {"mon1": {"group_names": ["monitoring"]}}
    assert plugin.run(task_vars={"inventory_hostname": "mon1", "hostvars": hostvars}) == {
        "machine": {},
        "asked_epoch": [10.0, 12.0],
    }
    name, arguments = execute.call_args.args
    assert (name, arguments["binding"]) == ("gpuhosts.vllm.host_info", nvml.pack_binding())
    assert [port["number"] for port in arguments["wanted"]["ports"]] == [9100, 9093, 9090]


@pytest.mark.parametrize("options", [[], ["--check", "--diff", "--limit", "gpu*:lb1"]])
def test_the_playbook_judges_the_hosts_and_those_it_cannot_reach(
    ansible_environment: Callable[[str], dict[str, str]], tmp_path: Path, options: list[str]
) -> None:
    """gpu1 is this machine with pretended GPUs, gpu2 answers nobody, and on lb1 there is no such Python."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory: dict[str, Any] = {
        "gpu_hosts": {
            "hosts": {"gpu1": local, "gpu2": {"ansible_host": "127.0.0.1", "ansible_port": 1}},
            "vars": {"vllm_models": [{"name": "a", "source": "/srv/a"}], "fleet_report_dir": str(tmp_path / "reports")},
        },
        "load_balancers": {"hosts": {"lb1": local | {"ansible_python_interpreter": "/nowhere/python3"}}},
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "playbooks/doctor.yml", "-i", str(tmp_path / "hosts.yml"), *options]
    run = subprocess.run(command, cwd=ROOT, env=ansible_environment("t4"), capture_output=True, text=True, check=False)

    verdict = json.loads((tmp_path / "reports/doctor.json").read_text())
    assert run.returncode != 0
    assert not verdict["ok"]
    failures = {(entry["host"], entry["code"]): entry for entry in verdict["failures"]}
    assert {("gpu2", "unreachable"), ("lb1", "unreadable")} <= set(failures)
    assert all(host == "gpu1" for host, _code in set(failures) - {("gpu2", "unreachable"), ("lb1", "unreadable")})
    assert "FAILURE  gpu2  unreachable" in run.stdout
    assert "/nowhere/python3" in failures["lb1", "unreadable"]["observed"]
    assert "changed=1" not in run.stdout
