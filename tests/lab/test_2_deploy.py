"""The main job: site.yml on fresh hosts, then again, then as a drift check."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.kv_cache import KvOptions, plan_kv_cache
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model

from . import tiny_model
from .conftest import ROOT, machine, playbook
from .settings import REPORTS


def test_site_deploys() -> None:
    run = playbook("playbooks/site.yml")
    assert run.code == 0
    verdict = json.loads((REPORTS / "verify.json").read_text())
    assert verdict["ok"]
    assert [completion["model"] for completion in verdict["completions"]] == ["tiny-llama"]
    assert len(verdict["targets"]) == 2 + 4 + 4  # instances, hosts, NGINX, Prometheus itself, Alertmanager and Jaeger


@pytest.mark.parametrize("name", ["gpu1", "gpu2"])
def test_uv_installs_compiled_packages_that_root_alone_may_write_to(name: str) -> None:
    host = machine(name)
    packages = host.check_output("realpath /opt/vllm/current/lib/python3*/site-packages")
    assert host.check_output("cat %s/vllm-*.dist-info/INSTALLER", packages) == "uv"
    assert host.check_output("ls %s/vllm/__pycache__/__init__.*.pyc", packages)
    wrong = "! -perm -a=r -o -type d ! -perm -a=x -o -perm /go=w"
    assert host.check_output(f"find /opt/vllm/versions/*/ ! -type l \\( {wrong} \\)") == ""
    assert host.check_output("find /opt/vllm/versions -maxdepth 1 -name '*.uv'") == ""


def test_a_second_run_changes_nothing() -> None:
    run = playbook("playbooks/site.yml")
    assert run.code == 0
    assert run.changed == {}


def test_a_part_of_the_fleet_leaves_the_plan_whole() -> None:
    before = (REPORTS / "plan.json").read_text()
    run = playbook("playbooks/site.yml", "--limit", "gpu1")
    assert run.code == 0
    assert run.changed == {}
    assert set(run.recap) == {"gpu1"}
    assert (REPORTS / "plan.json").read_text() == before


def test_check_mode_finds_no_drift() -> None:
    run = playbook("playbooks/site.yml", "--check", "--diff")
    assert run.code == 0
    assert run.changed == {}


def test_the_lab_answers_token_by_token() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "tests.lab", "show"], cwd=ROOT, text=True, capture_output=True, check=False
    )
    print(shown.stdout)
    assert shown.returncode == 0, shown.stderr


def test_the_engines_have_the_tokens_that_the_planner_finds_in_their_bytes() -> None:
    model = json.loads((REPORTS / "plan.json").read_text())["instances"][0]
    config = json.loads((tiny_model.DIRECTORY / "config.json").read_text())
    kv_bytes = 1 * 2**30  # VLLM_CPU_KVCACHE_SPACE in the inventory
    options = KvOptions(max_model_len=model["engine_args"]["max-model-len"])

    predicted = plan_kv_cache(read_model(config), [kv_bytes], options)

    for engine in json.loads((REPORTS / "effective.json").read_text()):
        assert engine["effective"]["kv_cache_tokens"] == predicted.tokens
        assert engine["effective"]["max_concurrency"] == predicted.concurrency
