"""What is said when work on a host fails: the role's own rescue, around tasks that fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
LOOP = ["well", "gpu1 burns", "gpu2 burns"]
ROLE = ROOT / "roles/maintenance"
FAIL = {"name": "Prove", "ansible.builtin.fail": {"msg": "{{ item }}"}}


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (FAIL | {"loop": LOOP, "when": "item != 'well'"}, "localhost: Prove: gpu1 burns; gpu2 burns. It stays out"),
        (FAIL | {"vars": {"item": "gpu1 burns"}}, "localhost: Prove: gpu1 burns. It stays out"),
    ],
    ids=["a loop", "one"],
)
def test_the_reason_is_in_the_message(tmp_path: Path, task: dict[str, Any], told: str) -> None:
    (rescued,) = [part for part in yaml.safe_load((ROLE / "tasks/main.yml").read_text()) if "rescue" in part]
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [str(ROLE / "vars/main.yml")],
        "tasks": [rescued | {"block": [task]}],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    done = subprocess.run([program, str(tmp_path / "play.yml")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert told in " ".join(done.stdout.split())
