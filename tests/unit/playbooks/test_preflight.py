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


@pytest.mark.parametrize(
    ("playbooks", "more", "read"),
    [
        (["plan"], [], True),
        (["preflight", "plan"], [], False),
        (["preflight", "plan"], ["-e", '{"nvidia_driver_changed": true}'], True),
    ],
    ids=["alone", "after a preflight", "after another driver"],
)
def test_the_gpus_are_read_once(
    play: Play, inventory: dict[str, Any], tmp_path: Path, playbooks: list[str], more: list[str], read: bool
) -> None:
    inventory["all"] = {"vars": {"ansible_become": False, "nvidia_driver_source": "none"}}
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/config.json").write_text("{}")
    done = play(on_debian(tmp_path, *playbooks), *more)
    assert done.code == 0
    assert ("TASK [Read the GPUs" in done.text) == read
    assert ("TASK [Read config.json" in done.text) == ("preflight" not in playbooks)


def test_a_driver_that_the_preflight_finds_settled_is_looked_at_once(
    play: Play, inventory: dict[str, Any], tmp_path: Path
) -> None:
    inventory["all"] = {"vars": {"ansible_become": False, "nvidia_driver_source": "none"}}
    done = play(on_debian(tmp_path, "preflight", "stages/hardware"))
    assert done.code == 0
    assert done.text.count("TASK [gpuhosts.vllm.nvidia_driver : Plan | Decide]") == 1


@pytest.mark.parametrize("runtime", ["systemd", "docker"])
def test_a_host_whose_driver_is_as_wanted_gets_docker_for_its_models(
    play: Play, inventory: dict[str, Any], tmp_path: Path, runtime: str
) -> None:
    """What the preflight has found spares such a host the rest, unless a model runs in containers."""
    inventory["all"] = {"vars": {"ansible_become": False}}
    fleet = inventory["gpu_hosts"]["vars"]
    fleet["vllm_models"][0]["runtime"] = runtime
    fleet["nvidia_driver_look"] = {"plan": {"settled": True}, "say": []}
    done = play(on_debian(tmp_path, "stages/hardware"), "--check", "--limit", "gpu1")
    assert ("gpuhosts.vllm.docker_engine : " in done.text) == (runtime == "docker"), done.text
