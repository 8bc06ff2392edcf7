"""plan.yml with the examples: it needs no host and no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def play(playbook: str, example: str, reports: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run playbooks on the hosts that an example describes."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    variables = ["-e", f"@{Path('examples', example)}.yml", "-e", f"fleet_report_dir={reports}/new"]
    return subprocess.run(
        [program, *(f"playbooks/{name}.yml" for name in (playbook, *more)), *variables],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("example", "tensor_sizes"),
    [
        ("fleet-8xh100", {"llama-3.3-70b": [4], "qwen3-8b": [1] * 4}),
        ("fleet-8xl40s-pcie", {"qwen3-32b": [2], "qwen3-8b": [1] * 6}),
        ("fleet-2x8xh100-deepseek-v3", {"deepseek-v3": [8]}),
        ("fleet-2x8xh100", {"llama-3.3-70b": [4] * 2, "qwen3-8b": [1] * 8}),
    ],
)
def test_an_example_is_planned(example: str, tensor_sizes: dict[str, list[int]], tmp_path: Path) -> None:
    done = play("plan", example, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = json.loads((tmp_path / "new/plan.json").read_text(encoding="utf-8"))
    found: dict[str, list[int]] = {}
    for instance in plan["instances"]:
        found.setdefault(instance["model"], []).append(instance["parallelism"]["tensor"])
    assert found == tensor_sizes
    assert "KV CACHE" in (tmp_path / "new/plan.txt").read_text(encoding="utf-8")
    assert (tmp_path / "new/plan.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_models_of_the_sample_inventory_are_planned(tmp_path: Path) -> None:
    """The model is on the hub, nobody can read it there, and its parallelism is stated."""
    hosts = [{"name": f"gpu{number}", "gpus": "4 x H100 80GB HBM3, NVLink"} for number in (1, 2)]
    sample: dict[str, Any] = {"fleet_described_hosts": hosts}
    sample |= yaml.safe_load((ROOT / "inventories/prod/group_vars/gpu_hosts/vllm.yml").read_text(encoding="utf-8"))
    (tmp_path / "sample.yml").write_text(yaml.safe_dump(sample))
    done = play("plan", str(tmp_path / "sample"), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 instances of 1 model on 8 GPUs" in done.stdout
    for model in sample["vllm_models"]:
        model.pop("parallelism", None)
    (tmp_path / "sample.yml").write_text(yaml.safe_dump(sample))
    done = play("plan", str(tmp_path / "sample"), tmp_path)
    assert done.returncode != 0
    assert "how many GPUs it needs cannot be computed" in done.stdout + done.stderr


def test_hosts_that_are_described_as_text_are_told_in_one_line(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text('fleet_described_hosts: ["8 x H100 80GB HBM3"]\nvllm_models: [{name: a, source: org/a}]\n')
    done = play("plan", str(wrong.with_suffix("")), tmp_path)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "'8 x H100 80GB HBM3' is no description of a host. Write {name: gpu1, gpus: '8 x H100" in said
    assert "has no attribute" not in said
