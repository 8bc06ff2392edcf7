"""The module docker_plan, from its arguments to its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker import Engine
from ansible_collections.gpuhosts.vllm.plugins.modules import docker_plan

from tests.unit.plugins.conftest import RunModule

ROLE = Path(__file__).resolve().parents[4] / "roles/docker_engine"
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
ARGUMENTS: dict[str, Any] = {
    "host": "gpu1",
    "distribution": "Debian",
    "distribution_version": "13.2",
    "platforms": yaml.safe_load((ROLE / "vars/main/platforms.yml").read_text())["_docker_engine_platforms"],
    "wishes": {name.removeprefix("docker_engine_"): value for name, value in DEFAULTS.items()},
}


@pytest.fixture(autouse=True)
def fresh_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host with nothing on it."""
    monkeypatch.setattr(docker_plan, "ROOT", tmp_path)
    monkeypatch.setattr(docker_plan, "run", lambda _: "")


def test_a_fresh_host_needs_everything(run_module: RunModule) -> None:
    result = run_module(docker_plan, **ARGUMENTS)
    plan = result["plan"]
    assert not result["changed"]
    assert plan["differs"]["packages"][0] == "docker-ce is not installed"
    assert plan["vendor"]["wanted"][0] == "docker-ce=5:29.7.2-1~debian.13~trixie"
    assert plan["vendor"]["todo"] == {"repository": True, "packages": True, "locks": False}
    assert (plan["settled"], plan["install"], plan["present"]) == (False, True, False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"distribution": "Fedora"}, "gpu1 runs Fedora 13; the role docker_engine is made for Debian 12"),
        ({"wishes": {"sauce": "docker"}}, "wishes: there is no sauce; there are containerd_version, "),
    ],
)
def test_a_refusal_fails(run_module: RunModule, arguments: dict[str, Any], words: str) -> None:
    result = run_module(docker_plan, **ARGUMENTS | arguments)
    assert result["failed"]
    assert words in result["msg"]


def test_an_engine_that_was_to_answer_by_now(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_plan, "wait_for", lambda _, read, __: read())
    message = run_module(docker_plan, **ARGUMENTS, wait=3)["msg"]
    assert message.startswith("gpu1: no Docker Engine answers on /run/docker.sock after 3 seconds.")

    monkeypatch.setattr(docker_plan, "read_engine", lambda *_: Engine(info={"ServerVersion": "24.0.7"}))
    assert "Docker Engine 24.0.7 has no CDI" in run_module(docker_plan, **ARGUMENTS, wait=3)["say"][0]
