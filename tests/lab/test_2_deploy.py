"""The main job: site.yml on fresh hosts, then again, then as a drift check."""

from __future__ import annotations

import json
import subprocess
import sys

from .conftest import ROOT, playbook


def test_site_deploys() -> None:
    run = playbook("playbooks/site.yml")
    assert run.code == 0
    verdict = json.loads((ROOT / ".lab/reports/verify.json").read_text())
    assert verdict["ok"]
    assert [completion["model"] for completion in verdict["completions"]] == ["tiny-llama"]
    assert len(verdict["targets"]) == 2 + 4 + 1  # instances, hosts, Prometheus itself


def test_a_second_run_changes_nothing() -> None:
    run = playbook("playbooks/site.yml")
    assert run.code == 0
    assert run.changed == {}


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
