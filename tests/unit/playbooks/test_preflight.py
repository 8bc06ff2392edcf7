"""One host that is refused, and nothing is changed on any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .conftest import ROOT, Play

# Stages that change no host.
LOOKS = ("validate.yml", "preflight.yml", "plan.yml", "stages/models.yml", "stages/verify.yml")


def test_it_runs_before_and_with_every_stage_that_changes_something() -> None:
    stages = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())
    names = [stage["ansible.builtin.import_playbook"] for stage in stages]
    changing = [stage for stage, name in zip(stages, names, strict=True) if name not in LOOKS]
    assert names.index("preflight.yml") < stages.index(changing[0])
    assert {"hardware", "serve", "balance", "observe"} == {stage["tags"] for stage in changing}
    assert {stage["tags"] for stage in changing} <= set(stages[names.index("preflight.yml")]["tags"])


def test_every_host_is_looked_at_and_one_that_is_refused_ends_the_run(
    play: Play, inventory: dict[str, Any], tmp_path: Path
) -> None:
    """One machine is hosts of two distributions, as plays do not gather again. A check, should it not be refused."""
    name = "{{ 'Debian' if inventory_hostname in groups.gpu_hosts else 'Devuan' }}"
    distribution = {"ansible_distribution": name, "ansible_distribution_version": "12"}
    distribution |= {"ansible_distribution_major_version": "12", "ansible_os_family": "Debian"}
    gathered = {
        "hosts": "all",
        "gather_facts": True,
        "gather_subset": ["!all", "!min", "distribution", "local", "pkg_mgr", "service_mgr"],
        "tasks": [{"ansible.builtin.set_fact": distribution | {"cacheable": True}}],
    }
    playbook = tmp_path / "site.yml"
    playbook.write_text(
        yaml.safe_dump([gathered | {"tags": "always"}, {"import_playbook": str(ROOT / "playbooks/site.yml")}])
    )
    for group in ("gpu_hosts", "load_balancers", "monitoring"):
        inventory[group].setdefault("vars", {})["ansible_become"] = False
    done = play(str(playbook), "--tags", "hardware", "--check")
    assert done.code != 0
    assert "lb1 runs Devuan 12; the role nginx_lb is made for" in done.text
    assert "mon1 runs Devuan 12; the role prometheus is made for" in done.text
    assert "Nothing was changed on any host, because of lb1, mon1: see above what it takes." in done.text
    assert "Hardware |" not in done.text
    assert "Preflight | Every host" in done.text
    assert all(counts["changed"] == 0 for counts in done.recap.values())
