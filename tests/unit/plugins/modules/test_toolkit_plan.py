"""The module toolkit_plan, from its arguments to its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker import Engine
from ansible_collections.gpuhosts.vllm.plugins.modules import toolkit_plan

from tests.unit.plugins.conftest import RunModule

ROLE = Path(__file__).resolve().parents[4] / "roles/nvidia_container_toolkit"
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
ARGUMENTS: dict[str, Any] = {
    "host": "gpu1",
    "distribution": "Debian",
    "distribution_version": "12.11",
    "platforms": yaml.safe_load((ROLE / "vars/main/platforms.yml").read_text())["_nvidia_container_toolkit_platforms"],
    "wishes": {name.removeprefix("nvidia_container_toolkit_"): value for name, value in DEFAULTS.items()},
}
INFO: dict[str, Any] = {"ServerVersion": "29.7.2", "DockerRootDir": "/var/lib/docker", "Runtimes": {}}


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host without the toolkit."""
    monkeypatch.setattr(toolkit_plan, "ROOT", tmp_path)
    monkeypatch.setattr(toolkit_plan, "run", lambda _: "")
    return tmp_path


def answering(monkeypatch: pytest.MonkeyPatch, **info: Any) -> None:
    monkeypatch.setattr(toolkit_plan, "read_engine", lambda _: Engine(info=INFO | info))


def test_a_host_without_the_toolkit_needs_it(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch)
    plan = run_module(toolkit_plan, **ARGUMENTS)["plan"]
    assert plan["todo"] == {"repository": True, "packages": True, "locks": False}
    assert plan["vendor"]["wanted"][0] == "nvidia-container-toolkit=1.20.1-1"


def test_an_engine_may_be_missing_where_none_could_be_made(run_module: RunModule) -> None:
    assert "no Docker Engine answers" in run_module(toolkit_plan, **ARGUMENTS)["msg"]
    assert run_module(toolkit_plan, **ARGUMENTS, _ansible_check_mode=True)["plan"]["install"]
    assert run_module(toolkit_plan, **ARGUMENTS, preflight=True) == {
        "changed": False,
        "say": [],
        "invocation": run_module(toolkit_plan, **ARGUMENTS, preflight=True)["invocation"],
    }


def test_an_old_engine_is_refused_early_unless_docker_engine_brings_a_newer_one(
    run_module: RunModule, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    answering(monkeypatch, ServerVersion="24.0.7")
    assert "CDI begins with 25.0" in run_module(toolkit_plan, **ARGUMENTS, preflight=True)["msg"]

    status = root / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text("Package: docker-ce\nStatus: hold ok installed\nVersion: 5:24.0.7-1\n")
    assert "msg" not in run_module(toolkit_plan, **ARGUMENTS, preflight=True)
    assert "CDI begins with 25.0" in run_module(toolkit_plan, **ARGUMENTS)["msg"]


def test_an_engine_that_was_to_hand_out_gpus_by_now(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch)
    monkeypatch.setattr(toolkit_plan, "wait_for", lambda _, read, __: read())
    assert "the engine runs without NVIDIA's runtime" in run_module(toolkit_plan, **ARGUMENTS, wait=1)["msg"]
    answering(monkeypatch, Runtimes={"nvidia": {}}, CDISpecDirs=["/etc/cdi"])
    assert "msg" not in run_module(toolkit_plan, **ARGUMENTS, wait=1)


def test_preflight_asks_no_program(run_module: RunModule, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/nvidia-ctk").write_text("")
    monkeypatch.setattr(toolkit_plan, "answer", lambda *_, **__: pytest.fail("it was asked"))
    answering(monkeypatch)
    assert "msg" not in run_module(toolkit_plan, **ARGUMENTS, preflight=True)
