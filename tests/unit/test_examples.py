"""plan.yml with the examples: it needs no host and no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("example", "tensor_sizes"),
    [
        ("fleet-8xh100", {"llama-3.3-70b": [4], "qwen3-8b": [1] * 4}),
        ("fleet-8xl40s-pcie", {"qwen3-32b": [2], "qwen3-8b": [1] * 6}),
        ("fleet-2x8xh100", {"llama-3.3-70b": [4] * 2, "qwen3-8b": [2] * 4}),
    ],
)
def test_an_example_is_planned(example: str, tensor_sizes: dict[str, list[int]], tmp_path: Path) -> None:
    playbook = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [
        playbook,
        "playbooks/plan.yml",
        "-e",
        f"@examples/{example}.yml",
        "-e",
        f"fleet_report_dir={tmp_path}/new",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    plan = json.loads((tmp_path / "new/plan.json").read_text(encoding="utf-8"))
    found: dict[str, list[int]] = {}
    for instance in plan["instances"]:
        found.setdefault(instance["model"], []).append(instance["parallelism"]["tensor"])
    assert found == tensor_sizes
    assert "KV CACHE" in (tmp_path / "new/plan.txt").read_text(encoding="utf-8")
    assert (tmp_path / "new/plan.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
