"""What is said when work on a host fails: the role's own rescue, around tasks that fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[3]
LOOP = ["well", "gpu1 burns", "gpu2 burns"]
ROLE = ROOT / "roles/maintenance"
DRAIN, WAIT = "Drain", "Wait for the requests in flight"
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
        "vars": {"maintenance_work": "driver_upgrade"},
        "tasks": [rescued | {"block": [task]}],
    }
    (tmp_path / "lock.yml").write_text("[{ansible.builtin.meta: noop}]")
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    done = subprocess.run([program, str(tmp_path / "play.yml")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert told in " ".join(done.stdout.split())


def test_a_node_whose_head_has_left_the_fleet_is_taken_out_of_service_like_any_other() -> None:
    """Its host knows of it, and of no endpoint: running_instances reads that from the head's host."""
    headless: dict[str, Any] = {"id": "giant-1", "model": "giant", "host_names": ["gpu2"]}
    both = [headless, headless | {"id": "small-1", "endpoint": {"host": "gpu2", "address": "10.0.0.2", "port": 8000}}]
    constants = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    variables: dict[str, Any] = {"maintenance_stopping": both, "maintenance_instances": both}
    variables["_maintenance_answering"] = trust_as_template(constants["_maintenance_answering"])

    def given(text: str) -> Any:
        return Templar(DataLoader(), variables=variables).template(trust_as_template(text))

    tasks = yaml.safe_load((ROLE / "tasks/enter.yml").read_text())
    drain, wait = (next(task for task in tasks if task["name"] == f"Enter | {name}") for name in (DRAIN, WAIT))
    back = next(task for task in yaml.safe_load((ROLE / "tasks/leave.yml").read_text()) if "block" in task)["block"][0]
    assert given(drain["vars"]["nginx_lb_servers"]) == given(back["vars"]["nginx_lb_servers"]) == ["10.0.0.2:8000"]
    assert [one["id"] for one in given(wait["loop"])] == ["small-1"]
