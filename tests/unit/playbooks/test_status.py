"""status.yml where parts are missing: it says so, changes nothing and ends well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.wanted import NGINX_STATUS

from .conftest import AWAY, ROOT, Play


def kept(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "site/reports/status.json").read_text())
    return found


def test_a_host_that_is_away_is_a_line_of_the_picture(play: Play, inventory: dict[str, Any], tmp_path: Path) -> None:
    inventory["gpu_hosts"]["hosts"]["gpu2"] = AWAY
    done = play("status", "--check", "--diff")
    assert done.code == 0
    assert {counts["changed"] for counts in done.recap.values()} == {0}
    assert "fatal:" not in done.text
    status = kept(tmp_path)
    assert {host["name"]: host["answers"] for host in status["hosts"]} == {
        "gpu1": True,
        "gpu2": False,
        "lb1": True,
        "mon1": True,
    }
    away, *others = status["notes"]
    assert away.startswith("gpu2 cannot be reached: ")
    assert any(note.startswith("mon1: Prometheus does not answer: http://127.0.0.1:9090/") for note in others)
    assert status["summary"] in done.text


def test_a_fleet_that_nobody_watches(play: Play, inventory: dict[str, Any], tmp_path: Path) -> None:
    del inventory["monitoring"]
    assert play("status").code == 0
    status = kept(tmp_path)
    assert [host["name"] for host in status["hosts"]] == ["gpu1", "gpu2", "lb1"]
    assert "the fleet has no Prometheus: TTFT, GPUs and alerts are not known" in status["notes"]


def test_a_part_of_the_fleet(play: Play, tmp_path: Path) -> None:
    done = play("status", "--limit", "gpu1")
    assert (done.code, set(done.recap)) == (0, {"gpu1"})
    assert [host["name"] for host in kept(tmp_path)["hosts"]] == ["gpu1"]
    assert "not asked: gpu2, lb1, mon1" in kept(tmp_path)["notes"]


def test_the_front_door_is_asked_where_it_tells() -> None:
    assert f"'http://{NGINX_STATUS}/stub_status'" in (ROOT / "playbooks/status.yml").read_text()


def test_the_time_limit_of_a_connection_is_the_roles_default() -> None:
    defaults = yaml.safe_load((ROOT / "roles/fleet/defaults/main.yml").read_text())
    (play, *_) = (one for one in yaml.safe_load((ROOT / "playbooks/status.yml").read_text()) if "vars" in one)
    limit = "{{ fleet_status_timeout | default(%d) }}"
    assert play["vars"]["ansible_ssh_timeout"] == limit % defaults["fleet_status_timeout"]
