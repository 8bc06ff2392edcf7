"""One host that is refused, and nothing is changed on any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ROOT, Play, on_debian

# Stages that change hosts.
CHANGES = ("hardware", "serve", "balance", "observe")


def imports(playbook: str) -> list[dict[str, Any]]:
    return yaml.safe_load((ROOT / f"playbooks/{playbook}.yml").read_text())


@pytest.mark.parametrize("playbook", ["site", *CHANGES])
def test_whatever_changes_a_host_begins_with_it(playbook: str) -> None:
    first, second, *others = [one["ansible.builtin.import_playbook"] for one in imports(playbook)]
    assert (first, second) == ("validate.yml", "preflight.yml")
    assert {f"stages/{name}.yml" for name in CHANGES} & set(others)


def test_it_runs_with_every_stage_that_changes_a_host() -> None:
    _, preflight, *others = imports("site")
    looks = ("plan.yml", "stages/models.yml", "stages/verify.yml")
    changing = {stage["tags"] for stage in others if stage["ansible.builtin.import_playbook"] not in looks}
    assert changing == set(CHANGES)
    assert changing <= set(preflight["tags"])


def test_every_host_is_looked_at_and_one_that_is_refused_ends_the_run(
    play: Play, inventory: dict[str, Any], tmp_path: Path
) -> None:
    """A check, should it not be refused."""
    inventory["all"] = {"vars": {"ansible_become": False}}
    playbook = on_debian(tmp_path, "site", other="services")
    inventory["services"] = {"children": {"load_balancers": {}, "monitoring": {}}}
    done = play(playbook, "--tags", "hardware", "--check")
    assert done.code != 0
    assert "lb1 runs Devuan 12; the role nginx_lb is made for" in done.text
    assert "mon1 runs Devuan 12; the role prometheus is made for" in done.text
    assert "Nothing was changed on any host, because of lb1, mon1: see above what it takes." in done.text
    assert "Hardware |" not in done.text
    assert "Preflight | Every host" in done.text
    assert all(counts["changed"] == 0 for counts in done.recap.values())
