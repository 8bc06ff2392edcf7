"""status.yml on a fleet with a drained server and a stopped engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from . import engine
from .conftest import machine, playbook
from .hosts import HOSTS
from .settings import NAME, REPORTS

(SERVER,) = (f"{host.address}:8000" for host in HOSTS if host.name == "gpu2")


def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REPORTS / "status.json").read_text())
    return found


def states() -> dict[str, tuple[str, str]]:
    return {instance["id"]: (instance["state"], instance["reason"]) for instance in kept()["instances"]}


@contextmanager
def drained_server(place: Path) -> Iterator[None]:
    """As docs/operations.md tells operators to do it."""
    drain = {"name": "gpuhosts.vllm.nginx_lb", "tasks_from": "drain"}
    values = {"nginx_lb_servers": [SERVER], "nginx_lb_state": "{{ state }}"}
    tasks = [{"ansible.builtin.include_role": drain, "vars": values}]
    play = place / "drain.yml"
    play.write_text(
        yaml.safe_dump([{"hosts": "load_balancers", "become": True, "gather_facts": False, "tasks": tasks}])
    )
    assert playbook(str(play), "-e", "state=drained").code == 0
    try:
        yield
    finally:
        assert playbook(str(play), "-e", "state=serving").code == 0


@contextmanager
def stopped_engine() -> Iterator[None]:
    gpu1 = machine("gpu1")
    gpu1.check_output("systemctl stop vllm@tiny-llama-1")
    try:
        yield
    finally:
        gpu1.check_output("systemctl start vllm@tiny-llama-1")


@contextmanager
def silent_host(name: str) -> Iterator[None]:
    container = engine.client().containers.get(f"{NAME}-{name}")
    container.pause()
    try:
        yield
    finally:
        container.unpause()


def test_a_drained_server_and_a_stopped_engine(tmp_path: Path) -> None:
    with drained_server(tmp_path), stopped_engine():
        run = playbook("playbooks/status.yml", "--check", "--diff")
        status = kept()
    assert (run.code, run.changed) == (0, {})
    assert {run.recap[host.name]["ok"] for host in HOSTS} == {1}  # which makes it cheap
    print(f"{run.seconds:.1f} s")  # 4 on an idle machine; in CI something else runs beside
    assert status["summary"].startswith("1 model, 2 instances: 0 up, 1 drained, 1 down; ")
    assert status["summary"] in run.output
    assert {one["id"]: (one["state"], one["reason"]) for one in status["instances"]} == {
        "tiny-llama-1": ("down", "stopped"),
        "tiny-llama-2": ("drained", "drained by an operator"),
    }
    (model,) = status["models"]
    assert (model["running"], model["waiting"], model["kv_cache_usage"]) == (0, 0, 0)
    assert {host["name"]: host["gpus"] for host in status["hosts"]} == {"gpu1": 2, "gpu2": 2, "lb1": None, "mon1": None}
    assert [host["gpu_errors"] for host in status["hosts"] if host["gpus"]] == [[], []]
    assert (status["last_change"]["host"], status["last_change"]["changed_file"]) == ("lb1", "/etc/nginx/nginx.conf")
    assert all(host["last_run"] for host in status["hosts"])


def test_a_part_of_a_fleet_that_is_well() -> None:
    run = playbook("playbooks/status.yml", "--limit", "gpu2,lb1")
    assert (run.code, run.changed, set(run.recap)) == (0, {}, {"gpu2", "lb1"})
    assert states() == {"tiny-llama-1": ("unknown", "gpu1 was not asked"), "tiny-llama-2": ("up", "")}
    assert "not asked: gpu1, mon1" in kept()["notes"]


def test_a_host_that_is_silent_now_and_answered_another_playbook_just_before() -> None:
    assert playbook("playbooks/detect.yml", "--limit", "gpu2").code == 0  # Ansible keeps the connection for a minute
    with silent_host("gpu2"):
        run = playbook("playbooks/status.yml")
    (note,) = (note for note in kept()["notes"] if note.startswith("gpu2"))
    assert note.startswith("gpu2 cannot be reached: ")
    assert (run.code, states()["tiny-llama-1"]) == (0, ("up", ""))
    print(f"{run.seconds:.1f} s")
    assert run.seconds < 30  # a kept connection holds it for more than a minute
