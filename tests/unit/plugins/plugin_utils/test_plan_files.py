"""The plan as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.gpuhosts.vllm.plugins.action.fleet_keep import ActionModule as FleetKeep
from ansible_collections.gpuhosts.vllm.plugins.action.fleet_report import ActionModule
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.plan_files import plan_files

from tests.unit import fleets

EMPTY: dict[str, Any] = {"version": 2, "instances": [], "rollout": [], "rejected": [], "warnings": []}


def test_no_file_has_the_value_of_a_variable() -> None:
    model = {"name": "llama-3.1-8b-instruct", "env": {"SOME_PROXY": "secret-value"}}
    files = plan_files(fleets.plan([model], fleets.host("gpu1")), "the table", [])
    assert [file["name"] for file in files] == ["plan.json", "plan.txt", "plan.html"]
    assert not any("secret-value" in file["content"] for file in files)
    plan = json.loads(files[0]["content"])
    assert all(instance["env"]["SOME_PROXY"] is None for instance in plan["instances"])
    assert files[1]["content"] == "the table\n"


def test_the_page_shows_plan_and_hosts() -> None:
    host = {"name": "gpu9", "address": "10.0.0.19", "gpu_facts": {"gpus": [], "reason": "no driver"}}
    page = plan_files(EMPTY, "", [host])[2]["content"]
    assert page.startswith("<!DOCTYPE html>")
    assert "gpu9" in page
    assert "no driver" in page


@pytest.mark.parametrize("nonsense", [{}, {**EMPTY, "warnings": None}, {**EMPTY, "instances": [{"id": "x"}]}])
def test_what_is_no_plan_is_said(nonsense: dict[str, Any]) -> None:
    with pytest.raises(AnsibleActionFail, match="wants a fleet plan"):
        ActionModule(*[Mock()] * 6).decide({"plan": nonsense, "table": "", "hosts": []})


def keep(directory: Path, **contents: str) -> dict[str, Any]:
    files = [{"name": name, "content": text, "told": name == "plan"} for name, text in contents.items()]
    return FleetKeep(*[Mock()] * 6).decide({"directory": str(directory), "files": files})


def test_files_are_kept_and_only_what_is_worth_it_is_told(tmp_path: Path) -> None:
    place = tmp_path / "a/b"
    result = keep(place, plan="1\n", page="1\n")
    assert (result["changed"], [entry["after"] for entry in result["diff"]]) == (True, ["1\n"])
    assert not keep(place, plan="1\n", page="1\n")["changed"]
    assert not keep(place, plan="1\n", page="2\n")["changed"]
    assert (place / "page").read_text() == "2\n"
    assert [(entry["before"], entry["after"]) for entry in keep(place, plan="2\n")["diff"]] == [("1\n", "2\n")]
    assert (place / "plan").stat().st_mode & 0o777 == 0o644


def test_where_nothing_can_be_kept_is_said_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AnsibleActionFail, match=r"cannot be kept in .*file/reports: .* Set fleet_report_dir"):
        keep(tmp_path / "file/reports", plan="")
